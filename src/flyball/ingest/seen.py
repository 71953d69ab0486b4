"""Which events of a batch, or of a whole load, come for the first time: a set of 128-bit keys in bounded memory."""

from __future__ import annotations

import numpy as np

from flyball.ingest.compiled import Flags, Places, Words
from flyball.ingest.keysets import contained, insert_all, known_marks, note_each, take_new

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
    """Keys that came before: the newest `limit` of them (up to 2^23), and at most as many older ones.

    In memory: 27 to 48 bytes a key.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._newer, self._older = _Generation(), _Generation()

    def take(self, keys: Words) -> Flags:
        """Which of these keys came before, each other among them; remember them all, and forget the oldest."""
        if self._newer.count + len(keys) > self._limit:
            self._older, self._newer = self._newer, _Generation()
        return self._newer.take(keys) | self._older.holds(keys)


class _Generation:
    """Keys as they came, and where each lies by a part of it."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[Words] = []
        self._starts: list[int] = []  # the place of the first key of each part
        self._slots: Words = np.zeros(_SMALLEST, np.uint64)
        self._odd: set[bytes] = set()  # keys that another one kept out of the slots, since its mark is the same

    def take(self, keys: Words) -> Flags:
        """Which of the keys are known; remember the others."""
        start, self.count = self.count, self.count + len(keys)
        if 4 * self.count > 3 * len(self._slots):
            self._slots = np.zeros(1 << (2 * self.count - 1).bit_length(), np.uint64)
            for first, part in zip(self._starts, self._parts, strict=True):
                self._put(first, part)
        self._parts.append(keys)
        self._starts.append(start)
        return self._put(start, keys)

    def _put(self, start: int, keys: Words) -> Flags:
        like: Places = np.empty(len(keys), np.int64)
        take_new(self._slots, start, keys, like)
        found = self._equal(keys, like)
        for i in np.flatnonzero((like >= 0) & ~found).tolist():
            key = keys[i].tobytes()
            found[i] = key in self._odd
            self._odd.add(key)
        return found

    def holds(self, keys: Words) -> Flags:
        """Which of the keys are known."""
        like: Places = np.full(len(keys), -1, np.int64)
        if self.count:
            known_marks(self._slots, keys, like)
        found = self._equal(keys, like)
        if self._odd:
            found |= [key.tobytes() in self._odd for key in keys]
        return found

    def _equal(self, keys: Words, like: Places) -> Flags:
        """Which keys are the same as the one at their place; -1: there is none."""
        found: Flags = np.zeros(len(keys), np.bool_)
        asked = np.flatnonzero(like >= 0)
        which = np.searchsorted(self._starts, like[asked], "right") - 1 if len(asked) else asked
        for part in np.unique(which).tolist():
            rows = asked[which == part]
            there = self._parts[part].take(like[rows] - self._starts[part], axis=0)
            found[rows] = (there == keys[rows]).all(axis=1)
        return found


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
