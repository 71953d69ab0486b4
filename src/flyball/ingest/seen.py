"""Which events of a batch, or of a whole load, come for the first time: a set of 128-bit keys in bounded memory."""

from __future__ import annotations

import numpy as np

from flyball.ingest.compiled import Flags, Words, contained, insert_all, note_all, noted

_SMALLEST = 1 << 8  # slots


def first_of(keys: Words) -> Flags:
    """Which rows of one batch are the first with their key (n × 2 words)."""
    first: Flags = np.empty(len(keys), np.bool_)
    insert_all(_table(len(keys)), keys, first)
    return first


class Seen:
    """Keys that were given out before, the newest `limit` of them at least (about 18 to 40 bytes each)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._newer, self._older = _Generation(), _Generation()

    def holds(self, keys: Words) -> Flags:
        """Which of these keys are known."""
        return self._newer.holds(keys) | self._older.holds(keys)

    def add(self, keys: Words) -> None:
        """Remember keys; where there are more than the limit, forget the oldest."""
        if self._newer.count + len(keys) > self._limit:
            self._older, self._newer = self._newer, _Generation()
        self._newer.add(keys)


class _Generation:
    """Keys as they came, and a filter that says of nearly every other key, with one look, that it is not there."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[Words] = []
        self._filter: Words = np.zeros(_SMALLEST, np.uint64)

    def holds(self, keys: Words) -> Flags:
        found: Flags = np.zeros(len(keys), np.bool_)
        if self.count:
            noted(self._filter, keys, found)
        if found.any():
            places = np.flatnonzero(found)
            found[places] = self._among(keys[places])
        return found

    def _among(self, few: Words) -> Flags:
        """Which of a few keys are there, by one pass over all that are."""
        asked, there = _table(len(few)), [np.empty((0, 2), np.uint64)]
        insert_all(asked, few, np.empty(len(few), np.bool_))
        for part in self._parts:
            met: Flags = np.zeros(len(part), np.bool_)
            contained(asked, part, met)
            there.append(part[met])
        held = np.concatenate(there)
        known, found = _table(len(held)), np.zeros(len(few), np.bool_)
        insert_all(known, held, np.empty(len(held), np.bool_))
        contained(known, few, found)
        return found

    def add(self, keys: Words) -> None:
        self._parts.append(keys)
        self.count += len(keys)
        if 4 * len(self._filter) >= self.count:  # at most four keys a word
            note_all(self._filter, keys)
            return
        self._filter = np.zeros(1 << (self.count - 1).bit_length(), np.uint64)
        for part in self._parts:
            note_all(self._filter, part)


def _table(keys: int) -> Words:
    """An empty table for so many keys, at most half full."""
    return np.zeros((max(_SMALLEST, 1 << (2 * keys - 1).bit_length() if keys else 0), 2), np.uint64)
