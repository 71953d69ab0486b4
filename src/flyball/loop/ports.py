"""What the loops need from elsewhere. Everything in a `Unit` is one transaction of the metadata database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from flyball.define.spec import ModelSpec, ProjectSpec, SourceSpec
from flyball.features.ports import AuditStore
from flyball.governance.ports import ErasureStore, FactStore
from flyball.monitoring.ports import MonitoringStore
from flyball.registry.ports import VersionStore
from flyball.rollout.ports import RolloutStore
from flyball.training.ports import RunStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A range of bytes of one segment of the prediction log."""

    slot: str
    segment: str
    start: int
    end: int

    def to_data(self) -> dict[str, Any]:
        return {"slot": self.slot, "segment": self.segment, "start": self.start, "end": self.end}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Batch `n` of predictions: what is committed to the lake as version `n`, once."""

    n: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """Why a run was asked for. `service`: where its version is released, "" for nowhere by itself; `not_yet`: what
    it waits for, while it is queued."""

    run: str
    cause: str  # "apply", "manual", "retrain" or "batch"
    service: str = ""
    batch: str = ""
    not_yet: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainState:
    """The last run that a trigger started, when, and the last decision in words (recorded when it changes)."""

    service: str
    run: str = ""
    started_at: int | None = None
    decision: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Awaiting:
    """A version that passed its gate and waits for `approve`."""

    service: str
    version: str
    since: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """When a batch last ran (domain time of its slot), the LSN up to which its rows are scored, and its open run."""

    batch: str
    last_at: int | None = None
    after: int = 0
    run: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanEpoch:
    """The last published plan of a kind (`ingest` or `serving`)."""

    kind: str
    epoch: int = 0
    digest: str = ""


class ProjectStore(Protocol):
    """Applied projects. `put` replaces the whole project."""

    def get(self, name: str) -> ProjectSpec | None: ...

    def all(self) -> list[ProjectSpec]: ...

    def put(self, project: ProjectSpec, *, at: int, actor: str) -> None: ...

    def declarations(self) -> list[SourceSpec]:
        """All that sources were ever declared as, the latest last; those that are gone are among them."""


class LoopStore(Protocol):
    """What the loops remember. `put`s replace."""

    def pending(self) -> Manifest | None:
        """The manifest that was opened and not closed; a crash leaves at most one."""

    def open_manifest(self, pieces: tuple[Piece, ...], at: int) -> Manifest: ...

    def close_manifest(self, manifest: Manifest, rows: int) -> None: ...

    def collected(self) -> dict[tuple[str, str], int]:
        """(slot, segment) → the offset up to which it was collected."""

    def forget_segment(self, slot: str, segment: str) -> None: ...

    def collected_rows(self) -> int: ...

    def intent(self, run: str) -> Intent | None: ...

    def put_intent(self, intent: Intent) -> None: ...

    def retrain(self, service: str) -> RetrainState: ...

    def put_retrain(self, state: RetrainState) -> None: ...

    def awaiting(self, service: str) -> Awaiting | None: ...

    def put_awaiting(self, awaiting: Awaiting) -> None: ...

    def clear_awaiting(self, service: str) -> None: ...

    def schedule(self, batch: str) -> Schedule: ...

    def put_schedule(self, schedule: Schedule) -> None: ...

    def plan(self, kind: str) -> PlanEpoch: ...

    def put_plan(self, plan: PlanEpoch) -> None: ...


class Unit(Protocol):
    """The stores of one transaction: what is written through them is committed together, or not at all."""

    @property
    def facts(self) -> FactStore: ...
    @property
    def erasures(self) -> ErasureStore: ...
    @property
    def projects(self) -> ProjectStore: ...
    @property
    def rollouts(self) -> RolloutStore: ...
    @property
    def monitoring(self) -> MonitoringStore: ...
    @property
    def audit(self) -> AuditStore: ...
    @property
    def loop(self) -> LoopStore: ...
    @property
    def runs(self) -> RunStore: ...
    @property
    def versions(self) -> VersionStore: ...


class Metadata(Protocol):
    """The metadata database."""

    def write(self) -> AbstractContextManager[Unit]:
        """A transaction that excludes other writers; an exception rolls it back. Not to be nested."""

    def read(self) -> AbstractContextManager[Unit]:
        """A consistent view; writing through it is a mistake."""

    def scrub(self) -> bool:
        """Leave no byte of what was deleted or replaced before; False: a reader keeps it from that, try again."""


class Slice(Protocol):
    """Whole records of a segment and the offset after the last of them. `torn`: bytes follow that are no record yet
    (its writer is in the middle of it, or died there)."""

    @property
    def records(self) -> Sequence[dict[str, Any]]: ...
    @property
    def end(self) -> int: ...
    @property
    def torn(self) -> bool: ...


class PredictionLog(Protocol):
    """The workers' logs, as the collector reads them. A slot is one worker's folder; segments are in order."""

    def slots(self) -> list[str]: ...

    def segments(self, slot: str) -> list[str]:
        """In the order in which they were written. The last one may still be written to."""

    def read(self, slot: str, segment: str, offset: int, *, end: int | None = None) -> Slice:
        """Whole records from `offset` (0: the start) on, up to `end`, or to the end of what is whole."""

    def remove(self, slot: str, segment: str) -> None:
        """Idempotent."""

    def live(self, slot: str) -> bool:
        """Whether a worker writes to the slot."""

    def turn(self, slot: str) -> None:
        """Begin a new segment of a slot that no worker writes to, so that those before it are finished."""


class Lake(Protocol):
    """The tables that control writes (`predictions`) and reads."""

    def append(self, table: str, frame: pl.DataFrame, *, app_id: str, version: int) -> Any:
        """Idempotent: a (`app_id`, `version`) that was committed before changes nothing."""

    def types(self, table: str) -> Mapping[str, Any]:
        """Column → type as people read it; empty where there is no such table."""


class SourceHorizon(Protocol):
    """How far a source's table in the lake reaches: up to which event, as which version, with how many rows."""

    @property
    def lsn(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def rows(self) -> int: ...


class IngestClient(Protocol):
    """The ingest process, over HTTP or in the same one."""

    def flush(self, sources: Sequence[str]) -> Mapping[str, SourceHorizon]:
        """Bring what was acknowledged into the lake. `UnavailableError` while the process does not answer."""

    def count_erased(self, source: str, column: str, digests: Sequence[str]) -> Mapping[str, Any]:
        """What `erase` would take: `{"rows", "quarantined", "lsns"}`."""

    def erase(self, source: str, column: str, digests: Sequence[str], *, entity: bytes | None) -> None:
        """Erase what ingest holds of a value, by its keyed digests; done when it returns. Idempotent."""

    def sizes(self) -> Mapping[str, int]:
        """How many events each source ever had. `UnavailableError` while the process does not answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Acknowledgement:
    """What a live process says about the newest plan that it saw."""

    process: str
    epoch: int
    digest: str
    error: str = ""


class Plans(Protocol):
    """The published plans and what processes say about them."""

    def publish(self, kind: str, plan: dict[str, Any]) -> None:
        """Atomic: a reader sees the old plan or the new one."""

    def current(self, kind: str) -> dict[str, Any] | None: ...

    def acknowledgements(self) -> list[Acknowledgement]:
        """Of the processes that are alive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewVersion:
    """A version directory that was sealed: `digest` names it below `artifacts/versions`."""

    digest: str
    metrics: dict[str, Any]
    evaluation: dict[str, Any]


class Packages(Protocol):
    """Version directories."""

    def manifest(self, digest: str) -> dict[str, Any]:
        """The manifest of a sealed version."""

    def path(self, digest: str) -> Path: ...

    def adopt(self, folder: Path) -> NewVersion:
        """Verify the version that a run left in `folder` and put a copy in place. Idempotent."""

    def pretrained(self, model: ModelSpec, project: ProjectSpec) -> NewVersion:
        """Make a version of a pretrained file, or of a model without one (features only). Idempotent."""
