"""How many workers the load needs: a pure function of what was observed.

Two signals are taken of every moment, over all workers: requests in flight and processor time. With the means over the
last `s` seconds

    demand(s) = max(rows_in_flight(s) / rows_per_worker, busy(s) / busy_share)        [workers]

where by Little's law (1961) the mean requests in flight are arrival rate times time in the system, and `busy(s)` is how
many processors were used. Two windows are Knative's idea (stable and panic), that shrinking waits for the largest
recommendation of a while is the Kubernetes autoscaler's:

* up, at once: to `ceil(demand(short) + growth · load_seconds)`; growth is that of the demand from the long window's
  middle to the short one's, where it rises, and load_seconds is what the last starts took: what is forked now serves
  only then. The lead is at most a doubling.
* down, a worker at a time, `step_seconds` apart: where the largest demand(short) of the last `long_seconds` fits into
  one worker less with `slack` to spare.
* within `minimum` and `maximum`. `demand` is told without these bounds, for who adds machines.

A constant load gives a constant number: the growth is 0, and between the point that adds a worker (demand > n) and the
one that takes it away (demand <= (n - 1) (1 - slack)) lies more than a worker's share of slack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from flyball.kernel.errors import InvalidError

NEVER = -math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingConfig:
    """Bounds and targets. `rows_per_worker`: in flight; `busy_share`: of a processor; both are what a worker is to have
    in the mean."""

    minimum: int = 1
    maximum: int = 1
    rows_per_worker: float = 128.0
    busy_share: float = 0.7
    short_seconds: float = 2.0
    long_seconds: float = 60.0
    step_seconds: float = 5.0
    slack: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.maximum:
            raise InvalidError(
                f"workers must be at least 1, and MIN at most MAX, not {self.minimum}:{self.maximum}",
                code="bad_workers",
                hint="use a number such as 2, or bounds such as 1:4",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """All workers at one moment. `busy_seconds`: processor time since the start, which never falls; `workers`: those
    that run and are not on their way out; `load_seconds`: what the slowest of the last starts took."""

    in_flight: float
    busy_seconds: float
    workers: int
    load_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    in_flight: float
    busy_seconds: float
    demand: float = 0.0  # over the short window, when it was taken


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingState:
    """What was seen, oldest first; when a worker was taken away last; and since when the number did not grow."""

    samples: tuple[Sample, ...] = ()
    shrunk_at: float = NEVER
    steady_since: float | None = None  # None: nothing was seen yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """`wanted`: within the bounds; `demand`: what the load needs, without them."""

    wanted: int
    demand: int
    state: ScalingState = field(repr=False)


def wanted(observation: Observation, state: ScalingState, config: ScalingConfig, now: float) -> Decision:
    """How many workers there should be at `now` (monotonic seconds). Pure; called about once a second.

    >>> config = ScalingConfig(minimum=1, maximum=8)
    >>> seen = Observation(in_flight=500, busy_seconds=0.0, workers=1)
    >>> decision = wanted(seen, ScalingState(), config, now=10.0)
    >>> decision.wanted, decision.demand
    (4, 4)
    """
    kept = tuple(sample for sample in state.samples if sample.at >= now - config.long_seconds)
    samples = (*kept, Sample(now, observation.in_flight, observation.busy_seconds))
    short = _demand([sample for sample in samples if sample.at >= now - config.short_seconds], config)
    samples = (*kept, replace(samples[-1], demand=short))
    long = _demand(samples, config)
    seen = now - samples[0].at
    apart = (seen - min(config.short_seconds, seen)) / 2  # between the middles of the two windows
    growth = max(0.0, short - long) / apart if apart > 0 else 0.0
    up = min(short + growth * observation.load_seconds, 2 * short)
    current = min(max(observation.workers, config.minimum), config.maximum)
    demand = max(1, math.ceil(round(up, 9)))
    shrunk_at, steady_since = state.shrunk_at, now if state.steady_since is None else state.steady_since
    chosen = current
    if demand > current:
        chosen, steady_since = min(demand, config.maximum), now
    elif now >= max(shrunk_at + config.step_seconds, steady_since + config.long_seconds):
        largest = max(sample.demand for sample in samples)
        if current > config.minimum and largest <= (current - 1) * (1 - config.slack):
            chosen, shrunk_at = current - 1, now
    after = ScalingState(samples=samples, shrunk_at=shrunk_at, steady_since=steady_since)
    return Decision(wanted=chosen, demand=demand, state=after)


def _demand(samples: Sequence[Sample], config: ScalingConfig) -> float:
    rows = math.fsum(sample.in_flight for sample in samples) / len(samples)
    first, last = samples[0], samples[-1]
    busy = (last.busy_seconds - first.busy_seconds) / (last.at - first.at) if last.at > first.at else 0.0
    return max(rows / config.rows_per_worker, busy / config.busy_share)
