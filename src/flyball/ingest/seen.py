"""Which events of a batch, or of a whole load, come for the first time: a set of 128-bit keys in bounded memory."""

from __future__ import annotations

import numpy as np

from flyball.ingest.compiled import Flags, Words, contained, held_already, insert_all, note_each, take_new

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
    """Keys that came before, the newest `limit` of them at least (at most 2^23): 27 to 43 bytes each, at most twice."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._newer, self._older = _Generation(limit), _Generation(0)

    def take(self, keys: Words) -> Flags:
        """Which of these keys came before, each other among them; remember them all, and forget the oldest."""
        if self._newer.count + len(keys) > self._limit:
            self._older, self._newer = self._newer, _Generation(max(self._limit, len(keys)))
        found = self._newer.take(keys)
        self._older.holds(keys, found)
        return found


class _Generation:
    """A set of keys, in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._keys: Words = np.empty((limit, 2), np.uint64)  # pages of it are there when they are written
        self._slots: Words = np.zeros(_SMALLEST, np.uint64)

    def take(self, keys: Words) -> Flags:
        """Which of the keys are known; remember the others."""
        if 4 * (self.count + len(keys)) > 3 * len(self._slots):
            self._slots = np.zeros(1 << (2 * (self.count + len(keys)) - 1).bit_length(), np.uint64)
            there = self._keys[: self.count]
            take_new(self._slots, self._keys, 0, there, np.empty(self.count, np.bool_))
        found: Flags = np.empty(len(keys), np.bool_)
        self.count = take_new(self._slots, self._keys, self.count, keys, found)
        return found

    def holds(self, keys: Words, found: Flags) -> None:
        """Set `found` where a key is known."""
        if self.count:
            held_already(self._slots, self._keys, keys, found)


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
