"""The loops over rows that NumPy and Polars have no word for, as machine code: a hash of 128 bits, a set of hashes.

Compiled at the first call and kept on disk (`warm` does it before anyone waits). Every function stands alone in this
file, which is what Numba's cache watches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

Words = np.ndarray[Any, np.dtype[np.uint64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, njit(cache=True, nogil=True)(function))


@intrinsic
def _word_at(typing_context: Any, address: Any) -> Any:
    """The 8 bytes at an address, which may be unaligned, as a little-endian number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(types.uint64)))
        return builder.load(pointer, align=1)

    return types.uint64(types.uint64), generate


@intrinsic
def _byte_at(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(types.uint8)))
        return builder.load(pointer)

    return types.uint8(types.uint64), generate


@_compiled
def _absorb(v: Words, i: int, word: np.uint64) -> None:
    """Two rounds of SipHash over one word, for row `i` of the states `v` (n × 4)."""
    v0, v1, v2, v3 = v[i, 0], v[i, 1], v[i, 2], v[i, 3] ^ word
    for _ in range(2):
        v0 += v1
        v1 = (v1 << np.uint64(13)) | (v1 >> np.uint64(51))
        v1 ^= v0
        v0 = (v0 << np.uint64(32)) | (v0 >> np.uint64(32))
        v2 += v3
        v3 = (v3 << np.uint64(16)) | (v3 >> np.uint64(48))
        v3 ^= v2
        v0 += v3
        v3 = (v3 << np.uint64(21)) | (v3 >> np.uint64(43))
        v3 ^= v0
        v2 += v1
        v1 = (v1 << np.uint64(17)) | (v1 >> np.uint64(47))
        v1 ^= v2
        v2 = (v2 << np.uint64(32)) | (v2 >> np.uint64(32))
    v[i, 0], v[i, 1], v[i, 2], v[i, 3] = v0 ^ word, v1, v2, v3


@_compiled
def absorb_prefix(v: Words, lengths: Words, valid: Flags, words: Words) -> None:
    """The same words into the state of each valid row; `lengths` counts the words of each."""
    for i in range(len(valid)):
        if valid[i]:
            for word in words:
                _absorb(v, i, word)
            lengths[i] += np.uint64(len(words))


@_compiled
def absorb_words(v: Words, lengths: Words, valid: Flags, mark: np.uint64, null: np.uint64, values: Words) -> None:
    """A word a row, after `mark`; where it is null, `null` alone (0: nothing)."""
    for i in range(len(valid)):
        if valid[i]:
            _absorb(v, i, mark)
            _absorb(v, i, values[i])
            lengths[i] += np.uint64(2)
        elif null:
            _absorb(v, i, null)
            lengths[i] += np.uint64(1)


@_compiled
def absorb_texts(
    v: Words,
    lengths: Words,
    valid: Flags,
    mark: np.uint64,
    null: np.uint64,
    first: int,
    count: int,
    views: np.uint64,
    buffers: Words,
) -> None:
    """Arrow's string views at the address `views`, for the rows from `first`: `mark` with the length, then the bytes."""
    for k in range(count):
        i = first + k
        if not valid[i]:
            if null:
                _absorb(v, i, null)
                lengths[i] += np.uint64(1)
            continue
        view = views + np.uint64(16 * k)
        head = _word_at(view)
        length = head & np.uint64(0xFFFFFFFF)
        if length <= np.uint64(12):
            start = view + np.uint64(4)
        else:
            place = _word_at(view + np.uint64(8))
            start = buffers[place & np.uint64(0xFFFFFFFF)] + (place >> np.uint64(32))
        _absorb(v, i, mark | (length << np.uint64(8)))
        whole = length >> np.uint64(3)
        for w in range(whole):
            _absorb(v, i, _word_at(start + np.uint64(8) * np.uint64(w)))
        rest = length & np.uint64(7)
        if rest:
            last = np.uint64(0)
            tail = start + np.uint64(8) * whole
            for b in range(rest):
                last |= np.uint64(_byte_at(tail + np.uint64(b))) << np.uint64(8 * b)
            _absorb(v, i, last)
            whole += np.uint64(1)
        lengths[i] += np.uint64(1) + whole


@_compiled
def finish(v: Words, lengths: Words, out: Words) -> None:
    """The 128 bits of each row: the last block carries the length in bytes, as SipHash has it."""
    for i in range(len(lengths)):
        _absorb(v, i, (lengths[i] << np.uint64(3)) << np.uint64(56))
        v[i, 2] ^= np.uint64(0xEE)
        for half in range(2):
            _absorb(v, i, np.uint64(0))
            _absorb(v, i, np.uint64(0))
            out[i, half] = v[i, 0] ^ v[i, 1] ^ v[i, 2] ^ v[i, 3]
            v[i, 1] ^= np.uint64(0xDD)


@_compiled
def insert_all(table: Words, keys: Words, first: Flags) -> int:
    """Put keys (n × 2) into an open-addressing table of 2^k slots, at most half full; `first`: was it not there yet.

    An empty slot is two zero words; a key of two zero words is taken for one whose first word is 1.
    """
    last = np.uint64(len(table) - 1)
    added = 0
    for i in range(len(keys)):
        high, low = keys[i, 0], keys[i, 1]
        if high == 0 and low == 0:
            high = np.uint64(1)
        slot = low & last
        while True:
            a, b = table[slot, 0], table[slot, 1]
            if a == high and b == low:
                first[i] = False
                break
            if a == 0 and b == 0:
                table[slot, 0], table[slot, 1] = high, low
                first[i] = True
                added += 1
                break
            slot = (slot + np.uint64(1)) & last
    return added


@_compiled
def contained(table: Words, keys: Words, found: Flags) -> None:
    """Which keys are in a table of `insert_all`."""
    last = np.uint64(len(table) - 1)
    for i in range(len(keys)):
        high, low = keys[i, 0], keys[i, 1]
        if high == 0 and low == 0:
            high = np.uint64(1)
        slot = low & last
        while True:
            a, b = table[slot, 0], table[slot, 1]
            if a == 0 and b == 0:
                break
            if a == high and b == low:
                found[i] = True
                break
            slot = (slot + np.uint64(1)) & last
