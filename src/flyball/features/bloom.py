"""A blocked Bloom filter over 128-bit keys, and the search in sorted ones.

Each key sets `PROBES` bits in one block of 512, so that a look costs one miss of the cache. With 16 bits a key about
one look in a thousand says "perhaps" of a key that is not there. Source: Putze, Sanders, Singler, "Cache-, Hash- and
Space-Efficient Bloom Filters" (2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from flyball.features.compiled import compiled, inlined

Keys = np.ndarray[Any, np.dtype[np.uint64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Places = np.ndarray[Any, np.dtype[np.intp]]

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
def repeated(keys: Keys, order: Places, firsts: Keys, out: Mask) -> None:
    """Set `out` where a key came before; `order` sorts the keys by their first words, which are `firsts` then."""
    n = len(order)
    start = 0
    while start < n:
        end = start + 1
        while end < n and firsts[end] == firsts[start]:
            end += 1
        for x in range(start, end):
            for y in range(start, end):
                if order[y] < order[x] and keys[order[y], 1] == keys[order[x], 1]:
                    out[order[x]] = True
                    break
        start = end


def ascending_order(keys: Keys) -> tuple[Places, Keys]:
    """The places of keys (n × 2) in the order of their first words, and these words in order."""
    order: Places = np.empty(len(keys), np.intp)
    firsts: Keys = np.empty(len(keys), np.uint64)
    if len(keys) < _FEW or not radix_order(keys, order, firsts):
        order = np.argsort(np.ascontiguousarray(keys[:, 0]))
        firsts = keys[order, 0]
    return order, firsts


@compiled
def radix_order(keys: Keys, order: Places, firsts: Keys) -> bool:
    """`order` sorts keys by their first words, which are `firsts` then: by the upper 32 bits, 8 at a time, so that all
    that is written to stays in the nearest cache; then what is left by insertion.

    False, and nothing of use in `order`, where so much is left that the words are not as random as hashes are.
    """
    n, digit = len(keys), np.uint64(255)
    words, places = np.empty(n, np.uint64), np.empty(n, np.intp)
    counts = np.zeros((4, 256), np.int64)
    for i in range(n):
        word = keys[i, 0]
        firsts[i], order[i] = word, i
        for step in range(4):
            counts[step, (word >> np.uint64(32 + 8 * step)) & digit] += 1
    for step in range(4):
        start = 0
        for d in range(256):
            start, counts[step, d] = start + counts[step, d], start
    _scatter(firsts, order, words, places, counts[0], np.uint64(32))
    _scatter(words, places, firsts, order, counts[1], np.uint64(40))
    _scatter(firsts, order, words, places, counts[2], np.uint64(48))
    _scatter(words, places, firsts, order, counts[3], np.uint64(56))
    moves = 0
    for i in range(1, n):
        word, place, j = firsts[i], order[i], i
        while j > 0 and firsts[j - 1] > word:
            firsts[j], order[j] = firsts[j - 1], order[j - 1]
            j -= 1
            moves += 1
        firsts[j], order[j] = word, place
        if moves > 4 * n:
            return False
    return True


@inlined
def _scatter(words: Keys, places: Places, to_words: Keys, to_places: Places, counts: Places, shift: np.uint64) -> None:
    """One step of a radix sort: by the 8 bits at `shift`; `counts`: where the words of each value go."""
    for i in range(len(words)):
        word = words[i]
        d = (word >> shift) & np.uint64(255)
        to = counts[d]
        counts[d] = to + 1
        to_words[to], to_places[to] = word, places[i]


@compiled
def merge_two(a: Keys, b: Keys, out: Keys) -> None:
    """Two lists of keys, each in the order of the first word, as one."""
    i = j = 0
    for k in range(len(out)):
        if j == len(b) or (i < len(a) and a[i, 0] <= b[j, 0]):
            out[k, 0], out[k, 1] = a[i, 0], a[i, 1]
            i += 1
        else:
            out[k, 0], out[k, 1] = b[j, 0], b[j, 1]
            j += 1


def merged(runs: Sequence[Keys]) -> Keys:
    """Lists of keys, each in the order of the first word, as one: neighbours are merged until there is one."""
    left = list(runs)
    while len(left) > 1:
        pairs = list(zip(left[::2], left[1::2], strict=False))
        rest = left[2 * len(pairs) :]
        left = [np.empty((len(a) + len(b), 2), np.uint64) for a, b in pairs]
        for (a, b), out in zip(pairs, left, strict=True):
            merge_two(a, b, out)
        left += rest
    return left[0]


@compiled
def taken(keys: Keys, order: Places, out: Keys) -> None:
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
    order, firsts = np.zeros(1, np.intp), np.ones(1, np.uint64)
    for given in (keys, np.frombuffer(keys.tobytes(), np.uint64).reshape(-1, 2)):
        radix_order(given, order, firsts)
        taken(given, order, np.empty((1, 2), np.uint64))
        repeated(given, order, firsts, flags)
        fill(words, given)
        for other in (keys, np.frombuffer(keys.tobytes(), np.uint64).reshape(-1, 2)):
            members(given, other, flags)
            merge_two(given, other, np.empty((2, 2), np.uint64))
