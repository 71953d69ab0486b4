"""Which versions of events count, found batch by batch: `frames.history` in bounded memory.

Nearly every key comes once. A filter of two bits a key (Bloom 1970, 16 bits of room for each) names the few that may
have come before; of these the system columns are gathered and `history` decides, and every other event stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.features.accumulator import Flags, Words
from flyball.features.compiled import compiled
from flyball.features.frames import CURRENT, history, words

_ROOM = 16  # bits of the filter for each key
_FIRST = 1 << 20  # keys that the first filter has room for
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_OTHER = np.uint64(0xC2B2AE3D27D4EB4F)
_SYSTEM = ("_key", "_lsn", "_known_at", "_event_time", "_deleted")


@compiled
def _look(bits: Words, keys: Words, seen: Flags, put: bool) -> None:
    """Mark the keys whose two bits are set, and set them where `put`."""
    mask = np.uint64(bits.shape[0] * 64 - 1)
    for i in range(keys.shape[0]):
        key = np.uint64(keys[i])
        a, b = (key * _GOLDEN >> np.uint64(20)) & mask, (key * _OTHER >> np.uint64(20)) & mask
        x, y = np.int64(a >> np.uint64(6)), np.int64(b >> np.uint64(6))
        one, other = np.int64(1) << np.int64(a & np.uint64(63)), np.int64(1) << np.int64(b & np.uint64(63))
        if bits[x] & one and bits[y] & other:
            seen[i] = True
        if put:
            bits[x] |= one
            bits[y] |= other


class _Filter:
    """Keys that may have come before; grows by filters of twice the room."""

    def __init__(self) -> None:
        self._filters = [np.zeros(_FIRST * _ROOM // 64, np.int64)]
        self._left = _FIRST

    def add(self, keys: Words) -> Flags:
        seen = np.zeros(len(keys), np.bool_)
        done = 0
        while done < len(keys):
            if self._left == 0:
                self._filters.append(np.zeros(2 * len(self._filters[-1]), np.int64))
                self._left = len(self._filters[-1]) * 64 // _ROOM
            some = slice(done, done + self._left)
            for bits in self._filters[:-1]:
                _look(bits, keys[some], seen[some], False)
            _look(self._filters[-1], keys[some], seen[some], True)
            self._left -= len(keys[some])
            done += len(keys[some])
        return seen


def versions(
    batches: Callable[[], Iterable[pl.DataFrame]], source: SourceSpec, *, known_by: int | None = None
) -> Iterator[pl.DataFrame]:
    """What `history` gives of all batches together, batch by batch, in LSN order.

    Args:
        batches: gives the same batches each time: physical frames in LSN order.
        known_by: with it, of the events that were known then. A later version or duplicate does not count; but where a
            source takes no corrections the first LSN of a key does, and is left out where it was not known.
    """
    repeated = _repeated(batches)
    decided = _decide(batches, source, repeated, known_by)
    for batch in batches():
        if known_by is not None:
            batch = batch.filter(pl.col("_known_at") <= known_by)
        if source.corrections:
            batch = batch.filter(~pl.col("_deleted").fill_null(False)).drop("_deleted")
        if decided is None:
            yield batch.with_columns(pl.lit(CURRENT, pl.Int64).alias("_until"))
            continue
        often = _among(_prefixes(batch), repeated)
        joined = batch.join(decided, on="_lsn", how="left", maintain_order="left")
        joined = joined.filter(pl.col("_until").is_not_null() | ~pl.Series(often))
        yield joined.with_columns(pl.col("_until").fill_null(CURRENT))


def _repeated(batches: Callable[[], Iterable[pl.DataFrame]]) -> Words:
    """What keys that come more than once, and few others, end with; sorted."""
    found, once = [], _Filter()
    for batch in batches():
        keys = _prefixes(batch)
        found.append(np.unique(keys[once.add(keys)]))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def _decide(
    batches: Callable[[], Iterable[pl.DataFrame]], source: SourceSpec, repeated: Words, known_by: int | None
) -> pl.DataFrame | None:
    """`_lsn` and `_until` of the events with these keys that count; None: there are no such keys."""
    if not len(repeated):
        return None
    parts = []
    for batch in batches():
        if known_by is not None and source.corrections:
            batch = batch.filter(pl.col("_known_at") <= known_by)
        some = batch.filter(pl.Series(_among(_prefixes(batch), repeated)))
        parts.append(some.select(name for name in some.columns if name in _SYSTEM))
    return history(pl.concat(parts), source).select("_lsn", "_until")


def _prefixes(batch: pl.DataFrame) -> Words:
    """The last eight bytes of each key: keys are digests, and equal ones end alike."""
    ends = batch.select(pl.col("_key").bin.tail(8).bin.reinterpret(dtype=pl.Int64, endianness="little").alias("key"))
    return words(ends, "key")


def _among(keys: Words, some: Words) -> Flags:
    at = np.minimum(np.searchsorted(some, keys), max(len(some) - 1, 0))
    found: Flags = some[at] == keys if len(some) else np.zeros(len(keys), np.bool_)
    return found
