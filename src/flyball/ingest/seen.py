"""Which events of a batch, or of a whole load, come for the first time: a set of 128-bit keys in bounded memory."""

from __future__ import annotations

import numpy as np

from flyball.ingest.compiled import Flags, Words, contained, insert_all, note_all, note_each, noted

_SMALLEST = 1 << 8  # slots, or words
_FEW = 1 << 12  # keys of a batch that are looked up at once


def first_of(keys: Words) -> Flags:
    """Which rows of one batch are the first with their key (n × 2 words)."""
    first: Flags = np.ones(len(keys), np.bool_)
    again: Flags = np.empty(len(keys), np.bool_)
    if len(keys) < _FEW:
        insert_all(_table(len(keys)), keys, first)
    elif note_each(_filter(len(keys)), keys, again):  # nearly all are new, and a filter is small
        asked, met = _table_of(keys[again]), np.zeros(len(keys), np.bool_)
        contained(asked, keys, met)
        few = np.flatnonzero(met)
        own: Flags = np.empty(len(few), np.bool_)
        insert_all(_table(len(few)), keys[few], own)
        first[few] = own
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
        asked, there = _table_of(few), [np.empty((0, 2), np.uint64)]
        for part in self._parts:
            met: Flags = np.zeros(len(part), np.bool_)
            contained(asked, part, met)
            there.append(part[met])
        found: Flags = np.zeros(len(few), np.bool_)
        contained(_table_of(np.concatenate(there)), few, found)
        return found

    def add(self, keys: Words) -> None:
        self._parts.append(keys)
        self.count += len(keys)
        if 4 * len(self._filter) >= self.count:  # at most four keys a word
            note_all(self._filter, keys)
            return
        self._filter = _filter(4 * self.count)
        for part in self._parts:
            note_all(self._filter, part)


def _table(keys: int) -> Words:
    """An empty table for so many keys, at most half full."""
    return np.zeros((max(_SMALLEST, 1 << (2 * keys - 1).bit_length() if keys else 0), 2), np.uint64)


def _table_of(keys: Words) -> Words:
    """A table of these keys."""
    table = _table(len(keys))
    insert_all(table, keys, np.empty(len(keys), np.bool_))
    return table


def _filter(keys: int) -> Words:
    """An empty filter for so many keys, two to four of them a word."""
    return np.zeros(max(_SMALLEST, 1 << max(0, (keys - 1).bit_length() - 2)), np.uint64)
