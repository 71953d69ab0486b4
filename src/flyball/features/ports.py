"""What features need of the outside: a store for online state, and events to read back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import polars as pl


class ReadTransaction(Protocol):
    """One consistent look at the store. Keys of a space are ordered as bytes."""

    def get(self, space: str, key: bytes) -> bytes | None: ...

    def get_many(self, space: str, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def get_into(self, space: str, key: bytes, buffer: memoryview) -> int:
        """Copy a value to the beginning of `buffer`; its length, -1: there is none. A longer value is not copied."""
        ...

    def items(self, space: str, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Ascending by key, those behind `after`, which no key need be.

        What is deleted or put while iterating a write transaction may or may not be seen."""
        ...


class WriteTransaction(ReadTransaction, Protocol):
    def put(self, space: str, key: bytes, value: bytes | memoryview) -> None:
        """Add or replace."""
        ...

    def put_many(self, space: str, items: Sequence[tuple[bytes, bytes | memoryview]]) -> None:
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
