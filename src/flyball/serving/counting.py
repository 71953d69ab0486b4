"""What a worker counts, and how: each metric once, and the calls of the hot path that count a batch at a time.

    counters = Counters(CellFile(path))
    tip = counters.version("tip", "tip/7")      # once a loaded version
    tip.scored(rows=64, seconds=0.0004, predicted=0.00035)
    tip.answered("model", latencies, within=64)

One thread counts (the event loop's), so nothing is locked. Times are seconds.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from flyball.serving.cells import Block, CellFile

Values = Sequence[float] | npt.NDArray[np.float64]
Kind = Literal["counter", "histogram", "gauge", "latest"]
LaneMode = Literal["inline", "thread"]
BreakerState = Literal["closed", "open", "half_open"]

LANE_MODES: tuple[LaneMode, ...] = ("inline", "thread")
BREAKER_STATES: tuple[BreakerState, ...] = ("closed", "open", "half_open")
LOOKUPS = ("hit", "miss", "coalesced")
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)
_SIZES = (*map(str, ROWS), "inf")
RATIOS = (0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
FEW = 24  # from as many values on, numpy counts them faster than a loop


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One metric. A histogram has a cell a bound, one for what is above, and one for the sum; others have one cell.
    A gauge is summed over the workers that live, a counter over all that ever lived in this state directory; of a
    `latest` value the largest counts."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()

    @property
    def cells(self) -> int:
        return len(self.bounds) + 2 if self.bounds else 1


VERSION = ("service", "version")
PREDICTIONS = Family(
    name="flyball_predictions_total", kind="counter", text="Rows answered, by rung.", labels=(*VERSION, "rung")
)
ERRORS = Family(
    name="flyball_prediction_errors_total",
    kind="counter",
    text="Rows without a reply, by the error's code.",
    labels=(*VERSION, "code"),
)
GOODPUT = Family(
    name="flyball_goodput_total", kind="counter", text="Rows answered within their deadline.", labels=VERSION
)
REQUESTS = Family(
    name="flyball_requests_total",
    kind="counter",
    text="Requests for a service, by outcome: answered, partial, or the code of the error.",
    labels=("service", "outcome"),
)
REFUSED = Family(
    name="flyball_refused_total", kind="counter", text="Requests that did not get to a version.", labels=("code",)
)
DROPPED = Family(
    name="flyball_dropped_total",
    kind="counter",
    text="Rows that were not computed, by reason.",
    labels=(*VERSION, "reason"),
)
FEATURES = Family(
    name="flyball_features_total",
    kind="counter",
    text="Rows, by the state of their features.",
    labels=(*VERSION, "state"),
)
CACHE = Family(
    name="flyball_cache_lookups_total",
    kind="counter",
    text="Rows looked up in the cache: hit, miss, or coalesced with an equal row on its way.",
    labels=(*VERSION, "result"),
)
LATENCY = Family(
    name="flyball_prediction_seconds",
    kind="histogram",
    text="From arrival to the logged reply, a row.",
    labels=VERSION,
    bounds=SECONDS,
)
QUEUE = Family(
    name="flyball_queue_seconds",
    kind="histogram",
    text="From arrival to the start of its batch, a row.",
    labels=VERSION,
    bounds=SECONDS,
)
MODEL = Family(
    name="flyball_model_seconds", kind="histogram", text="Features and model, a batch.", labels=VERSION, bounds=SECONDS
)
BATCH = Family(name="flyball_batch_rows", kind="histogram", text="Rows scored together.", labels=VERSION, bounds=ROWS)
RATIO = Family(
    name="flyball_batch_ratio",
    kind="histogram",
    text="A batch's seconds over those that were predicted for it.",
    labels=VERSION,
    bounds=RATIOS,
)
MISSED = Family(
    name="flyball_batch_error_seconds_total",
    kind="counter",
    text="How far predictions of batches were off, in absolute value, summed.",
    labels=VERSION,
)
BATCH_SECONDS = Family(
    name="flyball_batch_rows_seconds_total",
    kind="counter",
    text="Seconds of the batches of each size, by the bound of their rows.",
    labels=(*VERSION, "rows"),
)
LAST = Family(
    name="flyball_last_prediction_timestamp_seconds",
    kind="latest",
    text="When a row was last answered, in seconds since 1970.",
    labels=VERSION,
)
BREAKER = Family(
    name="flyball_breaker_workers",
    kind="gauge",
    text="Workers, by the state of their circuit breaker of the version.",
    labels=(*VERSION, "state"),
)
LANE = Family(
    name="flyball_lane_workers",
    kind="gauge",
    text="Workers, by where they run the version: inline, or on a thread.",
    labels=(*VERSION, "mode"),
)
FAMILIES = {
    family.name: family
    for family in (
        PREDICTIONS,
        ERRORS,
        GOODPUT,
        REQUESTS,
        REFUSED,
        DROPPED,
        FEATURES,
        CACHE,
        LATENCY,
        QUEUE,
        MODEL,
        BATCH,
        BATCH_SECONDS,
        LAST,
        RATIO,
        MISSED,
        BREAKER,
        LANE,
    )
}


class Histogram:
    """Counts of one histogram: many values at once by numpy, few by a loop."""

    __slots__ = ("_array", "_bounds", "_cells", "_edges", "_sum")

    def __init__(self, block: Block, bounds: tuple[float, ...]) -> None:
        self._cells = block.cells
        self._array = block.array[:-1]
        self._bounds = bounds
        self._edges = np.asarray(bounds)
        self._sum = len(bounds) + 1

    def add(self, values: Values) -> None:
        cells = self._cells
        if len(values) >= FEW:
            array = np.asarray(values)
            self._array += np.bincount(np.searchsorted(self._edges, array), minlength=self._sum)
            cells[self._sum] += float(array.sum())
            return
        for value in values if isinstance(values, (list, tuple)) else np.asarray(values).tolist():
            cells[bisect_left(self._bounds, value)] += 1.0
            cells[self._sum] += value

    def add_one(self, value: float) -> None:
        self._cells[bisect_left(self._bounds, value)] += 1.0
        self._cells[self._sum] += value


class Counters:
    """All counts of one worker."""

    def __init__(self, file: CellFile) -> None:
        self._file = file
        self._versions: dict[tuple[str, str], VersionCounters] = {}
        self._before: set[tuple[str, str]] = set()
        self._loose: dict[tuple[str, ...], memoryview[float]] = {}
        self.shown: frozenset[tuple[str, str]] | None = None
        self.rest()

    def version(self, service: str, version: str) -> VersionCounters:
        """The counters of one version of a service: kept by whoever counts for it."""
        found = self._versions.get((service, version))
        if found is None:
            found = self._versions[service, version] = VersionCounters(self._file, service, version)
        return found

    def requested(self, service: str, outcome: str, requests: int = 1) -> None:
        """Requests for a service that were answered: `answered`, `partial` (rows failed), or an error's code."""
        self._add((REQUESTS.name, service, outcome), requests)

    def refused(self, code: str, requests: int = 1) -> None:
        """Requests that did not get to a version."""
        self._add((REFUSED.name, code), requests)

    def keep(self, served: Iterable[tuple[str, str]]) -> None:
        """Say which (service, version) a plan serves. Others are shown no longer, and the room of those that the plan
        before did not serve either is used again: so counts are of bounded size, and a rollback goes on with its own.
        """
        now = set(served)
        gone = {(key[1], key[2]) for key in self._file.keys if is_of_version(key)} - now
        for pair in gone - self._before:
            for key in [key for key in self._file.keys if is_of_version(key) and key[1:3] == pair]:
                self._file.free(key)
            self._versions.pop(pair, None)
        self._before = now
        self.shown = frozenset(now)

    def rest(self) -> None:
        """Set the gauges to 0: this worker has no lanes and breakers (yet, or any more)."""
        self._file.clear(lambda key: key[0] in FAMILIES and FAMILIES[key[0]].kind == "gauge")

    def _add(self, key: tuple[str, ...], count: int) -> None:
        cells = self._loose.get(key)
        if cells is None:
            cells = self._loose[key] = self._file.block(key, 1).cells
        cells[0] += count


class VersionCounters:
    """The counts of one version of a service: each call is a handful of stores, whatever the rows of the batch."""

    def __init__(self, file: CellFile, service: str, version: str) -> None:
        self._file = file
        self._of = (service, version)
        self._cells: dict[tuple[str, str], memoryview[float]] = {}
        self._latency = self._histogram(LATENCY)
        self._queue = self._histogram(QUEUE)
        self._model = self._histogram(MODEL)
        self._batch = self._histogram(BATCH)
        self._ratio = self._histogram(RATIO)
        self._missed = self._cell(MISSED.name)
        self._last = self._cell(LAST.name)
        self._goodput = self._cell(GOODPUT.name)

    def answered(self, rung: str, seconds: Values, *, within: int) -> None:
        """Rows that were answered: their rung, their latencies, and how many were within their deadline."""
        self._cell(PREDICTIONS.name, rung)[0] += len(seconds)
        self._goodput[0] += within
        self._latency.add(seconds)
        self._last[0] = time.time()

    def failed(self, code: str, seconds: Values) -> None:
        """Rows that were answered with an error."""
        self._cell(ERRORS.name, code)[0] += len(seconds)
        self._latency.add(seconds)

    def waited(self, seconds: Values) -> None:
        """How long the rows of a batch waited for its start."""
        self._queue.add(seconds)

    def scored(self, rows: int, seconds: float, predicted: float = 0.0) -> None:
        """A batch was computed in `seconds`; `predicted` 0: nothing was predicted for it."""
        self._batch.add_one(rows)
        self._model.add_one(seconds)
        self._cell(BATCH_SECONDS.name, _SIZES[bisect_left(ROWS, rows)])[0] += seconds
        if predicted > 0.0:
            self._ratio.add_one(seconds / predicted)
            self._missed[0] += abs(seconds - predicted)

    def dropped(self, reason: str, rows: int = 1) -> None:
        """Rows that will not be computed, such as `deadline_infeasible`, `queue_full`, `expired`, `client_left`."""
        self._cell(DROPPED.name, reason)[0] += rows

    def featured(self, state: str, rows: int) -> None:
        """Rows that were given features of a state: `fresh`, `stale` or `default`."""
        self._cell(FEATURES.name, state)[0] += rows

    def looked_up(self, *, hits: int = 0, misses: int = 0, coalesced: int = 0) -> None:
        for result, rows in zip(LOOKUPS, (hits, misses, coalesced), strict=True):
            if rows:
                self._cell(CACHE.name, result)[0] += rows

    def breaker(self, state: BreakerState) -> None:
        self._one_of(BREAKER.name, BREAKER_STATES, state)

    def lane(self, mode: LaneMode) -> None:
        self._one_of(LANE.name, LANE_MODES, mode)

    def _one_of(self, name: str, values: Iterable[str], chosen: str) -> None:
        for value in values:
            self._cell(name, value)[0] = float(value == chosen)

    def _cell(self, name: str, label: str = "") -> memoryview[float]:
        cells = self._cells.get((name, label))
        if cells is None:
            key = (name, *self._of, label) if label else (name, *self._of)
            cells = self._cells[name, label] = self._file.block(key, 1).cells
        return cells

    def _histogram(self, family: Family) -> Histogram:
        return Histogram(self._file.block((family.name, *self._of), family.cells), family.bounds)


def is_of_version(key: tuple[str, ...]) -> bool:
    family = FAMILIES.get(key[0])
    return family is not None and family.labels[:2] == VERSION
