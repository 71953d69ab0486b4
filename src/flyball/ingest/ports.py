"""What ingestion needs of the outside: a log, tables, and the online side that applies events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from flyball.define.spec import ColumnType, SourceSpec, ViewSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One push within a batch, under its idempotency key (empty: it has none).

    Args:
        fingerprint: digest of what was pushed: the same key with another one is a conflict.
        offset, count: which rows of the batch's frame are this push's.
        answer: the receipt without its log sequence numbers, JSON-able.
    """

    key: str
    fingerprint: str
    offset: int
    count: int
    answer: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewBatch:
    """What is appended as one row of the log. `frame`: physical, without `_lsn`; live: without `_known_at` too.

    `columns` says what the physical values mean: name → (type, scale). `bulk`: a large load, which the log may keep in
    a file of its own. `duplicates` is how many rows were dropped before it.
    """

    source: str
    frame: pl.DataFrame
    live: bool
    columns: Mapping[str, tuple[ColumnType, int]]
    entries: tuple[Entry, ...] = ()
    rejected: tuple[dict[str, Any], ...] = ()
    duplicates: int = 0
    bulk: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """Where a batch stands. `batch` numbers all batches of all sources; `known_at` is the domain time of the commit."""

    batch: int
    first_lsn: int
    count: int
    known_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LakeFile:
    """A durable Parquet file of rows in the types of the lake, LSNs among them; `stats`: Delta's statistics (JSON)."""

    path: Path
    stats: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LogBatch:
    """A batch as it is read back. `load` reads the rows; `file` has just these rows, where the log keeps them so."""

    batch: int
    source: str
    first_lsn: int
    last_lsn: int
    live: bool
    load: Callable[[Sequence[str] | None], pl.DataFrame]
    file: LakeFile | None = None

    @property
    def frame(self) -> pl.DataFrame:
        """Its rows, physical and complete; read anew each time."""
        return self.load(None)

    def columns(self, names: Sequence[str]) -> pl.DataFrame:
        """Some columns of its rows, those that it has, and the system's."""
        return self.load(names)


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedBatch:
    """The quarantined rows of one batch, as `Rejected.to_data()` gives them."""

    batch: int
    known_at: int
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAnswer:
    """What an idempotency key was answered with."""

    fingerprint: str
    first_lsn: int
    count: int
    known_at: int
    answer: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class LogTotals:
    """What the log ever took of one source; `oldest_lsn` is the first that it still holds (0: none), `columns` are
    all that it ever had."""

    last_lsn: int = 0
    last_batch: int = 0
    last_known_at: int = 0
    last_event_time: int = 0
    oldest_lsn: int = 0
    rejected: int = 0
    duplicates: int = 0
    pending_batches: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    columns: dict[str, tuple[ColumnType, int]] = field(default_factory=dict)


class EventLog(Protocol):
    """The order of all events. One writer; readers at any time. LSNs of a source start at 1 and have no holes."""

    def append(self, batches: Sequence[NewBatch], *, now: int) -> list[Appended]:
        """Store all batches in one transaction; durable when it returns, nothing stored when it raises.

        Not idempotent: ask `answer` first. Raises `ExhaustedError` (`disk_full`), `ConflictError` for a key in use.
        """

    def answer(self, source: str, key: str) -> StoredAnswer | None:
        """What an idempotency key was answered with, if it was."""

    def read(self, source: str, *, after: int, limit: int) -> list[LogBatch]:
        """The next batches with an LSN above `after`, in order: as many as have up to `limit` rows, at least one.

        Batches without good rows are left out; the first may begin at or below `after`.
        """

    def read_rejected(self, source: str, *, after: int, limit: int) -> list[RejectedBatch]:
        """The next `limit` batches with quarantined rows whose batch number is above `after`, in order."""

    def last_lsn(self, source: str) -> int:
        """The last LSN given out to the source; 0: none."""

    def totals(self) -> dict[str, LogTotals]:
        """By source, what was ever taken."""

    def trim(self, source: str, *, through_lsn: int, through_batch: int) -> int:
        """Forget batches whose rows all have an LSN up to `through_lsn` and whose rejected rows, if any, are in a
        batch up to `through_batch`. Idempotent; returns how many went. Answers to idempotency keys stay."""


class LakeTables(Protocol):
    """Tables that anyone can read. Each application (`app_id`) numbers its appends with rising versions."""

    def append(self, table: str, frame: pl.DataFrame, *, app_id: str, version: int) -> bool:
        """Add rows, and the table if there is none. Idempotent: false where `version` was committed before."""

    def append_file(self, table: str, file: LakeFile, *, app_id: str, version: int) -> bool:
        """`append` of the rows of a file, without reading them where the table takes them as they are. The file may be
        removed afterwards."""

    def version(self, table: str, app_id: str) -> int:
        """The last version that the application committed; 0: none."""

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        *,
        after_lsn: int | None = None,
        through_lsn: int | None = None,
    ) -> pl.DataFrame:
        """Rows in physical form (decimals in units, times in µs), in LSN order where there is a `_lsn`.

        Raises `NotFoundError` where there is no such table.
        """

    def types(self, table: str) -> dict[str, pl.DataType]:
        """Column → dtype as people read it; empty where there is no such table."""

    def table_version(self, table: str) -> int:
        """The version of the table itself, which pins what a reader sees; -1: there is no table."""

    def count(self, table: str) -> int:
        """How many rows the table holds; 0 where there is none."""


class Applier(Protocol):
    """The online side: features over events. Called by one thread at a time."""

    def load_plan(self, sources: Sequence[SourceSpec], views: Sequence[ViewSpec]) -> None:
        """Take these sources and views; a view that is new is built before the next event is applied."""

    def apply(self, source: str, frame: pl.DataFrame) -> int:
        """Apply a physical frame in LSN order and remember its keys, in one transaction; rows applied.

        It has all columns, or `columns` where all of it is known by now. Idempotent: rows up to `applied_lsn` are
        skipped.
        """

    def columns(self, source: str) -> Sequence[str]:
        """The source's columns that `apply` reads, beside the system's, where all events are known by now."""

    def release(self, now: int) -> int:
        """Make history visible that is known by `now`; how many events."""

    def seen_first(self, source: str, keys: pl.Series, lsns: pl.Series) -> pl.Series:
        """Boolean: is the event with this LSN the first with its key. Asked only up to `applied_lsn`."""

    def applied_lsn(self, source: str) -> int:
        """The last LSN applied; 0: none."""
