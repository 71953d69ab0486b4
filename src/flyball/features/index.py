"""The first LSN of each event key, so that an event counts once however often it is sent."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.features.frames import words
from flyball.features.ports import ReadTransaction, WriteTransaction
from flyball.features.states import age_space, key_space, ordered, unordered
from flyball.kernel.times import DAY, HOUR

GRACE = 7 * DAY  # beyond a source's lateness, how long a key is kept
_SWEEP_EVERY = HOUR
_SWEEP_LIMIT = 20_000  # keys forgotten in one transaction


class KeyIndex:
    """Keys of one source. A key is kept for the source's lateness and 7 days after its event time or its coming,
    whichever is later; an event older than that is refused as too late before it gets here."""

    def __init__(self, source: str) -> None:
        self._keys = key_space(source)
        self._ages = age_space(source)
        self._swept = -(1 << 62)

    def add(
        self, transaction: WriteTransaction, frame: pl.DataFrame, *, now: int, horizon: int
    ) -> npt.NDArray[np.bool_]:
        """Remember the keys of new events in LSN order; which of them were the first with their key."""
        keys, lsns = frame["_key"].to_list(), words(frame, "_lsn").tolist()
        ages = np.maximum(words(frame, "_event_time"), now).tolist()
        known = transaction.get_many(self._keys, keys)
        first = np.zeros(len(keys), np.bool_)
        batch: set[bytes] = set()
        for i, key in enumerate(keys):
            if known[i] is None and key not in batch:
                first[i] = True
                batch.add(key)
                transaction.put(self._keys, key, struct.pack("<q", lsns[i]))
                transaction.put(self._ages, ordered(ages[i]) + key, b"")
        self._forget(transaction, now=now, horizon=horizon)
        return first

    def is_first(
        self, transaction: ReadTransaction, keys: Sequence[bytes], lsns: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        found = transaction.get_many(self._keys, keys)
        firsts = np.array([-1 if v is None else struct.unpack("<q", v)[0] for v in found], np.int64)
        first: npt.NDArray[np.bool_] = (firsts < 0) | (firsts == lsns)
        return first

    def _forget(self, transaction: WriteTransaction, *, now: int, horizon: int) -> None:
        if now - self._swept < _SWEEP_EVERY:
            return
        expired: list[bytes] = []
        for entry, _ in transaction.items(self._ages):
            if unordered(entry, 1)[0] >= now - horizon - GRACE or len(expired) == _SWEEP_LIMIT:
                break
            expired.append(entry)
        for entry in expired:
            transaction.delete(self._ages, entry)
            transaction.delete(self._keys, entry[8:])
        if len(expired) < _SWEEP_LIMIT:
            self._swept = now
