"""One worker's counts in a mapped file: keys with float64 cells, written by plain stores, readable by every process.

The file is a header of 64 bytes and blocks of 8-byte words:

    header  "FBMC", format version (u16), key id (u16), used bytes (u64), zeros
    block   words of the block (u32), cells (u32) | CRC-32 of cells and key (u32), key bytes (u32) | key | cells

A block's first word never changes; its second is written last, and is 0 while the block is free. So a worker that is
killed at any moment leaves a file of whole blocks, and a reader never takes half a key. Cells are aligned, and an
aligned 8-byte store is seen whole or not at all. The file's space is reserved as it grows: a store can meet no full
disk (which would be a SIGBUS).
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flyball.kernel.errors import ConflictError, FlyballError, InvalidError
from flyball.kernel.files import FORMAT_VERSION, KEY_ID_NONE

logger = logging.getLogger(__name__)

Key = tuple[str, ...]
Cells = npt.NDArray[np.float64]

MAGIC = b"FBMC"
HEADER = struct.Struct("<4sHHQ48x")
PAIR = struct.Struct("<II")  # little-endian, as the words are: the machines that run this are
WORD = 8
HEADER_WORDS = HEADER.size // WORD
USED = 1  # the header's word that holds the used bytes
KEY_WORDS = 4  # keys are padded to as many words, so that a freed block fits more keys
START_BYTES = 64 * 1024
SEPARATOR = "\0"


@dataclass(frozen=True, slots=True)
class Block:
    """The cells of one key. `cells` is for single stores (`cells[0] += 1.0`), `array` for many at once; both are views
    of the same memory, and stay valid when the file grows."""

    key: Key
    cells: memoryview[float]
    array: Cells


class CellFile:
    """A file of cells that one process writes; what stands in it from an earlier process goes on.

    One thread writes: nothing here is locked. Whoever opens the file holds the slot's lock (of its prediction log).

    Args:
        path: made where it is missing, and set aside as `NAME.bad` where it is torn or foreign. None: memory of this
            process alone.
    """

    def __init__(self, path: Path | None = None, *, start_bytes: int = START_BYTES) -> None:
        self._path = path
        self._blocks: dict[Key, tuple[int, Block]] = {}  # key → its block's first word
        self._free: dict[tuple[int, int], list[int]] = {}  # (words, cells) → first words
        self._full = False
        self._fd = os.memfd_create("counts") if path is None else _open(path)
        if path is not None and os.fstat(self._fd).st_size:
            try:
                self._go_on()
                return
            except FlyballError as error:
                os.close(self._fd)
                aside = path.with_suffix(".bad")
                path.replace(aside)
                logger.error("counts were set aside and begin anew", extra={"file": str(aside), "why": error.message})
                self._fd = _open(path)
        self._map(start_bytes)
        self._begin()

    @property
    def keys(self) -> list[Key]:
        return list(self._blocks)

    def block(self, key: Key, cells: int) -> Block:
        """The block of a key; a new one is all zeros. Where the disk is full, a new block is of this process alone."""
        found = self._blocks.get(key)
        if found is not None and len(found[1].cells) == cells:
            return found[1]
        name = SEPARATOR.join(key).encode()
        key_words = -(-len(name) // (WORD * KEY_WORDS)) * KEY_WORDS
        words = 2 + key_words + cells
        if found is not None:  # of another shape: an older version's
            self.free(key)
        at = self._room(words, cells)
        if at is None:
            alone = memoryview(bytearray(cells * WORD))
            return Block(key, alone.cast("d"), np.frombuffer(alone, np.float64))
        start = at * WORD
        self._bytes[start + 2 * WORD : start + words * WORD] = name.ljust((key_words + cells) * WORD, b"\0")
        self._words[at] = words | cells << 32  # one store
        self._words[at + 1] = _seal(name, cells)
        self._words[USED] = max(self._words[USED], start + words * WORD)
        return self._hold(key, at, words, cells)

    def free(self, key: Key) -> None:
        """Give a key's block to the next key of its size. Blocks that were handed out for it must not be used on."""
        found = self._blocks.pop(key, None)
        if found is not None:
            at, block = found
            self._words[at + 1] = 0
            words, cells = PAIR.unpack_from(self._bytes, at * WORD)
            self._free.setdefault((words, cells), []).append(at)
            block.array[:] = 0.0

    def clear(self, chosen: Callable[[Key], bool]) -> None:
        """Set the cells of the chosen keys to 0."""
        for key, (_, block) in self._blocks.items():
            if chosen(key):
                block.array[:] = 0.0

    def values(self) -> Iterator[tuple[Key, list[float]]]:
        for key, (_, block) in list(self._blocks.items()):
            yield key, block.array.tolist()

    def close(self) -> None:
        """Let go of the file; its contents stay. Blocks that were handed out stay usable."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _go_on(self) -> None:
        size = os.fstat(self._fd).st_size
        blocks = list(walk(memoryview(mmap.mmap(self._fd, size, prot=mmap.PROT_READ))))
        self._map(size)
        if not self._words[USED]:
            self._begin()
        for at, words, cells, key in blocks:
            if key is None:
                self._free.setdefault((words, cells), []).append(at)
            else:
                self._hold(key, at, words, cells)

    def _begin(self) -> None:
        self._bytes[: HEADER.size] = HEADER.pack(MAGIC, FORMAT_VERSION, KEY_ID_NONE, HEADER.size)

    def _hold(self, key: Key, at: int, words: int, cells: int) -> Block:
        view = self._bytes[(at + words - cells) * WORD : (at + words) * WORD]
        block = Block(key, view.cast("d"), np.frombuffer(view, np.float64))
        self._blocks[key] = (at, block)
        return block

    def _room(self, words: int, cells: int) -> int | None:
        free = self._free.get((words, cells))
        if free:
            return free.pop()
        at = self._words[USED] // WORD
        while (at + words) * WORD > self._size:
            if self._full or not self._grow():
                return None
        return int(at)

    def _grow(self) -> bool:
        try:
            self._map(self._size * 2)
        except OSError as error:
            self._full = True
            extra = {"file": str(self._path), "error": str(error)}
            logger.error("what is new is counted by this worker alone: its file cannot grow", extra=extra)
            return False
        return True

    def _map(self, size: int) -> None:
        """Map the file anew; what was mapped before stays mapped as long as a block uses it."""
        os.posix_fallocate(self._fd, 0, size)
        self._size = size
        self._bytes = memoryview(mmap.mmap(self._fd, size))
        self._words = self._bytes.cast("Q")


def read_cells(path: Path) -> dict[Key, list[float]]:
    """The counts of a file that another process may be writing; empty where there is none yet.

    Raises `bad_counts` for a file that is torn or foreign, `newer_format` for one of a newer version.
    """
    data = _mapped(path)
    if data is None:
        return {}
    found: dict[Key, list[float]] = {}
    blocks = list(walk(data))
    words = data.cast("Q")
    cells: memoryview[float] = data.cast("d")
    for at, length, count, key in blocks:
        if key is not None:
            seal = words[at + 1]
            values = list(cells[at + length - count : at + length])
            if words[at + 1] == seal:  # else it was freed, and may be another's by now
                found[key] = values
    return found


def _mapped(path: Path) -> memoryview | None:
    """A file's bytes, all that are used: it may have grown since its size was asked. None: it has none."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        size = 0
        while size < (grown := os.fstat(file.fileno()).st_size):
            size = grown
            data = memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))
            if len(data) < HEADER.size or HEADER.unpack_from(data)[-1] <= size:
                break
    return data if size else None


def walk(data: memoryview) -> Iterator[tuple[int, int, int, Key | None]]:
    """The blocks of a file's bytes: first word, words, cells, key (None: free). Raises where they are not whole."""
    if len(data) < HEADER.size or len(data) % WORD:
        raise InvalidError("the file of counts is shorter than its header", code="bad_counts")
    magic, version, _, used = HEADER.unpack_from(data)
    if not used and not any(data[: HEADER.size]):
        return  # its writer is about to begin, or was killed there
    if magic != MAGIC:
        raise InvalidError("the file does not begin as one of counts", code="bad_counts")
    if version > FORMAT_VERSION:
        raise ConflictError(
            f"the file of counts has format version {version}; this Flyball reads up to {FORMAT_VERSION}",
            code="newer_format",
            hint="install the version of Flyball that wrote it, or a newer one",
        )
    words = data.cast("Q")
    at, end = HEADER_WORDS, used // WORD
    if used % WORD or not HEADER.size <= used <= len(data):
        raise InvalidError(f"the file of counts says that {used} of its {len(data)} bytes are used", code="bad_counts")
    while at < end:
        length, cells = PAIR.unpack_from(data, at * WORD)
        seal = words[at + 1]
        name_bytes = seal >> 32
        room = (length - 2 - cells) * WORD
        if length < 2 + cells or at + length > end or name_bytes > room:
            raise InvalidError(f"the file of counts is torn at byte {at * WORD}", code="bad_counts")
        key: Key | None = None
        if seal:
            name = bytes(data[(at + 2) * WORD : (at + 2) * WORD + name_bytes])
            if words[at + 1] != seal:
                pass  # freed while it was read
            elif _seal(name, cells) != seal:
                raise InvalidError(f"the file of counts is torn at byte {at * WORD}", code="bad_counts")
            else:
                key = tuple(name.decode(errors="replace").split(SEPARATOR))
        yield at, length, cells, key
        at += length


def _seal(name: bytes, cells: int) -> int:
    """A block's second word: never 0, because a key has bytes."""
    return zlib.crc32(name, cells) | len(name) << 32


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
