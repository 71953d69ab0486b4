"""What cannot be taken away again exactly: trees over events.

A leaf is an event, a node covers `FAN` of what is below it; a window is a few leaves and nodes. When an event appears
or disappears its leaf changes, and the nodes above it are computed again from their children, so an answer depends
only on what is visible, not on the order in which it became so. There are three trees:

* of largest keys, for minimum and maximum: floats as integers of the same order, minima as their complements;
* of counts, to find the first, last or n-th last event;
* of moments, for sums, means and deviations of floats: see `moments`.

Kernels take what those of `running` take. The nodes of all levels stand in one array, `level[k]` is where the k-th
level begins, and `level[-1]` the end.
"""

from __future__ import annotations

import numpy as np

from flyball.features.accumulator import Flags, Words
from flyball.features.compiled import compiled
from flyball.features.visibility import Changes, Indices

FAN = 16
BITS = 4
MASK = FAN - 1
_NOTHING = -(1 << 63)


@compiled
def shape(n: int) -> Words:
    """Where the levels above `n` leaves begin."""
    level, at, found = np.zeros(20, np.int64), 0, 0
    while n > 1:
        n = (n + MASK) >> BITS
        at += n
        found += 1
        level[found] = at
    return level[: found + 1].copy()


@compiled
def see(p: Flags, n: int, c: Changes) -> Flags:
    """The leaves that are there from the first row after them on: what is present and not late."""
    live = np.ones(n, np.bool_)
    for e in range(n):
        if (p.shape[0] > 0 and not p[e]) or (c.late.shape[0] > 0 and c.late[e]):
            live[e] = False
    return live


# --- largest keys


@compiled
def _ordered(x: int, is_float: bool) -> int:
    """The bits of a float as an integer of the same order, and back."""
    return x ^ ((x >> 63) & 0x7FFFFFFFFFFFFFFF) if is_float else x


@compiled
def _largest_child(below: Words, at: int, i: int, n: int) -> int:
    best = _NOTHING
    for child in range(at + (i << BITS), at + min((i + 1) << BITS, n)):
        best = max(best, below[child])
    return best


@compiled
def _set_key(keys: Words, nodes: Words, level: Words, e: int, key: int) -> None:
    keys[e] = key
    n, i = keys.shape[0], e >> BITS
    if level.shape[0] > 1:
        nodes[i] = _largest_child(keys, 0, i, n)
    for k in range(1, level.shape[0] - 1):
        n, i = level[k] - level[k - 1], i >> BITS
        nodes[level[k] + i] = _largest_child(nodes, level[k - 1], i, n)


@compiled
def _largest(keys: Words, nodes: Words, level: Words, i: int, j: int) -> int:
    best, k = _NOTHING, 0
    while i < j and i & MASK:
        best = max(best, keys[i])
        i += 1
    while i < j and j & MASK:
        j -= 1
        best = max(best, keys[j])
    while i < j:
        i, j = i >> BITS, j >> BITS
        at = level[k]
        while i < j and i & MASK:
            best = max(best, nodes[at + i])
            i += 1
        while i < j and j & MASK:
            j -= 1
            best = max(best, nodes[at + j])
        k += 1
    return best


@compiled
def run_extreme(
    v: Words,
    p: Flags,
    start: Indices,
    stop: Indices,
    c: Changes,
    is_float: bool,
    flip: int,
    acc: Words,
) -> None:
    """The maxima (`flip` 0) or minima (-1) of one group in the windows of `start`."""
    n = v.shape[0]
    live, level = see(p, n, c), shape(n)
    keys, nodes = np.empty(n, np.int64), np.empty(level[-1], np.int64)
    for e in range(n):
        keys[e] = _ordered(v[e], is_float) ^ flip if live[e] else _NOTHING
    for i in range(level[1] if level.shape[0] > 1 else 0):
        nodes[i] = _largest_child(keys, 0, i, n)
    for k in range(1, level.shape[0] - 1):
        for i in range(level[k + 1] - level[k]):
            nodes[level[k] + i] = _largest_child(nodes, level[k - 1], i, level[k] - level[k - 1])
    for r in range(stop.shape[0]):
        if c.appears.shape[0] > 0:
            e = c.appears[r]
            while e >= 0:
                if p.shape[0] == 0 or p[e]:
                    live[e] = True
                    _set_key(keys, nodes, level, e, _ordered(v[e], is_float) ^ flip)
                e = c.next_appears[e]
            e = c.disappears[r]
            while e >= 0:
                live[e] = False
                _set_key(keys, nodes, level, e, _NOTHING)
                e = c.next_disappears[e]
        for w in range(start.shape[0]):
            best = _largest(keys, nodes, level, start[w, r], stop[r])
            there = best != _NOTHING
            if not there:  # nothing, or the least key that there is
                for e in range(start[w, r], stop[r]):
                    there = there or live[e]
            acc[w, r, 0] = there
            acc[w, r, 5] = acc[w, r, 6] = _ordered(best ^ flip, is_float)


# --- counts


@compiled
def _set_live(live: Flags, nodes: Indices, level: Words, e: int, now: bool) -> None:
    by = np.int32(now) - np.int32(live[e])
    live[e] = now
    for k in range(level.shape[0] - 1):
        e >>= BITS
        nodes[level[k] + e] += by


@compiled
def _back(live: Flags, nodes: Indices, level: Words, i: int, j: int, nth: int) -> int:
    """The `nth` leaf from the right within `i` to `j`; -1: there is none."""
    while j > i:
        passed, by, bits = 0, 0, BITS
        for k in range(level.shape[0] - 1):
            size = 1 << bits
            if j & (size - 1) or j - size < i or nodes[level[k] + (j >> bits) - 1] >= nth:
                break
            passed, by = size, nodes[level[k] + (j >> bits) - 1]
            bits += BITS
        if passed:
            j, nth = j - passed, nth - by
            continue
        j -= 1
        nth -= live[j]
        if nth == 0:
            return j
    return -1


@compiled
def _forth(live: Flags, nodes: Indices, level: Words, i: int, j: int) -> int:
    """The first leaf within `i` to `j`; -1: there is none."""
    while i < j:
        passed, bits = 0, BITS
        for k in range(level.shape[0] - 1):
            size = 1 << bits
            if i & (size - 1) or i + size > j or nodes[level[k] + (i >> bits)] > 0:
                break
            passed = size
            bits += BITS
        if passed:
            i += passed
            continue
        if live[i]:
            return i
        i += 1
    return -1


@compiled
def find(p: Flags, n: int, start: Indices, stop: Indices, c: Changes, nth: Words, found: Indices) -> None:
    """Per window and row the event that is the `nth[w]` last (0: the first) of what is visible; -1: there is none."""
    live, level = see(p, n, c), shape(n)
    nodes = np.zeros(level[-1], np.int32)
    for e in range(n):
        if live[e]:
            i = e
            for k in range(level.shape[0] - 1):
                i >>= BITS
                nodes[level[k] + i] += 1
    for r in range(stop.shape[0]):
        if c.appears.shape[0] > 0:
            e = c.appears[r]
            while e >= 0:
                if p.shape[0] == 0 or p[e]:
                    _set_live(live, nodes, level, e, True)
                e = c.next_appears[e]
            e = c.disappears[r]
            while e >= 0:
                _set_live(live, nodes, level, e, False)
                e = c.next_disappears[e]
        for w in range(start.shape[0]):
            if nth[w] > 0:
                found[w, r] = _back(live, nodes, level, start[w, r], stop[r], nth[w])
            else:
                found[w, r] = _forth(live, nodes, level, start[w, r], stop[r])
