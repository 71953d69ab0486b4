"""Online state as a long-lived reader sees it: opened when it is there, and opened again where it was replaced.

A writer of another boot, or one that found the folder gone or broken, begins a new file under the old name; a reader
that kept the old one would answer from the past for ever. So the name is looked at now and then: one `stat`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import lmdb

from flyball.features.ports import ReadTransaction, WriteTransaction
from flyball.kernel.errors import UnavailableError
from flyball.storage.online import LmdbStore

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
DATA, LOCK, STAMP = "data.mdb", "lock.mdb", "boot.json"
Identity = tuple[int, int]


class FollowingStore:
    """`OnlineStore` for reading, on the folder that a writer fills. To be made after a fork; safe for several threads.

    `read` raises `UnavailableError`: `online_rebuilding` where there is no state of this boot, `online_unreadable`
    where it cannot be read.
    """

    def __init__(self, path: Path, *, boot: str | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._boot = boot
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._store: LmdbStore | None = None
        self._identity: Identity | None = None
        self._look_at = 0.0
        self._reading: dict[int, int] = {}  # by id of a store: how many look at it now
        self._left: list[LmdbStore] = []  # replaced, and perhaps still being looked at

    @contextmanager
    def read(self) -> Iterator[ReadTransaction]:
        store = self._current()
        with self._lock:
            self._reading[id(store)] = self._reading.get(id(store), 0) + 1
        try:
            with store.read() as transaction:
                yield transaction
        except lmdb.Error as error:
            self._look_at = 0.0
            raise UnavailableError(f"online state cannot be read: {error}", code="online_unreadable") from error
        finally:
            with self._lock:
                self._reading[id(store)] -= 1

    def write(self) -> contextlib.AbstractContextManager[WriteTransaction]:
        raise UnavailableError("online state is read here, not written", code="online_readonly")

    def needs_rebuild(self) -> bool:
        return False

    def reset(self) -> None:
        raise UnavailableError("online state is read here, not written", code="online_readonly")

    def close(self) -> None:
        with self._lock:
            for store in [*self._left, *([self._store] if self._store else [])]:
                store.close()
            self._left, self._store, self._identity = [], None, None

    def _current(self) -> LmdbStore:
        now = self._monotonic()
        if self._store is not None and now < self._look_at:
            return self._store
        with self._lock:
            self._look_at = now + LOOK_SECONDS
            identity = self._seen()
            if self._store is None or identity != self._identity:
                self._leave()
                self._store = _open(self._path, self._boot)
                self._identity = identity
            for store in [s for s in self._left if not self._reading.get(id(s))]:
                store.close()
                self._left.remove(store)
                self._reading.pop(id(store), None)
            return self._store

    def _leave(self) -> None:
        if self._store is not None:
            self._left.append(self._store)
            self._store, self._identity = None, None

    def _seen(self) -> Identity | None:
        """Which file lies there; None: none does."""
        try:
            data = (self._path / DATA).stat()
        except FileNotFoundError:
            return None
        return data.st_dev, data.st_ino


def _open(path: Path, boot: str | None) -> LmdbStore:
    try:
        return LmdbStore(path, readonly=True, boot=boot)
    except lmdb.Error as error:
        raise UnavailableError(f"online state cannot be opened: {error}", code="online_unreadable") from error


def open_writable(path: Path, *, boot: str | None = None) -> LmdbStore:
    """The store for its one writer. A file that is broken is put away: what it held is built again from the log."""
    if _torn(path / DATA):
        _put_away(path)
    try:
        return LmdbStore(path, boot=boot)
    except lmdb.Error as error:
        logger.error("online state is broken, and built again", extra={"error": str(error)})
        _put_away(path)
        return LmdbStore(path, boot=boot)


def _torn(data: Path) -> bool:
    """Whether the file is shorter than what it says it holds: reading behind its end would kill the process."""
    if not data.exists():
        return False
    try:
        with closing(lmdb.open(str(data.parent), readonly=True, lock=False, max_readers=1)) as environment:
            pages = environment.info()["last_pgno"] + 1
            return bool(pages * environment.stat()["psize"] > data.stat().st_size)
    except lmdb.Error:
        return True


def _put_away(path: Path) -> None:
    for name in (STAMP, DATA, LOCK):
        (path / name).unlink(missing_ok=True)
