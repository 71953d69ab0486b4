"""What training needs from elsewhere: a ledger of runs, an engine that executes them, and something that packs a model.

A run is described by a `RunSpec`, recorded in a `RunStore`, and executed by an `Engine` from a run directory. The three
are joined by files and a stored identity alone, so a run outlives the process that started it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.define.spec import BatchSpec, ModelSpec, ProjectSpec, Spec

Matrix = npt.NDArray[np.float64]
Score = npt.NDArray[np.float64]

SPEC_FORMAT = "flyball.run"
RESULT_FORMAT = "flyball.result"
ERROR_FORMAT = "flyball.error"
PROGRESS_FORMAT = "flyball.progress"
SPOOL = "spool"  # of a run directory: events of a training set that do not fit in memory; gone when the run is over


class Horizon(Spec, frozen=True, kw_only=True):
    """How much of a source a run reads: events up to `lsn`; the lake's `version` and its `rows` say what that was."""

    lsn: int
    version: int
    rows: int


class RunSpec(Spec, frozen=True, kw_only=True):
    """Everything a run depends on; equal specs (but for `run`) give equal results. Lives in `runs/RUN/spec.json`.

    Args:
        run: the run's id; also the name of its directory.
        kind: `train` makes a version of `model`; `batch` scores rows with `version` for `batch`.
        bundle: digest of the training code, an artifact; empty where a function is handed in (`--inline`).
        horizon: what is read of each source; a source without one is read as far as the lake has it.
        at: domain time of the run; labels that are not mature at `at` are unknown.
        params: for the user's function; `{"baseline": "without_windows"}` also trains and evaluates without views.
        champion: version digest that is evaluated on the same held-out rows; empty: none.
        version, after: of a batch: the digest of the version that scores; rows with an LSN above `after` are scored.
        versions: of a run on features as they were served: the digests of the model's versions by `model/number`.
        lake, artifacts: folders, relative to the state directory (two above the run directory).
    """

    run: str
    kind: Literal["train", "batch"] = "train"
    model: ModelSpec
    project: ProjectSpec
    bundle: str = ""
    horizon: dict[str, Horizon] = {}
    at: int
    seed: int = 0
    params: dict[str, Any] = {}
    champion: str = ""
    batch: BatchSpec | None = None
    version: str = ""
    after: int = 0
    versions: dict[str, str] = {}
    lake: str = "lake"
    artifacts: str = "artifacts"


def run_spec_from_data(data: dict[str, Any]) -> RunSpec:
    """Rebuild a run from `to_data()`; raises `msgspec.ValidationError` where it is not one."""
    return msgspec.convert(data, RunSpec)


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def final(self) -> bool:
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED)


TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.FAILED, RunState.STOPPED}),
    # running → running records a handle; running → queued asks for another attempt after a lost process.
    RunState.RUNNING: frozenset(RunState),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.STOPPED: frozenset(),
}


class Handle(Spec, frozen=True, kw_only=True):
    """The identity of a process: a pid means it only together with the boot and the start time (clock ticks)."""

    boot: str
    pid: int
    started: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A row of the ledger. Times are domain microseconds; `attempt` counts launches and fences stale ones."""

    id: str
    spec: RunSpec
    state: RunState
    attempt: int
    actor: str
    reason: str
    created: int
    started: int | None = None
    finished: int | None = None
    handle: Handle | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        return self.spec.kind

    @property
    def model(self) -> str:
        return self.spec.model.name


class RunStore(Protocol):
    """The ledger of runs. What a method returned has been committed."""

    def create(self, spec: RunSpec, *, actor: str, reason: str, at: int) -> RunRecord:
        """Record a queued run. Idempotent for an equal spec; `run_exists` (conflict) for another of the same id."""
        ...

    def get(self, run: str) -> RunRecord:
        """`run_not_found` where there is none."""
        ...

    def list(
        self, *, model: str = "", kind: str = "", states: tuple[RunState, ...] = (), limit: int = 100
    ) -> list[RunRecord]:
        """Newest first."""
        ...

    def update(
        self,
        run: str,
        *,
        expected: RunState,
        state: RunState,
        at: int,
        attempt: int | None = None,
        handle: Handle | None = None,
        result: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
    ) -> RunRecord:
        """Compare and set: `run_state_changed` (conflict) where the state, or the attempt if given, is another.

        Entering `running` from `queued` raises the attempt by one and forgets the handle. What is None stays as it is.
        """
        ...


class PollState(StrEnum):
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, kw_only=True, slots=True)
class Poll:
    """Whether a process runs. `code` is its exit status (negative: the signal); None while it runs, or where an
    earlier parent started it and took the status with it: then `result.json` or `error.json` says how it ended."""

    state: PollState
    code: int | None = None

    @property
    def running(self) -> bool:
        return self.state is PollState.RUNNING


class Engine(Protocol):
    """Executes run directories in processes that outlive this one."""

    def launch(self, run_dir: Path) -> Handle:
        """Start a run. Idempotent while it runs: the process that already executes `run_dir` is returned."""
        ...

    def find(self, run_dir: Path) -> Handle | None:
        """The process last launched for `run_dir`, alive or not; None if there was none."""
        ...

    def poll(self, handle: Handle) -> Poll:
        """Never blocks."""
        ...

    def stop(self, handle: Handle, *, grace: float = 10.0) -> Poll:
        """Ask the process and its children to end; kill them after `grace` seconds. Idempotent."""
        ...


class PackedModel(Protocol):
    """A model that a version can be made of: it scores a matrix as its runtime will."""

    @property
    def kind(self) -> str: ...

    def predict(self, matrix: Matrix) -> Score:
        """`(n,)` for binary (probability of true) and regression, `(n, classes)` for multi-class."""
        ...


Packer = Callable[[Any], PackedModel]


class TrainingRows(Protocol):
    """The rows of a training set: what `features.training_set.build` gives, as training sees it.

    `X` is `(n, features)`, NaN for null and codes for categories; `y` is `(n,)`; `t` is `(n,)` in microseconds.
    """

    @property
    def frame(self) -> pl.DataFrame: ...
    @property
    def X(self) -> Matrix: ...
    @property
    def y(self) -> npt.NDArray[Any]: ...
    @property
    def t(self) -> npt.NDArray[np.int64]: ...
    @property
    def features(self) -> Sequence[str]: ...
    @property
    def digest(self) -> str: ...
    @property
    def pins(self) -> Mapping[str, Any]:
        """Per source what was read of it, as `features.histories.Pin`."""
        ...

    @property
    def inexact(self) -> int:
        """How many rows have a value that could not be computed exactly."""
        ...

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many rows had no certain label, by reason."""
        ...
