"""What serving needs from elsewhere: something that runs a model, features for rows, and somewhere to count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from flyball.kernel.errors import FlyballError

if TYPE_CHECKING:
    from flyball.serving.manifest import Manifest
    from flyball.serving.request import Job
    from flyball.serving.scoring import Result

Matrix = npt.NDArray[np.float64]
Score = npt.NDArray[np.float64]
Tensors = dict[str, npt.NDArray[Any]]
FeatureState = Literal["fresh", "stale", "default"]


class Runtime(Protocol):
    """Runs one model. Pure: the same input gives the same output; safe to call again."""

    def predict(self, matrix: Matrix) -> Score:
        """Score `(n, features)`: `(n,)` for binary (probability of true) and regression, `(n, classes)` else."""
        ...

    def infer(self, tensors: Tensors) -> Tensors:
        """Named tensors in, named tensors out; `tensors_unsupported` where the model only takes a matrix."""
        ...

    def close(self) -> None: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class Loop(Protocol):
    """The event loop, as asyncio spells it."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object: ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer: ...

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> object: ...


class OpenRuntime(Protocol):
    """Opens the runtime that a manifest names, from the version's folder."""

    def __call__(self, kind: str, folder: Path, manifest: Manifest) -> Runtime: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureBatch:
    """Features of `n` rows.

    Args:
        matrix: `(n, features)`, NaN for null, codes for categories.
        lsn, known_through: per source, how much of it was seen.
        state: `fresh`, or `default` where online state could not be read and declared defaults stand in.
        stale: rows whose features are not exact for their time.
        complete_through: domain time up to which online state had all that ingestion took; None: it does not say.
        errors: what failed, by row; such a row's features are undefined.
    """

    matrix: Matrix
    lsn: Mapping[str, int] = field(default_factory=dict)
    known_through: Mapping[str, int] = field(default_factory=dict)
    state: FeatureState = "fresh"
    stale: frozenset[int] = frozenset()
    complete_through: int | None = None
    errors: Mapping[int, FlyballError] = field(default_factory=dict)

    def behind(self, at: int) -> int:
        """How far online state was behind a row's time, in microseconds."""
        return 0 if self.complete_through is None else max(0, at - self.complete_through)

    def state_of(self, row: int, at: int, *, max_staleness: int) -> FeatureState:
        """The label of a row: `stale` where its values are not exact, or state is too far behind."""
        if self.state == "default":
            return "default"
        return "stale" if row in self.stale or self.behind(at) > max_staleness else "fresh"


class FeatureReader(Protocol):
    """Features of a version's rows, read from online state. Idempotent."""

    def vectors(self, manifest: Manifest, rows: Sequence[Mapping[str, Any]], at: Sequence[int]) -> FeatureBatch:
        """`rows` are request fields, every column of `manifest.inputs` with its value as it was sent; `at` is each
        row's domain time. A value that is not of its column's type is an `InvalidError` of its row."""
        ...

    def defaults(self, manifest: Manifest, rows: Sequence[Mapping[str, Any]], at: Sequence[int]) -> FeatureBatch:
        """The same without a look at online state: request fields as they are, views at their declared defaults."""
        ...

    def check(self, manifest: Manifest) -> None:
        """Raise `UnavailableError` (`view_not_built`) while a view of the version is still being built beside those
        that are there. Where there is no online state at all, nothing is raised: defaults stand in."""
        ...


class RecordLog(Protocol):
    """Where predictions are written before they are answered."""

    def write(self, records: Sequence[dict[str, Any]], *, durable: bool = False) -> None:
        """Not idempotent. All of the records, or none and an error."""
        ...

    def begin_segment(self) -> None:
        """Write what follows to another file than what came before, so that what came before can be erased."""
        ...

    def position(self) -> dict[str, Any]: ...


class Observer(Protocol):
    """Counts what a worker does. Called on the event loop alone; never raises. Times are seconds."""

    def batch(self, jobs: Sequence[Job], result: Result, began: float, took: float, expected: float) -> None:
        """A batch was scored in `took` seconds; `expected` was learned from those before, 0.0 where nothing was."""
        ...

    def concluded(self, jobs: Sequence[Job], result: Result, now: float) -> None:
        """Jobs of one version got their result."""
        ...

    def answered(self, service: str, outcome: str, requests: int) -> None:
        """Requests are answered: `answered`, `partial`, or the code of their error."""
        ...

    def refused(self, code: str) -> None:
        """A request did not get to a version."""
        ...

    def failed(self, service: str, version: str, code: str, rows: int) -> None:
        """Rows were refused by their version at arrival."""
        ...

    def dropped(self, service: str, version: str, reason: str, rows: int) -> None:
        """Rows are not computed, or not for anybody."""
        ...


class NoObserver:
    """Counts nothing."""

    def batch(self, jobs: Sequence[Job], result: Result, began: float, took: float, expected: float) -> None: ...

    def concluded(self, jobs: Sequence[Job], result: Result, now: float) -> None: ...

    def answered(self, service: str, outcome: str, requests: int) -> None: ...

    def refused(self, code: str) -> None: ...

    def failed(self, service: str, version: str, code: str, rows: int) -> None: ...

    def dropped(self, service: str, version: str, reason: str, rows: int) -> None: ...
