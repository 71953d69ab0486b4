"""A blocked Bloom filter over 128-bit keys, and the search in sorted ones.

Each key sets `PROBES` bits in one block of 512, so that a look costs one miss of the cache. With 16 bits a key about
one look in a thousand says "perhaps" of a key that is not there. Source: Putze, Sanders, Singler, "Cache-, Hash- and
Space-Efficient Bloom Filters" (2007).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from flyball.features.compiled import compiled

Keys = np.ndarray[Any, np.dtype[np.uint64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

BITS_PER_KEY = 16
PROBES = 7
_BLOCK = 8  # words
_FEW = 4_096  # keys that NumPy sorts as soon


def empty_filter(keys: int) -> Keys:
    """A filter with room for so many keys."""
    return np.zeros(_BLOCK * max(1, -(-keys * BITS_PER_KEY // 512)), np.uint64)


@compiled
def fill(words: Keys, keys: Keys) -> None:
    """Put keys (n × 2) into a filter."""
    blocks = np.uint64(len(words) // _BLOCK)
    for i in range(len(keys)):
        high, low = keys[i, 0], keys[i, 1]
        at = (((low >> np.uint64(32)) * blocks) >> np.uint64(32)) * np.uint64(_BLOCK)
        for _ in range(PROBES):
            words[at + ((high >> np.uint64(6)) & np.uint64(7))] |= np.uint64(1) << (high & np.uint64(63))
            high >>= np.uint64(9)


@compiled
def may_hold(words: Keys, keys: Keys, out: Mask) -> int:
    """Which of the keys the filter may have; how many."""
    blocks = np.uint64(len(words) // _BLOCK)
    count = 0
    for i in range(len(keys)):
        high, low = keys[i, 0], keys[i, 1]
        at = (((low >> np.uint64(32)) * blocks) >> np.uint64(32)) * np.uint64(_BLOCK)
        there = True
        for _ in range(PROBES):
            if not (words[at + ((high >> np.uint64(6)) & np.uint64(7))] >> (high & np.uint64(63))) & np.uint64(1):
                there = False
                break
            high >>= np.uint64(9)
        out[i] = there
        count += there
    return count


@compiled
def members(ascending: Keys, keys: Keys, out: Mask) -> None:
    """Set `out` where a key is among `ascending` (m × 2, in the order of the first word)."""
    n = len(ascending)
    for i in range(len(keys)):
        high, low = keys[i, 0], keys[i, 1]
        a, b = 0, n
        while a < b:
            middle = (a + b) >> 1
            if ascending[middle, 0] < high:
                a = middle + 1
            else:
                b = middle
        while a < n and ascending[a, 0] == high:
            if ascending[a, 1] == low:
                out[i] = True
                break
            a += 1


@compiled
def repeated(keys: Keys, order: np.ndarray[Any, Any], out: Mask) -> None:
    """Set `out` where a key came before; `order` sorts the keys by their first word."""
    n = len(order)
    start = 0
    while start < n:
        end = start + 1
        while end < n and keys[order[end], 0] == keys[order[start], 0]:
            end += 1
        for x in range(start, end):
            for y in range(start, end):
                if order[y] < order[x] and keys[order[y], 1] == keys[order[x], 1]:
                    out[order[x]] = True
                    break
        start = end


def ascending_order(keys: Keys) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The places of keys (n × 2) in the order of their first words."""
    order: np.ndarray[Any, np.dtype[np.intp]] = np.empty(len(keys), np.intp)
    if len(keys) < _FEW or not radix_order(keys, order):
        order = np.argsort(np.ascontiguousarray(keys[:, 0]))
    return order


@compiled
def radix_order(keys: Keys, order: np.ndarray[Any, Any]) -> bool:
    """`order` sorts keys by their first words: by the upper 33 bits, 11 at a time, then what is left by insertion.

    False, and nothing of use in `order`, where so much is left that the words are not as random as hashes are.
    """
    n, digit = len(keys), np.uint64(2047)
    a, b = np.empty(n, np.uint64), np.empty(n, np.uint64)
    there = np.empty(n, np.intp)
    counts = np.zeros((3, 2048), np.int64)
    for i in range(n):
        word = keys[i, 0]
        a[i], there[i] = word, i
        counts[0, (word >> np.uint64(31)) & digit] += 1
        counts[1, (word >> np.uint64(42)) & digit] += 1
        counts[2, word >> np.uint64(53)] += 1
    for step in range(3):
        start = 0
        for d in range(2048):
            start, counts[step, d] = start + counts[step, d], start
        shift = np.uint64(31 + 11 * step)
        for i in range(n):
            word = a[i]
            d = (word >> shift) & digit
            to = counts[step, d]
            counts[step, d] = to + 1
            b[to], order[to] = word, there[i]
        a, b = b, a
        if step < 2:
            there[:] = order
    moves = 0
    for i in range(1, n):
        word, place, j = a[i], order[i], i
        while j > 0 and a[j - 1] > word:
            a[j], order[j] = a[j - 1], order[j - 1]
            j -= 1
            moves += 1
        a[j], order[j] = word, place
        if moves > 4 * n:
            return False
    return True


@compiled
def taken(keys: Keys, order: np.ndarray[Any, Any], out: Keys) -> None:
    """The keys in an order."""
    for i in range(len(order)):
        out[i, 0], out[i, 1] = keys[order[i], 0], keys[order[i], 1]


@cache
def warm() -> None:
    """Compile, or load what was compiled: once in a process, before anyone waits."""
    keys, flags = np.ones((1, 2), np.uint64), np.zeros(1, np.bool_)
    words = empty_filter(1)
    fill(words, keys)
    may_hold(np.frombuffer(words.tobytes(), np.uint64), keys, flags)
    may_hold(words, keys, flags)
    repeated(keys, np.argsort(keys[:, 0]), flags)
    for given in (keys, np.frombuffer(keys.tobytes(), np.uint64).reshape(-1, 2)):
        radix_order(given, np.zeros(1, np.intp))
        taken(given, np.zeros(1, np.intp), np.empty((1, 2), np.uint64))
    for ascending in (keys, np.frombuffer(keys.tobytes(), np.uint64).reshape(-1, 2)):
        members(ascending, keys, flags)
        members(ascending, np.frombuffer(keys.tobytes(), np.uint64).reshape(-1, 2), flags)
        repeated(ascending, np.argsort(keys[:, 0]), flags)
        fill(words, ascending)
