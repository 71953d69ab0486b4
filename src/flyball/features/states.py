"""Where online state lies in the store, and how its words are written.

meta            source/NAME → {lsn, known_through};  view/DEFINITION → {source, head}
view/DEFINITION entity key → packed state
key/SOURCE      the keys of events, in runs (`index.py`)
dropped/SOURCE  which LSNs were duplicates
held/SOURCE     time at which it is known, LSN → an event that nobody may see yet
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from flyball.features.accumulator import Words
from flyball.features.ports import ReadTransaction

META = "meta"
_OFFSET = 1 << 63


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    """`lsn`: the last one applied (0: none). `known_through`: history known by then has been made visible."""

    lsn: int = 0
    known_through: int = -(1 << 62)


def view_space(definition: str) -> str:
    return f"view/{definition}"


def key_space(source: str) -> str:
    return f"key/{source}"


def dropped_space(source: str) -> str:
    return f"dropped/{source}"


def held_space(source: str) -> str:
    return f"held/{source}"


def source_key(source: str) -> bytes:
    return f"source/{source}".encode()


def view_key(definition: str) -> bytes:
    return f"view/{definition}".encode()


def source_state(transaction: ReadTransaction, source: str) -> SourceState:
    data = transaction.get(META, source_key(source))
    return SourceState() if data is None else msgspec.msgpack.decode(data, type=SourceState)


def ordered(*numbers: int) -> bytes:
    """Signed 64-bit numbers as bytes that sort as they do."""
    return struct.pack(f">{len(numbers)}Q", *(number + _OFFSET for number in numbers))


def unordered(data: bytes, count: int) -> tuple[int, ...]:
    return tuple(number - _OFFSET for number in struct.unpack(f">{count}Q", data[: 8 * count]))


def join(blobs: Sequence[bytes | None], *more: bytes) -> tuple[Words, Words]:
    """Packed states one after another, and where each begins (-1: there is none), those of `more` last."""
    at = np.full(len(blobs) + len(more), -1, np.int64)
    position, chunks = 0, []
    for i, blob in enumerate((*blobs, *more)):
        if blob is not None:
            at[i] = position
            position += len(blob) // 8
            chunks.append(blob)
    return np.frombuffer(bytearray().join(chunks), np.int64), at


def encode(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)
