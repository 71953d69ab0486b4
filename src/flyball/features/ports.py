"""What features need of the outside: a store for online state, and events to read back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from flyball.define.spec import SourceSpec

if TYPE_CHECKING:
    import polars as pl


class ReadTransaction(Protocol):
    """One consistent look at the store. Keys of a space are ordered as bytes."""

    def get(self, space: str, key: bytes) -> bytes | None: ...

    def get_many(self, space: str, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def get_into(self, space: str, key: bytes, buffer: memoryview) -> int:
        """Copy a value to the beginning of `buffer`; its length, -1: there is none. A longer value is not copied."""
        ...

    def look(self, space: str, keys: Sequence[bytes]) -> Sequence[memoryview | None]:
        """`get_many` without copying: to be left before the next write and the transaction's end."""
        ...

    def items(self, space: str, after: bytes = b"", *, size: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Ascending by key, those behind `after`, which no key need be; of each value the first `size` bytes.

        What is deleted or put while iterating a write transaction may or may not be seen."""
        ...


class WriteTransaction(ReadTransaction, Protocol):
    def put(self, space: str, key: bytes, value: bytes | memoryview) -> None:
        """Add or replace."""
        ...

    def put_many(self, space: str, items: Iterable[tuple[bytes, bytes | memoryview]]) -> None:
        """Add or replace; fastest where keys ascend."""
        ...

    def delete(self, space: str, key: bytes) -> None:
        """Idempotent."""
        ...

    def clear(self, space: str) -> None:
        """Delete all of a space. Idempotent."""
        ...


class OnlineStore(Protocol):
    """Named spaces of keys (up to 100 bytes) and values. One writer; any number of readers, also in other processes.

    It may lose everything when the machine goes down, never when a process does: durability belongs to the event log.
    """

    def read(self) -> AbstractContextManager[ReadTransaction]:
        """A reader's view, which no later write changes; to be left soon."""
        ...

    def write(self) -> AbstractContextManager[WriteTransaction]:
        """All of it is seen by readers when the block ends, or nothing where it raises."""
        ...

    def needs_rebuild(self) -> bool:
        """Whether what is stored cannot be trusted: it is new, or another boot wrote it."""
        ...

    def reset(self) -> None:
        """Forget everything and begin anew; `needs_rebuild` is false from then on."""
        ...

    def close(self) -> None: ...


class EventReader(Protocol):
    """Events of a source as a physical frame, wherever they lie."""

    def events(self, source: str, columns: Sequence[str] | None, *, through_lsn: int | None) -> pl.DataFrame:
        """The good events up to an LSN (None: all), with the system columns, in LSN order.

        `columns` None means all. A key may come twice: the event with the lower LSN counts. Empty, with the right
        columns, where there are none.
        """
        ...


@runtime_checkable
class BatchReader(EventReader, Protocol):
    """A reader that need not hold all events of a source at once; where one cannot, `events` is asked."""

    def batches(self, source: str, columns: Sequence[str] | None, *, through_lsn: int | None) -> Iterator[pl.DataFrame]:
        """What `events` gives, in pieces, in LSN order; at least one, which may be empty."""
        ...


class ServedReader(Protocol):
    """What was answered, from the prediction log."""

    def served(self, model: str) -> pl.DataFrame:
        """The answers of a model's versions, the earliest first: `version` (`model/number`), `at` (Int64,
        microseconds), and as JSON texts `key` (the service's key fields, null for none), `inputs` and `features` (by
        name; null for null, codes for categories)."""
        ...

    def manifest(self, version: str) -> Mapping[str, Any] | None:
        """What a version (`model/number`) computed its features from; None where it is not there any more."""
        ...


class EventSlices(Protocol):
    """Events as they are kept, duplicates and versions of corrected events included."""

    def slice(
        self,
        source: SourceSpec,
        columns: Sequence[str],
        *,
        since: int | None,
        before: int | None,
        where: Mapping[str, Sequence[Any]],
    ) -> pl.DataFrame:
        """A physical frame with `since <= event_time < before` where each column of `where` has one of its values
        (physical; `_key` too): the columns asked for, the system's four, and `_deleted` (Boolean) where the source
        takes corrections. In LSN order; empty, with the right columns, where there are none."""
        ...

    def kept_from(self, source: SourceSpec) -> int | None:
        """The event time before which rows have been taken away; None: none have."""
        ...


class AuditStore(Protocol):
    """What the skew audit remembers, within one transaction."""

    def enqueue(self, entry: AuditEntry) -> None:
        """Idempotent by the prediction's id."""
        ...

    def waiting(self, service: str) -> int:
        """How many sampled predictions of a service wait."""
        ...

    def oldest(self, service: str, *, before: int, limit: int) -> list[AuditEntry]:
        """The predictions that were made before a time and wait, the oldest first."""
        ...

    def dequeue(self, predictions: Sequence[str]) -> None:
        """Idempotent."""
        ...

    def drop_from(self, service: str, place: float) -> int:
        """Take those from the queue whose place is at or above; how many."""
        ...

    def forget(self, hit: Callable[[dict[str, Any]], bool]) -> None:
        """Take predictions from the queue, and examples from the states, for which `hit` holds; it is given a
        prediction's `id` and `version`, and what there is of its `key`, `inputs` and `features`. Idempotent."""
        ...

    def add_period(self, period: AuditPeriod) -> None:
        """Add to what is stored. Not idempotent: to be called in the transaction that takes the predictions away."""
        ...

    def periods(self, service: str, *, version: str = "", since: int = 0) -> list[AuditPeriod]: ...

    def state(self, service: str) -> AuditState: ...

    def put_state(self, state: AuditState) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry:
    """A sampled prediction that waits: its record as it was logged, and a place in [0, 1) that its id gives it: those
    with the largest are let go where too many wait."""

    id: str
    service: str
    version: str
    at: int
    place: float
    record: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPeriod:
    """What was found about one feature of a version in the predictions of a day; counts by reason and by cause."""

    service: str
    version: str
    feature: str
    start: int
    compared: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)

    @property
    def mismatched(self) -> int:
        return sum(self.causes.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditState:
    """Of one service: the share of entities that is sampled now, as a multiple of the one that is begun with;
    predictions audited and let go, the newest examples of mismatches, and what mismatches did to scores (rows that
    could be scored both ways, sum and largest |Δ|)."""

    service: str
    share: float = 1.0
    audited: int = 0
    dropped: int = 0
    at: int | None = None
    examples: tuple[dict[str, Any], ...] = ()
    effect_rows: int = 0
    effect_total: float = 0.0
    effect_largest: float = 0.0
