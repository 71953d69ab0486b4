"""The prediction log: what a worker answered, written before it answers.

A slot is one worker's folder, `predictions/SLOT`; a segment `NNNNNNNN.log` is a header and records, each with its
length and CRC-32. Only the last segment of a slot is written to, and a worker that starts begins a new one. SIGKILL
loses nothing that was written; power loss may cost what was written since the last `sync`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from flyball.kernel.errors import ConflictError, InvalidError
from flyball.kernel.files import KEY_ID_NONE, sync_directory, translate_os_error
from flyball.serving.blocks import expand

HEADER = struct.Struct("<4sHH8x")
FRAME = struct.Struct("<II")
MAGIC = b"FBPL"
LOG_VERSION = 2  # 1: a record a row, which is still read; 2: blocks of rows
SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENT_SECONDS = 60.0
LOCK_FILE = "lock"
LOCK_SECONDS = 5.0  # how long a new worker waits for the one before it in its slot

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


class PredictionWriter:
    """Appends records to one slot. Safe for several threads; a `sync` holds up no `write`.

    Args:
        folder: `predictions/SLOT`; locked until `close`.
        segment_bytes, segment_seconds: when a new segment is begun.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._slot = _lock(folder, monotonic)
        self._lock = threading.RLock()
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._monotonic = monotonic
        existing = _segments(folder)
        if existing:
            cut_torn_tail(folder / existing[-1])
        self._number = int(existing[-1].removesuffix(".log")) if existing else 0
        self._fd = -1
        self._size = 0
        self._begun = 0.0
        self._unsynced = False
        self.records = 0
        self._begin_segment()

    def write(self, records: Sequence[dict[str, Any]], *, durable: bool = False) -> None:
        """Append records, or blocks of them (`blocks.py`); they are with the operating system on return, and on the
        disk if `durable`.

        On a full disk nothing of the batch stays, and the `ExhaustedError` says so.
        """
        if not records:
            return
        frames = bytearray()
        for record in records:
            body = _encoder.encode(record)
            frames += FRAME.pack(len(body), zlib.crc32(body))
            frames += body
        with self._lock:
            if self._size > HEADER.size and self._due():
                self._begin_segment()
            self._append(bytes(frames))
            self.records += sum(record.get("n", 1) for record in records)
            self._unsynced = True
        if durable:
            self.sync()

    def begin_segment(self) -> None:
        """Turn to a new segment now, unless the one in use is empty."""
        with self._lock:
            if self._fd >= 0 and self._size > HEADER.size:
                self._begin_segment()

    def sync(self) -> None:
        """Bring what was written to the disk."""
        with self._lock:
            if not self._unsynced or self._fd < 0:
                return
            self._unsynced = False
            fd = os.dup(self._fd)
        try:
            os.fsync(fd)
        except OSError as error:
            self._unsynced = True
            raise translate_os_error(error, self._folder / "segment") from error
        finally:
            os.close(fd)

    def close(self) -> None:
        with self._lock:
            if self._fd < 0:
                return
            self.sync()
            os.close(self._fd)
            self._fd = -1
            os.close(self._slot)

    def position(self) -> dict[str, Any]:
        return {"segment": f"{self._number:08d}.log", "offset": self._size, "records": self.records}

    def _due(self) -> bool:
        return self._size >= self._segment_bytes or self._monotonic() - self._begun >= self._segment_seconds

    def _begin_segment(self) -> None:
        """Turn to a new segment once it has its header; where that fails, the one before stays in use."""
        self.sync()
        path = self._folder / f"{self._number + 1:08d}.log"
        fd = -1
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            if os.write(fd, HEADER.pack(MAGIC, LOG_VERSION, KEY_ID_NONE)) < HEADER.size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync_directory(self._folder)
        except OSError as error:
            if fd >= 0:  # ours, and without a record: the name is used again
                os.close(fd)
                path.unlink(missing_ok=True)
            raise translate_os_error(error, path) from error
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._number, self._size, self._begun = fd, self._number + 1, HEADER.size, self._monotonic()

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, view[written:])
        except OSError as error:
            os.ftruncate(self._fd, self._size)  # half a batch must not stand before the next one
            raise translate_os_error(error, self._folder / "segment") from error
        self._size += written


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Whole records and the offset after the last of them. `torn`: bytes follow that are no record (yet)."""

    records: tuple[dict[str, Any], ...]
    end: int
    torn: bool = False


class PredictionReader:
    """Reads the logs of all slots below `predictions`; the writers may be running."""

    def __init__(self, predictions: Path) -> None:
        self._root = predictions

    def slots(self) -> list[str]:
        try:
            return sorted(path.name for path in self._root.iterdir() if path.is_dir())
        except FileNotFoundError:
            return []

    def segments(self, slot: str) -> list[str]:
        """In the order in which they were written; the last one may still be written to."""
        return _segments(self._root / slot)

    def live(self, slot: str) -> bool:
        """Whether a worker holds the slot."""
        try:
            fd = os.open(self._root / slot / LOCK_FILE, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def read(self, slot: str, segment: str, offset: int, *, end: int | None = None) -> Slice:
        """Whole records from `offset` (0: the start) on, up to `end` or to the end of what is whole.

        Raises `bad_log` for a file that is no segment, `newer_format` for one of a newer version.
        """
        with (self._root / slot / segment).open("rb") as file:
            header = file.read(HEADER.size)
            if len(header) < HEADER.size:
                return Slice(records=(), end=offset, torn=bool(header))
            _check_header(header, segment)
            start = max(offset, HEADER.size)
            file.seek(start)
            data = file.read() if end is None else file.read(max(0, end - start))
        records = tuple(record for body, _ in _frames(data) for record in expand(_decoder.decode(body)))
        whole = _whole(data)
        return Slice(records=records, end=start + whole, torn=whole < len(data))

    def turn(self, slot: str) -> None:
        """Begin a new segment of a slot that no worker holds, so that those before it are finished."""
        PredictionWriter(self._root / slot).close()

    def remove(self, slot: str, segment: str) -> None:
        """Idempotent."""
        (self._root / slot / segment).unlink(missing_ok=True)


def cut_torn_tail(path: Path) -> int:
    """Cut what follows the last whole record of a segment that nobody writes to; returns how many bytes went."""
    data = path.read_bytes()
    if len(data) < HEADER.size:
        keep = 0
    else:
        _check_header(data[: HEADER.size], path.name)
        keep = HEADER.size + _whole(data[HEADER.size :])
    if keep < len(data):
        os.truncate(path, keep)
    return len(data) - keep


def _frames(data: bytes) -> Iterator[tuple[memoryview, int]]:
    """The whole records of a segment's bytes, each with the offset of its end; stops at the first that is not."""
    view = memoryview(data)
    at = 0
    while at + FRAME.size <= len(data):
        length, checksum = FRAME.unpack_from(data, at)
        end = at + FRAME.size + length
        if end > len(data) or length == 0:
            return
        body = view[at + FRAME.size : end]
        if zlib.crc32(body) != checksum:
            return
        yield body, end
        at = end


def _whole(data: bytes) -> int:
    end = 0
    for _, end in _frames(data):  # noqa: B007 - the last one counts
        pass
    return end


def _segments(folder: Path) -> list[str]:
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.endswith(".log") and name.removesuffix(".log").isdigit())


def _check_header(header: bytes, name: str) -> None:
    magic, version, _ = HEADER.unpack(header)
    if magic != MAGIC:
        raise InvalidError(f"{name} is not a segment of a prediction log", code="bad_log")
    if version > LOG_VERSION:
        raise ConflictError(
            f"{name} has format version {version}; this Flyball reads up to {LOG_VERSION}",
            code="newer_format",
            hint="install the version of Flyball that wrote it, or a newer one",
        )


def _lock(folder: Path, monotonic: Callable[[], float]) -> int:
    """Hold a slot for the life of the process; a reader's test of `live` may stand in the way for an instant."""
    fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if monotonic() >= deadline:
                os.close(fd)
                raise ConflictError(
                    f"another worker writes to the prediction log's slot {folder.name!r}",
                    code="slot_in_use",
                    hint="stop the platform that uses this state directory, or use another with --state DIR",
                ) from None
            time.sleep(0.01)
