"""Online state in LMDB, read by many processes and written by one; and in memory, for one process.

LMDB runs without fsync: the operating system keeps what a killed process wrote, and what the machine forgets when it
goes down is built again from the log. A stamp beside the file names the boot that wrote it; a file of another boot may
be torn, so it is not even opened.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Self

import lmdb

from flyball.features.ports import ReadTransaction, WriteTransaction
from flyball.kernel.errors import ExhaustedError, InvalidError, UnavailableError
from flyball.kernel.files import read_document, write_document

MAP_SIZE = 64 << 30  # address space, not disk: the file grows as it is filled
MAX_READERS = 512
KIND = "flyball.online"
_PIECE = 256  # entries that a walk reads at once
FORMAT = 2  # of addresses and of what lies there: a store of another one is built again


def boot_id() -> str:
    """Names this run of the machine's kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@cache
def _prefix(space: str) -> bytes:
    """A space's name as 8 bytes: names are long and few, and keys stand in every page of the tree."""
    return hashlib.blake2b(space.encode(), digest_size=8).digest()


def _address(space: str, key: bytes) -> bytes:
    return _prefix(space) + key


class _LmdbTransaction:
    """A transaction, and the block that it lives in."""

    def __init__(self, transaction: Any) -> None:
        self._txn = transaction

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._txn.abort()  # of a reader: there is nothing to commit

    def get(self, space: str, key: bytes) -> bytes | None:
        value = self._txn.get(_prefix(space) + key)
        return None if value is None else bytes(value)

    def get_many(self, space: str, keys: Sequence[bytes]) -> list[bytes | None]:
        prefix, get = _prefix(space), self._txn.get
        found = [get(prefix + key) for key in keys]
        return [None if value is None else bytes(value) for value in found]

    def get_into(self, space: str, key: bytes, buffer: memoryview) -> int:
        value = self._txn.get(_prefix(space) + key)
        if value is None:
            return -1
        size = len(value)
        if size <= len(buffer):
            buffer[:size] = value
        return size

    def look(self, space: str, keys: Sequence[bytes]) -> Sequence[memoryview | None]:
        prefix, get = _prefix(space), self._txn.get
        return [get(prefix + key) for key in keys]

    def items(self, space: str, after: bytes = b"", *, size: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        prefix = _prefix(space)
        start, count = prefix + after + b"\0" if after else prefix, 1
        while True:  # in pieces, each copied before the caller may write; a first one that is looked at alone is cheap
            piece, going = [], False
            with self._txn.cursor() as cursor:
                if cursor.set_range(start):
                    for address, value in islice(cursor.iternext(), count):
                        if not (going := bytes(address[: len(prefix)]) == prefix):
                            break
                        piece.append((bytes(address[len(prefix) :]), bytes(value[:size])))
            yield from piece
            if not going or len(piece) < count:
                return
            start, count = prefix + piece[-1][0] + b"\0", min(8 * count, _PIECE)

    def put(self, space: str, key: bytes, value: bytes | memoryview) -> None:
        self._txn.put(_address(space, key), value)

    def put_many(self, space: str, items: Iterable[tuple[bytes, bytes | memoryview]]) -> None:
        prefix = _prefix(space)
        with self._txn.cursor() as cursor:
            cursor.putmulti([(prefix + key, value) for key, value in items])

    def delete(self, space: str, key: bytes) -> None:
        self._txn.delete(_address(space, key))

    def clear(self, space: str) -> None:
        prefix = _prefix(space)
        with self._txn.cursor() as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()).startswith(prefix):
                found = cursor.delete()


class LmdbStore:
    """Online state in the folder `path`. Open it after a fork; one process opens a folder once.

    Args:
        readonly: for workers.
        boot: names the machine's run; tests give their own.

    Raises:
        UnavailableError: `online_rebuilding`, where a reader comes before the writer of this boot.
    """

    def __init__(
        self, path: Path, *, readonly: bool = False, map_size: int = MAP_SIZE, boot: str | None = None
    ) -> None:
        self._stamp = path / "boot.json"
        self._boot = boot_id() if boot is None else boot
        self._trusted = self._stamped()
        if readonly and not self._trusted:
            raise UnavailableError(
                "the online state is not there yet: it is being built again from the event log",
                code="online_rebuilding",
                hint="wait for the ingest process; flyball status shows how far it is",
            )
        if not readonly:
            path.mkdir(parents=True, exist_ok=True)
            if not self._trusted:
                for name in ("data.mdb", "lock.mdb"):
                    (path / name).unlink(missing_ok=True)
            shutil.rmtree(path / "compact", ignore_errors=True)
        self._path, self._map_size, self._readonly = path, map_size, readonly
        self._env = self._open()
        self._writes = 0

    def _open(self) -> lmdb.Environment:
        environment = lmdb.open(
            str(self._path),
            map_size=self._map_size,
            readonly=self._readonly,
            create=not self._readonly,
            sync=False,
            metasync=False,
            writemap=False,
            readahead=False,
            max_readers=MAX_READERS,
            max_spare_txns=8,
        )
        self._file = (self._path / "data.mdb").stat().st_ino
        return environment

    def _stamped(self) -> bool:
        try:
            stamp = read_document(self._stamp, KIND)
            return stamp.get("boot") == self._boot and stamp.get("format") == FORMAT
        except (FileNotFoundError, InvalidError):
            return False

    def read(self) -> AbstractContextManager[ReadTransaction]:
        return _LmdbTransaction(self._env.begin(buffers=True))

    @contextmanager
    def write(self) -> Iterator[WriteTransaction]:
        if self._writes % 256 == 0:
            self._env.reader_check()  # a killed worker's slot would keep old pages from being used again
        self._writes += 1
        try:
            with self._env.begin(write=True, buffers=True) as transaction:
                yield _LmdbTransaction(transaction)
        except (lmdb.MapFullError, lmdb.DiskError) as error:
            raise ExhaustedError(
                f"the online state is full: {error}",
                code="online_full",
                hint="free some space, or make windows shorter; events stay in the log and are applied later",
            ) from error

    def lost(self) -> bool:
        """Whether the file that is written here is no longer the one that readers find."""
        try:
            there = (self._path / "data.mdb").stat()
        except FileNotFoundError:
            return True
        return there.st_ino != self._file

    def compact(self) -> None:
        """Write the file anew without its free pages, in which deleted values stand until they are used again.

        Readers find no state for a moment, then the new file. A crash in between leaves a state to build again.
        """
        beside = self._path / "compact"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        self._env.copy(str(beside), compact=True)
        self._stamp.unlink(missing_ok=True)
        self._env.close()
        (self._path / "lock.mdb").unlink(missing_ok=True)
        (beside / "data.mdb").replace(self._path / "data.mdb")
        shutil.rmtree(beside)
        self._env = self._open()
        self._trust()

    def needs_rebuild(self) -> bool:
        return not self._trusted

    def reset(self) -> None:
        self._stamp.unlink(missing_ok=True)
        with self._env.begin(write=True) as transaction:
            transaction.drop(self._env.open_db(None, txn=transaction), delete=False)
        self._trust()
        self._trusted = True

    def _trust(self) -> None:
        write_document(self._stamp, KIND, {"boot": self._boot, "format": FORMAT})

    def close(self) -> None:
        self._env.close()


class _MemoryTransaction:
    """Writes lie in an overlay (None: deleted) until the block ends."""

    def __init__(self, data: dict[bytes, bytes]) -> None:
        self._data = data
        self.overlay: dict[bytes, bytes | None] = {}

    def get(self, space: str, key: bytes) -> bytes | None:
        address = _address(space, key)
        return self.overlay[address] if address in self.overlay else self._data.get(address)

    def get_many(self, space: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(space, key) for key in keys]

    def get_into(self, space: str, key: bytes, buffer: memoryview) -> int:
        value = self.get(space, key)
        if value is None:
            return -1
        if len(value) <= len(buffer):
            buffer[: len(value)] = value
        return len(value)

    def look(self, space: str, keys: Sequence[bytes]) -> Sequence[memoryview | None]:
        return [None if value is None else memoryview(value) for value in self.get_many(space, keys)]

    def items(self, space: str, after: bytes = b"", *, size: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        prefix = _prefix(space)
        merged = self._data | self.overlay if self.overlay else self._data
        for address in sorted(a for a in merged if a.startswith(prefix) and (not after or a > prefix + after)):
            value = merged[address]
            if value is not None:
                yield address[len(prefix) :], value[:size]

    def put_many(self, space: str, items: Iterable[tuple[bytes, bytes | memoryview]]) -> None:
        for key, value in items:
            self.overlay[_address(space, key)] = bytes(value)

    def put(self, space: str, key: bytes, value: bytes | memoryview) -> None:
        self.overlay[_address(space, key)] = bytes(value)

    def delete(self, space: str, key: bytes) -> None:
        self.overlay[_address(space, key)] = None

    def clear(self, space: str) -> None:
        for key, _ in list(self.items(space)):
            self.delete(space, key)


class MemoryStore:
    """Online state in memory, for the platform in one process. A reader holds the lock while it looks."""

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}
        self._lock = threading.RLock()
        self._trusted = False

    @contextmanager
    def read(self) -> Iterator[ReadTransaction]:
        with self._lock:
            yield _MemoryTransaction(self._data)

    @contextmanager
    def write(self) -> Iterator[WriteTransaction]:
        with self._lock:
            transaction = _MemoryTransaction(self._data)
            yield transaction
            for address, value in transaction.overlay.items():
                if value is None:
                    self._data.pop(address, None)
                else:
                    self._data[address] = value

    def needs_rebuild(self) -> bool:
        return not self._trusted

    def reset(self) -> None:
        with self._lock:
            self._data.clear()
            self._trusted = True

    def close(self) -> None: ...
