"""Which events of a batch, or of a whole load, come for the first time: a set of 128-bit keys in bounded memory."""

from __future__ import annotations

import numpy as np

from flyball.ingest.compiled import Flags, Words, contained, insert_all

_SMALLEST = 1 << 8  # slots


def first_of(keys: Words) -> Flags:
    """Which rows of one batch are the first with their key (n × 2 words)."""
    first: Flags = np.empty(len(keys), np.bool_)
    insert_all(_table(len(keys)), keys, first)
    return first


class Seen:
    """Keys that were given out before, the newest `limit` of them at least (16 to 64 bytes each)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._older: Words | None = None
        self._newer, self._count = _table(0), 0

    def holds(self, keys: Words) -> Flags:
        """Which of these keys are known."""
        found: Flags = np.zeros(len(keys), np.bool_)
        for table in (self._newer, self._older):
            if table is not None:
                contained(table, keys, found)
        return found

    def add(self, keys: Words) -> None:
        """Remember keys; where there are more than the limit, forget the oldest."""
        if self._count + len(keys) > self._limit:
            self._older, self._newer, self._count = self._newer, _table(len(keys)), 0
        if 2 * (self._count + len(keys)) > len(self._newer):
            grown = _table(max(2 * self._count, self._count + len(keys)))
            old = self._newer[self._newer.any(axis=1)]
            insert_all(grown, old, np.empty(len(old), np.bool_))
            self._newer = grown
        self._count += insert_all(self._newer, keys, np.empty(len(keys), np.bool_))


def _table(keys: int) -> Words:
    """An empty table for so many keys, at most half full."""
    return np.zeros((max(_SMALLEST, 1 << (2 * keys - 1).bit_length() if keys else 0), 2), np.uint64)
