"""Where online state lies in the store, and how its words are written.

meta            source/NAME → {lsn, known_through};  view/DEFINITION → {source, head}
                hidden/DEFINITION → the same, of a view that is kept up while the whole state is being built again;
                build/DEFINITION → how far a view is that is built beside the others;
                pulse → domain time up to which all that ingestion took is in the state
view/DEFINITION entity key → packed state
key/SOURCE      the keys of events, in runs (`index.py`)
dropped/SOURCE  which LSNs were duplicates
held/SOURCE     time at which it is known, LSN → an event that nobody may see yet

And of sources that take corrections:

version/SOURCE    event key → (known_at, lsn) of its newest version, and its age
rows/DEFINITION   entity key, event time, LSN → event key, raw row
place/DEFINITION  event key → where its row is
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from flyball.features.accumulator import Words
from flyball.features.ports import ReadTransaction

META = "meta"
PULSE = b"pulse"
REBUILDING = b"rebuilding"
NEVER = -(1 << 62)
_OFFSET = 1 << 63
_STATE = struct.Struct("<3q")


class SourceState(NamedTuple):
    """How far a source is.

    Args:
        lsn: the last one applied (0: none).
        known_through: history known by then has been made visible.
        evicted: of an entity that is not there nothing is said for times before it: it may have been dropped.
    """

    lsn: int = 0
    known_through: int = NEVER
    evicted: int = NEVER


def view_space(definition: str) -> str:
    return f"view/{definition}"


def key_space(source: str) -> str:
    return f"key/{source}"


def dropped_space(source: str) -> str:
    return f"dropped/{source}"


def held_space(source: str) -> str:
    return f"held/{source}"


def version_space(source: str) -> str:
    return f"version/{source}"


def row_space(definition: str) -> str:
    return f"rows/{definition}"


def place_space(definition: str) -> str:
    return f"place/{definition}"


def source_key(source: str) -> bytes:
    return f"source/{source}".encode()


def view_key(definition: str) -> bytes:
    return f"view/{definition}".encode()


def hidden_key(definition: str) -> bytes:
    return f"hidden/{definition}".encode()


def build_key(definition: str) -> bytes:
    return f"build/{definition}".encode()


def pulse(transaction: ReadTransaction) -> int | None:
    """Domain time up to which the state has all that ingestion took; None: nothing says so."""
    data = transaction.get(META, PULSE)
    return None if data is None else int(msgspec.msgpack.decode(data))


def source_state(transaction: ReadTransaction, source: str) -> SourceState:
    data = transaction.get(META, source_key(source))
    return SourceState() if data is None else SourceState(*_STATE.unpack(data))


def encode_state(state: SourceState) -> bytes:
    return _STATE.pack(*state)


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
