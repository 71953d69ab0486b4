"""What ingestion needs of the outside: a log, tables, and the online side that applies events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Protocol

import polars as pl

from flyball.define.spec import ColumnType, ExprData, OriginSpec, SourceSpec, ViewSpec


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
    a file of its own. `duplicates` is how many rows were dropped before it. `warnings`: rule → rows that were accepted
    all the same. `rows_of_last`: the size of its last push, where a rule asks for it. `changes`: what this batch makes
    of quarantined rows; the `lsn` of a change counts within the batch, from 1. `rejected_after`: of each rejected row,
    how many rows of the frame came before it, where the source takes corrections. `position`: where whoever read these
    rows elsewhere stands once they are stored; kept in the same transaction.
    """

    source: str
    frame: pl.DataFrame
    live: bool
    columns: Mapping[str, tuple[ColumnType, int]]
    entries: tuple[Entry, ...] = ()
    rejected: tuple[dict[str, Any], ...] = ()
    rejected_after: tuple[int, ...] = ()
    duplicates: int = 0
    bulk: bool = False
    warnings: Mapping[str, int] = field(default_factory=dict)
    rows_of_last: int | None = None
    changes: tuple[QuarantineChange, ...] = ()
    position: str | None = None


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
    live: bool
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedBatch:
    """A push of which nothing was stored, since `broken` of its rows break a rule that refuses it whole.

    `examples` are such rows as a receipt shows them; `at` is the domain time of the refusal.
    """

    source: str
    rule: str
    column: str = ""
    received: int
    broken: int
    message: str
    examples: tuple[dict[str, Any], ...] = ()
    at: int = 0


QuarantineState = Literal["open", "retried", "superseded", "dropped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantineChange:
    """What became of a quarantined row: it was `retried` (and accepted), `superseded` by a version of its key that came
    after it, `dropped`, or tried in vain and is still `open` for a reason of now.

    Args:
        batch, place: which row: the batch it came in, and its place among that batch's quarantined rows, from 1.
        lsn: of the event that it became; 0: it became none, since it was dropped or superseded, or its key was there.
        number: counts the changes of all sources; set when it is read.
    """

    batch: int
    place: int
    state: QuarantineState
    rule: str = ""
    column: str = ""
    value: str | None = None
    message: str = ""
    lsn: int = 0
    at: int = 0
    number: int = 0


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
    all that it ever had. `resolved`: quarantined rows that were retried or dropped. By rule, `warnings`: rows accepted
    all the same, and `refused`: pushes of which nothing was stored. `last_rows`: the size of the last push."""

    last_lsn: int = 0
    last_batch: int = 0
    last_known_at: int = 0
    last_event_time: int = 0
    oldest_lsn: int = 0
    rejected: int = 0
    duplicates: int = 0
    pending_batches: int = 0
    resolved: int = 0
    last_rows: int | None = None
    rules: dict[str, int] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    columns: dict[str, tuple[ColumnType, int]] = field(default_factory=dict)


class Conditions(Protocol):
    """Computes a condition over events with the one meaning that expressions have."""

    def __call__(self, expr: ExprData, source: SourceSpec, events: pl.DataFrame) -> pl.Series:
        """`Boolean`, null where the value is null. `events`: the declared columns, physical, and `_event_time`."""


class EventLog(Protocol):
    """The order of all events. One writer; readers at any time. LSNs of a source start at 1 and have no holes but
    those of rows that were erased."""

    def append(self, batches: Sequence[NewBatch], *, now: int, refused: Sequence[RefusedBatch] = ()) -> list[Appended]:
        """Store all batches in one transaction; durable when it returns, nothing stored when it raises.

        `refused` are pushes of which only the refusal is noted. Raises `ConflictError` (`quarantine_changed`) where a
        change is of a row that is not open any more.

        Not idempotent: ask `answer` first. Raises `ExhaustedError` (`disk_full`), `ConflictError` for a key in use.
        """

    def position(self, source: str) -> str:
        """The last position that came with a batch of the source; empty: none ever did."""

    def answer(self, source: str, key: str) -> StoredAnswer | None:
        """What an idempotency key was answered with, if it was."""

    def read(self, source: str, *, after: int, limit: int) -> list[LogBatch]:
        """The next batches with an LSN above `after`, in order: as many as have up to `limit` rows, at least one.

        Batches without good rows are left out; the first may begin at or below `after`.
        """

    def read_rejected(self, source: str, *, after: int, limit: int) -> list[RejectedBatch]:
        """The next `limit` batches with quarantined rows whose batch number is above `after`, in order."""

    def refusals(self, source: str, *, limit: int) -> list[RefusedBatch]:
        """The newest refusals, newest first; a log may keep only some hundreds of each source."""

    def resolve(self, source: str, changes: Sequence[QuarantineChange], *, now: int) -> None:
        """Note what became of quarantined rows, in one transaction. Raises `ConflictError` (`quarantine_changed`)."""

    def arrivals(self, source: str, batches: Collection[int]) -> dict[int, Sequence[int]]:
        """Of quarantined rows of a source with corrections, by batch and in their order, the last LSN that the source
        had given out before the row came. A batch is left out that came before this was noted."""

    def quarantine_states(self, source: str) -> list[QuarantineChange]:
        """The newest change of each quarantined row that was ever touched."""

    def quarantine_changes(self, source: str, *, after: int, limit: int) -> list[QuarantineChange]:
        """The newest change of each row, of those with a number above `after`, in the order of their numbers."""

    def last_lsn(self, source: str) -> int:
        """The last LSN given out to the source; 0: none."""

    def live_after(self, source: str, lsn: int) -> int:
        """How many rows that were pushed, not loaded, the log holds in batches that begin above an LSN."""

    def totals(self) -> dict[str, LogTotals]:
        """By source, what was ever taken."""

    def trim(self, source: str, *, through_lsn: int, through_batch: int) -> int:
        """Forget batches whose rows all have an LSN up to `through_lsn` and whose rejected rows, if any, are in a
        batch up to `through_batch`. Idempotent; returns how many went. Answers to idempotency keys stay."""


class LakeTables(Protocol):
    """Tables that anyone can read. Each application (`app_id`) numbers its appends with rising versions."""

    def append(self, table: str, frame: pl.DataFrame, *, app_id: str, version: int) -> bool:
        """Add rows, and the table if there is none. Idempotent: false where `version` was committed before."""

    def append_files(self, table: str, files: Sequence[LakeFile], *, app_id: str, version: int) -> bool:
        """`append` of the rows of files, without reading them where the table takes them as they are. The files may be
        removed afterwards."""

    def sync(self, table: str) -> None:
        """Make durable what was committed to the table, by whomever. An append does so by itself, but its writer may
        fail or die between the two. Idempotent; nothing to do where there is no such table."""

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

    def oldest(self, table: str, column: str) -> int | None:
        """A bound of the least time in a column, µs; None: the table has no such rows, or there is none."""

    def delete_before(self, table: str, column: str, before: int) -> int:
        """Delete rows whose time in `column` is before `before` µs, a bounded piece of the oldest at a time.

        Idempotent; how many rows went. Versions of the table from before stay readable for a while.
        """

    def vacuum(self, table: str) -> int:
        """Remove the files of versions that are readable no more; how many. An append does so too now and then.

        Raises `NotFoundError` where there is no such table.
        """


class Applier(Protocol):
    """The online side: features over events. Called by one thread at a time."""

    def load_plan(
        self,
        sources: Sequence[SourceSpec],
        views: Sequence[ViewSpec],
        earlier: Sequence[tuple[ViewSpec, SourceSpec]] = (),
    ) -> None:
        """Take these sources and views; what is new is built now, or beside the others where its source is long.
        `earlier` are views that are still served, with their source as it was declared when they were trained."""

    def apply(self, source: str, frame: pl.DataFrame) -> int:
        """Apply a physical frame in LSN order and remember its keys, in one transaction; rows applied.

        It has all columns, or `columns` where all of it is known by now. Idempotent: rows up to `applied_lsn` are
        skipped.
        """

    def columns(self, source: str) -> Sequence[str]:
        """The source's columns that `apply` reads, beside the system's, where all events are known by now."""

    def release(self, now: int) -> int:
        """Make history visible that is known by `now`; how many events. Called when all that was logged is applied,
        and again and again: it is where the applier does what may wait, such as building a view."""

    def seen_first(self, source: str, lsns: pl.Series) -> pl.Series:
        """Boolean: is the event with this LSN the first with its key. Asked only up to `applied_lsn`."""

    def applied_lsn(self, source: str) -> int:
        """The last LSN applied; 0: none."""


CursorValue = int | float | Decimal | str | datetime | date


@dataclass(frozen=True, slots=True)
class PulledRow:
    """A row of an origin's query. `cursor`: as the database compares it; None: it is null. `values`: by column, times
    without a zone in UTC."""

    cursor: CursorValue | None
    values: dict[str, Any]


class Database(Protocol):
    """Rows of origins. Each call opens a connection of its own, and reads only."""

    def rows(
        self, origin: OriginSpec, columns: Sequence[str], *, since: CursorValue | None, size: int
    ) -> Generator[list[PulledRow], None, None]:
        """Pages of up to `size` rows whose cursor is `since`, above it, or null (`since` None: all rows), by cursor.

        `columns` are those that are wanted; what the query does not have is left out of the rows. The generator holds a
        connection until it ends or is closed.

        Raises, without the secret in any message, `UnavailableError` (`database_unavailable`), `InvalidError`
        (`secret_missing`, `bad_dsn`, `bad_query`, `unreadable_type`).
        """


class Derivation(Protocol):
    """What computes one derived source. Called by one thread at a time."""

    @property
    def inputs(self) -> Mapping[str, Sequence[str]]:
        """The sources of the views that it reads, and the columns of theirs."""

    def feed(self, source: str, frame: pl.DataFrame) -> None:
        """Take the next events of an input (physical, each key once; with corrections, all versions), in LSN order."""

    def derive(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The derived events of these events of the parent; physical, without `_lsn`, with the parent's times and keys.

        A function of the events and of what was fed of events that were known by then: not of the cut into frames.
        """


class Deriver(Protocol):
    """Opens derivations."""

    def open(self, spec: SourceSpec, sources: Mapping[str, SourceSpec]) -> Derivation:
        """Ready to be fed from the inputs' first events on. Raises `InvalidError` (`bad_derivation`, `bad_view`)."""
