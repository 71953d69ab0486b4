"""Sums, means and deviations of floats over windows, from a tree of compensated sums and of means and M2.

A. Neumaier 1974, and Chan, Golub and LeVeque 1979, as in `accumulator`: never a difference of prefix sums. The tree is
each entity's own, so that its answers do not depend on which other entities are computed beside it.
"""

from __future__ import annotations

import numpy as np

from flyball.features.accumulator import Flags, Floats, Words
from flyball.features.compiled import compiled
from flyball.features.trees import BITS, MASK, see, shape
from flyball.features.visibility import Changes, Indices

_N, _SUM, _REST, _MEAN, _M2 = 0, 1, 2, 3, 4


@compiled
def _add(m: Floats, y: float) -> None:
    s = m[_SUM]
    total = s + y
    m[_REST] += (s - total) + y if abs(s) >= abs(y) else (y - total) + s
    m[_SUM] = total
    m[_N] += 1.0
    d = y - m[_MEAN]
    m[_MEAN] += d / m[_N]
    m[_M2] += d * (y - m[_MEAN])


@compiled
def _merge(m: Floats, other: Floats) -> None:
    if other[_N] == 0.0:
        return
    s, y = m[_SUM], other[_SUM]
    total = s + y
    m[_REST] += ((s - total) + y if abs(s) >= abs(y) else (y - total) + s) + other[_REST]
    m[_SUM] = total
    n = m[_N] + other[_N]
    d, share = other[_MEAN] - m[_MEAN], other[_N] / n
    m[_MEAN] += d * share
    m[_M2] += other[_M2] + d * d * (m[_N] * share)
    m[_N] = n


@compiled
def _grow(y: Floats, live: Flags, nodes: Floats, level: Words, e0: int, e1: int, k: int, i: int) -> None:
    """Compute the `i`-th node of level `k` from its children."""
    m = nodes[level[k] + i]
    m[:] = 0.0
    if k == 0:
        for e in range(e0 + (i << BITS), min(e0 + ((i + 1) << BITS), e1)):
            if live[e]:
                _add(m, y[e])
    else:
        below = level[k] - level[k - 1]
        for child in range(i << BITS, min((i + 1) << BITS, below)):
            _merge(m, nodes[level[k - 1] + child])


@compiled
def _gather(y: Floats, live: Flags, nodes: Floats, level: Words, e0: int, i: int, j: int, m: Floats) -> None:
    """Add the leaves `i` to `j` (from the entity's first) to `m`."""
    while i < j and i & MASK:
        if live[e0 + i]:
            _add(m, y[e0 + i])
        i += 1
    while i < j and j & MASK:
        j -= 1
        if live[e0 + j]:
            _add(m, y[e0 + j])
    k = 0
    while i < j:
        i, j = i >> BITS, j >> BITS
        while i < j and i & MASK:
            _merge(m, nodes[level[k] + i])
            i += 1
        while i < j and j & MASK:
            j -= 1
            _merge(m, nodes[level[k] + j])
        k += 1


@compiled
def run_moments(
    y: Floats,
    p: Flags,
    event_at: Words,
    row_at: Words,
    start: Indices,
    stop: Indices,
    c: Changes,
    acc: Words,
    facc: Floats,
) -> None:
    """Count, sum, mean and M2 of one group in the windows of `start`, the shortest first."""
    live, m = see(p, y.shape[0], c), np.zeros(5)
    most = 1
    for k in range(event_at.shape[0] - 1):
        most = max(most, event_at[k + 1] - event_at[k])
    nodes = np.zeros((most // MASK + 20, 5))
    for entity in range(row_at.shape[0] - 1):
        e0, e1 = event_at[entity], event_at[entity + 1]
        if row_at[entity] == row_at[entity + 1]:
            continue
        level = shape(e1 - e0)
        for k in range(level.shape[0] - 1):
            for i in range(level[k + 1] - level[k]):
                _grow(y, live, nodes, level, e0, e1, k, i)
        for r in range(row_at[entity], row_at[entity + 1]):
            if c.entity[entity]:
                for which in range(2):
                    e = c.disappears[r] if which else c.appears[r]
                    while e >= 0:
                        live[e] = which == 0 and (p.shape[0] == 0 or p[e])
                        for k in range(level.shape[0] - 1):
                            _grow(y, live, nodes, level, e0, e1, k, (e - e0) >> (BITS * (k + 1)))
                        e = c.next_disappears[e] if which else c.next_appears[e]
            done = stop[r]
            m[:] = 0.0
            for w in range(start.shape[0]):
                if start[w, r] > done:  # windows whose hops differ much need not lie in each other
                    done = stop[r]
                    m[:] = 0.0
                _gather(y, live, nodes, level, e0, start[w, r] - e0, done - e0, m)
                done = start[w, r]
                acc[w, r, 0] = np.int64(m[_N])
                for k in range(1, 5):
                    facc[w, r, k] = m[k]
