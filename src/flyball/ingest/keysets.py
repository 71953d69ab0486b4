"""Sets of 128-bit keys, as machine code: a table, a filter, and marks that say where a key lies. See `compiled`."""

from __future__ import annotations

from functools import cache

import numpy as np

from flyball.ingest.compiled import Flags, Places, Words, compiled

_TOGETHER = 64  # keys that are looked up together


@compiled
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


@compiled
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


@compiled
def note_each(filter: Words, keys: Words, found: Flags) -> int:
    """Put keys into a Bloom filter of 2^k words, one after the other: of each, four bits of one word. `found`: were
    they all set before, so that the key is perhaps there; else it is not. How many those are."""
    last = np.uint64(len(filter) - 1)
    six, bit = np.uint64(63), np.uint64(1)
    count = 0
    for i in range(len(keys)):
        high, word = keys[i, 0], keys[i, 1] & last
        bits = (
            (bit << (high & six))
            | (bit << ((high >> np.uint64(6)) & six))
            | (bit << ((high >> np.uint64(12)) & six))
            | (bit << ((high >> np.uint64(18)) & six))
        )
        before = filter[word]
        found[i] = before & bits == bits
        count += found[i]
        filter[word] = before | bits
    return count


@compiled
def take_new(slots: Words, first: int, keys: Words, like: Places) -> None:
    """Take keys, the place of the first of which is `first` (places are less than 2^24 - 1), into `slots`, which are
    2^k and not all in use. `like`: the place of an earlier key with the same mark, then nothing is taken; else -1.

    A slot has the mark, 40 bits of the key's first word, over the place, counted from 1. So a look is one miss of the
    cache, and two keys that differ have one mark once in 10^12 times.
    """
    last, places = np.uint64(len(slots) - 1), np.uint64((1 << 24) - 1)
    looked: Words = np.empty(_TOGETHER, np.uint64)
    for begin in range(0, len(keys), _TOGETHER):
        end = min(begin + _TOGETHER, len(keys))
        for i in range(begin, end):  # looks that do not wait for each other: their misses overlap
            looked[i - begin] = slots[keys[i, 1] & last]
        for i in range(begin, end):
            mark, slot = keys[i, 0] & ~places, keys[i, 1] & last
            there = looked[i - begin] or slots[slot]  # what was free may have been taken since
            while there and there & ~places != mark:
                slot = (slot + np.uint64(1)) & last
                there = slots[slot]
            if there:
                like[i] = np.int64(there & places) - 1
            else:
                like[i] = -1
                slots[slot] = mark | np.uint64(first + i + 1)


@compiled
def known_marks(slots: Words, keys: Words, like: Places) -> None:
    """`like` as `take_new` gives it; nothing is taken."""
    last, places = np.uint64(len(slots) - 1), np.uint64((1 << 24) - 1)
    for i in range(len(keys)):
        mark, slot = keys[i, 0] & ~places, keys[i, 1] & last
        there = slots[slot]
        while there and there & ~places != mark:
            slot = (slot + np.uint64(1)) & last
            there = slots[slot]
        like[i] = np.int64(there & places) - 1


@cache
def warm_sets() -> None:
    """Compile, or load what was compiled: once in a process, before anyone waits."""
    keys, flags, places = np.ones((1, 2), np.uint64), np.ones(1, np.bool_), np.zeros(1, np.int64)
    table = np.zeros((4, 2), np.uint64)
    insert_all(table, keys, flags)
    contained(table, keys, flags)
    note_each(table[:, 0].copy(), keys, flags)
    take_new(np.zeros(4, np.uint64), 0, keys, places)
    known_marks(np.zeros(4, np.uint64), keys, places)
