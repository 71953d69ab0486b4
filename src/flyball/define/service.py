"""Services and batches: where a model is used, under which load, and how a new version gets there."""

from __future__ import annotations

import itertools
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from flyball.define.declaration import check_name
from flyball.define.mistake import mistake
from flyball.define.model import External, Features, Model, Pretrained, Rows, check_rows, expand
from flyball.define.source import Source
from flyball.define.spec import LoadSpec, RetrainSpec, RolloutSpec, TriggerSpec
from flyball.define.task import METRICS
from flyball.kernel.errors import did_you_mean
from flyball.kernel.times import duration

MAX_BATCH = 100_000
AnyModel = Model | Pretrained | External


def Load(*, rps: float | None = None, p99: str | None = None) -> LoadSpec:
    """The load that is expected (requests per second) and the latency that is wanted (99th percentile)."""
    if rps is not None and rps <= 0:
        raise mistake(f"rps must be above 0, not {rps}")
    latency = None if p99 is None else positive("p99", p99)
    return LoadSpec(rps=None if rps is None else float(rps), p99=latency)


def Full() -> RolloutSpec:
    """A new version takes all traffic at once."""
    return RolloutSpec(kind="full")


def Canary(
    *, steps: tuple[float, ...] = (1, 5, 25, 100), hold: str = "10m", min_requests: int = 50, alpha: float = 0.01
) -> RolloutSpec:
    """A new version takes traffic step by step, and is taken back where it does harm.

    Args:
        steps: percentages of traffic, rising to 100.
        hold: how long each step lasts at least, in domain time.
        min_requests: how many requests the new version must have answered before a step ends.
        alpha: the share of good versions that may be taken back by mistake.
    """
    rise = tuple(float(s) for s in steps)
    if not rise or rise[-1] != 100 or rise[0] <= 0 or any(a >= b for a, b in itertools.pairwise(rise)):
        raise mistake(f"the steps of fb.Canary rise to 100, such as (1, 5, 25, 100), not {tuple(steps)}")
    if min_requests < 1:
        raise mistake(f"min_requests must be at least 1, not {min_requests}")
    if not 0 < alpha < 1:
        raise mistake(f"alpha is a rate between 0 and 1, not {alpha}")
    return RolloutSpec(kind="canary", steps=rise, hold=positive("hold", hold), min_requests=min_requests, alpha=alpha)


def every(period: str) -> TriggerSpec:
    """Retrain at this period of domain time."""
    return TriggerSpec(kind="every", every=positive("fb.every", period))


def drift() -> TriggerSpec:
    """Retrain when the inputs no longer look like the training set."""
    return TriggerSpec(kind="drift")


def quality_drop(metric: str, by: float) -> TriggerSpec:
    """Retrain when a metric on late labels is worse than at training by more than `by`."""
    known = {name for metrics in METRICS.values() for name in metrics}
    if metric not in known:
        raise mistake(f"there is no metric {metric!r}; {did_you_mean(metric, known)}", code="unknown_metric")
    if by <= 0:
        raise mistake(f"fb.quality_drop({metric!r}, …) takes by how much it may be worse, above 0, not {by}")
    return TriggerSpec(kind="quality_drop", metric=metric, drop=float(by))


def Retrain(
    *, on: list[TriggerSpec] | tuple[TriggerSpec, ...], cooldown: str = "6h", review: Literal["auto", "manual"] = "auto"
) -> RetrainSpec:
    """When a model is trained again by itself.

    Args:
        on: `fb.every(…)`, `fb.drift()`, `fb.quality_drop(…)`; any of them starts a run.
        cooldown: how long no trigger counts after a run was started.
        review: `auto` rolls a better version out; `manual` waits for `flyball release`.
    """
    triggers = tuple(on)
    if not triggers or not all(isinstance(t, TriggerSpec) for t in triggers):
        raise mistake("fb.Retrain(on=…) takes triggers", hint='such as on=[fb.every("1d"), fb.drift()]')
    if review not in ("auto", "manual"):
        raise mistake(f"review is 'auto' or 'manual', not {review!r}")
    return RetrainSpec(on=triggers, cooldown=duration(cooldown), review=review)


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """Answers requests with a model, or with features alone.

    Args:
        name: what clients ask for.
        model: an `@fb.model`, a `fb.Pretrained` or a `fb.External`; without one, `features` are what it answers.
        rows, features: of a service without a model: the fields of a request and what is answered.
        default: what is answered where the model cannot; labelled as such.
        log: `durable` fsyncs each prediction before its reply.
        max_staleness: how far online state may be behind before a reply says that its features are stale.
        views: where online state cannot be read, views are at their declared defaults and the reply says so;
            `required` then answers the service's default in the place of the model's answer.
        max_skew: how many of the served values may differ from what training would compute, such as 0.001: while the
            audit's bound (at 95 %) is above it, no new version takes the place of the one that serves.
        deadline: how long a request may take from its arrival to its answer, such as "50ms"; a request may ask for
            less. Without it, it follows from the load's p99, or is one second.
        max_batch: how many rows are scored together at most.
        cache: answers of the model are kept by all that it was asked, features and all, for as long as its version is
            served; a reply from the cache says so.
        older: where the version that is asked fails or is late, the one that served before it answers, and the reply
            says so; then comes `default`.
    """

    name: str
    _: KW_ONLY
    model: AnyModel | None = None
    rows: Rows | None = None
    features: Features = ()
    load: LoadSpec = field(default_factory=LoadSpec)
    rollout: RolloutSpec = field(default_factory=RolloutSpec)
    default: float | str | None = None
    retrain: RetrainSpec | None = None
    log: Literal["async", "durable"] = "async"
    max_staleness: str = "1h"
    views: Literal["optional", "required"] = "optional"
    owner: str = ""
    description: str = ""
    max_skew: float | None = None
    deadline: str | None = None
    max_batch: int = 1024
    cache: bool = False
    older: bool = False

    def __post_init__(self) -> None:
        shown = f"service {self.name!r}"
        check_service_name(self.name, shown)
        if self.model is None:
            if not self.features or self.rows is None:
                raise mistake(f"{shown} has no model; give it model=, or rows= and features= to answer features alone")
            check_rows(shown, self.rows)
        else:
            _check_model(self.model, shown)
            if self.features or self.rows is not None:
                raise mistake(f"{shown} has a model; rows= and features= belong to the model's declaration")
        expand(self.features, shown)
        if self.retrain is not None and not isinstance(self.model, Model):
            raise mistake(f"{shown} retrains, but its model is not trained here; leave retrain= out")
        if self.max_skew is not None and not _is_share(self.max_skew):
            raise mistake(
                f"{shown}: max_skew is a share of values between 0 and 1, such as 0.001, not {self.max_skew!r}"
            )
        if self.log not in ("async", "durable"):
            raise mistake(f"{shown}: log is 'async' or 'durable', not {self.log!r}")
        if self.views not in ("optional", "required"):
            raise mistake(f"{shown}: views is 'optional' or 'required', not {self.views!r}")
        positive(f"{shown}: max_staleness", self.max_staleness)
        if self.deadline is not None:
            positive(f"{shown}: deadline", self.deadline)
        if type(self.max_batch) is not int or not 1 <= self.max_batch <= MAX_BATCH:
            raise mistake(f"{shown}: max_batch is a number of rows from 1 to {MAX_BATCH}, not {self.max_batch!r}")
        for name in ("cache", "older"):
            if not isinstance(getattr(self, name), bool):
                raise mistake(f"{shown}: {name} is True or False, not {getattr(self, name)!r}")
        for name, kind, right in (
            ("load", LoadSpec, "fb.Load(rps=200)"),
            ("rollout", RolloutSpec, "fb.Canary()"),
        ):
            if not isinstance(getattr(self, name), kind):
                raise mistake(f"{shown}: {name} is {getattr(self, name)!r}; write {name}={right}")
        if self.retrain is not None and not isinstance(self.retrain, RetrainSpec):
            raise mistake(f"{shown}: retrain is {self.retrain!r}; write retrain=fb.Retrain(on=[…])")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Scores the rows of a source on a schedule, into a table of the lake.

    Args:
        rows: the source whose new rows are scored. Where it takes corrections, a row is scored as it is then, and
            again when it is corrected later: the score with the highest `_lsn` of a `_key` is its newest. A deleted row
            is not scored; a score that it was given before stays in the table.
        every: the period, in domain time.
        output: the table; without it, the batch's name.
    """

    name: str
    _: KW_ONLY
    model: AnyModel
    rows: type[Source]
    every: str
    output: str = ""
    owner: str = ""

    def __post_init__(self) -> None:
        shown = f"batch {self.name!r}"
        check_service_name(self.name, shown)
        _check_model(self.model, shown)
        if isinstance(self.model, External):
            raise mistake(f"{shown}: a model that is served elsewhere cannot score a batch here")
        check_rows(shown, self.rows, requests=False)
        positive(f"{shown}: every", self.every)
        if self.output:
            check_name(self.output, f"{shown}: output")


def check_service_name(name: object, shown: str) -> None:
    """Names of services and batches may have hyphens inside, since they stand in addresses."""
    if not isinstance(name, str):
        raise mistake(f"{shown} has no name; it comes first, in quotes")
    check_name(name.replace("-", "_"), shown)


def _check_model(model: object, shown: str) -> None:
    if not isinstance(model, (Model, Pretrained, External)):
        hint = "decorate its function with @fb.model(…)" if callable(model) else "write model=tip, without quotes"
        raise mistake(f"{shown}: model is {getattr(model, '__name__', model)!r}, not a model", hint=hint)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def positive(shown: str, value: str) -> int:
    length = duration(value)
    if length <= 0:
        raise mistake(f"{shown} must be longer than 0, not {value!r}")
    return length
