"""Accumulators of the window kernel: what a tile remembers about the values that fell into it.

A *group* is a pair (value, filter) of a view; several windows and operators share its accumulator. Per group it holds
how many values it saw and, as needed: a sum in two words (integers: high and low half, so nothing overflows; floats:
Neumaier's compensated sum), mean and M2 (Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for
computing sample variances"), minimum, maximum, and the first and last value with their (event_time, lsn).

All words are 64 bits; floats are kept as their bits, and every function gets the same memory twice, as `w` and as `f`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flyball.features.compiled import compiled

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# Columns of `Plan.groups`: is it a float, then where its words stand in the accumulator (-1: not kept).
IS_FLOAT, N, SUM, STD, MIN, MAX, FIRST, LAST = 0, 1, 2, 3, 4, 5, 6, 7
# Operators of `Plan.outs`.
OP_COUNT, OP_SUM, OP_MEAN, OP_STD, OP_MIN, OP_MAX, OP_FIRST, OP_LAST, OP_NTH_LAST, OP_DISTINCT = range(10)


class Plan(NamedTuple):
    """A compiled view, as the kernel sees it.

    Args:
        acc_words, row_words, mask_words: sizes of an accumulator, of a raw row, and of its presence bits.
        head: length of the head in microseconds.
        latest: 1 for a latest view.
        ttl: of a latest view, in microseconds; -1: none.
        raw_at: where raw rows stand in a working state.
        raw_limit: rows of a head that are kept; beyond, the older half is folded.
        words: size of a working state.
        levels: per level, coarse to fine: hop, longest window with that tail hop (0: none), tiles of room, position.
        groups: per group, see `IS_FLOAT` to `LAST`.
        windows: per window: length, level of its tail hop.
        need: per window, the groups that are read.
        outs: per feature: operator, group, window, and n of `nth_last` or the cap of `distinct`.
        divisor: per feature; 10**scale where values are integers in units of 10**-scale, else 1.
    """

    acc_words: int
    row_words: int
    mask_words: int
    head: int
    latest: int
    ttl: int
    raw_at: int
    raw_limit: int
    words: int
    levels: Words
    groups: Words
    windows: Words
    need: Flags
    outs: Words
    divisor: Floats


@compiled
def _sum_int(w: Words, at: int, high: int, low: int) -> None:
    w[at] += high
    w[at + 1] += low


@compiled
def _sum_float(f: Floats, at: int, x: float) -> None:
    s = f[at]
    total = s + x
    if abs(s) >= abs(x):
        f[at + 1] += (s - total) + x
    else:
        f[at + 1] += (x - total) + s
    f[at] = total


@compiled
def _keep(w: Words, f: Floats, at: int, x: int, y: float, is_float: int, largest: bool, empty: bool) -> None:
    """Minimum or maximum: `x` as an integer, `y` as a float."""
    if is_float:
        if empty or (y > f[at] if largest else y < f[at]):
            f[at] = y
    elif empty or (x > w[at] if largest else x < w[at]):
        w[at] = x


@compiled
def _keep_ordered(w: Words, at: int, t: int, lsn: int, x: int, latest: bool, empty: bool) -> None:
    """First or last by (event_time, lsn); values are moved as bits."""
    after = t > w[at] or (t == w[at] and lsn > w[at + 1])
    if empty or after == latest:
        w[at], w[at + 1], w[at + 2] = t, lsn, x


@compiled
def add(w: Words, f: Floats, at: int, plan: Plan, e: Words, row: int) -> None:
    """Add the raw row at `e[row]` to the accumulator at `w[at]`."""
    ef = e.view(np.float64)
    for g in range(plan.groups.shape[0]):
        if not (e[row + 2 + g // 64] >> (g % 64)) & 1:
            continue
        group = plan.groups[g]
        v = row + 2 + plan.mask_words + g
        x, y = e[v], ef[v]
        if not group[IS_FLOAT]:
            y = float(x)
        n = w[at + group[N]]
        if group[SUM] >= 0:
            if group[IS_FLOAT]:
                _sum_float(f, at + group[SUM], y)
            else:
                _sum_int(w, at + group[SUM], x >> 32, x & 0xFFFFFFFF)
        if group[STD] >= 0:
            m = at + group[STD]
            d = y - f[m]
            f[m] += d / (n + 1)
            f[m + 1] += d * (y - f[m])
        if group[MIN] >= 0:
            _keep(w, f, at + group[MIN], x, y, group[IS_FLOAT], False, n == 0)
        if group[MAX] >= 0:
            _keep(w, f, at + group[MAX], x, y, group[IS_FLOAT], True, n == 0)
        if group[FIRST] >= 0:
            _keep_ordered(w, at + group[FIRST], e[row], e[row + 1], x, False, n == 0)
        if group[LAST] >= 0:
            _keep_ordered(w, at + group[LAST], e[row], e[row + 1], x, True, n == 0)
        w[at + group[N]] = n + 1


@compiled
def merge(w: Words, f: Floats, at: int, plan: Plan, need: Flags, sw: Words, sf: Floats, s: int) -> None:
    """Merge the accumulator at `sw[s]` into the one at `w[at]`, for the groups in `need`."""
    for g in range(plan.groups.shape[0]):
        group = plan.groups[g]
        m = sw[s + group[N]]
        if not need[g] or m == 0:
            continue
        n = w[at + group[N]]
        if group[SUM] >= 0:
            a, b = at + group[SUM], s + group[SUM]
            if group[IS_FLOAT]:
                _sum_float(f, a, sf[b])
                f[a + 1] += sf[b + 1]
            else:
                _sum_int(w, a, sw[b], sw[b + 1])
        if group[STD] >= 0:
            a, b = at + group[STD], s + group[STD]
            d = sf[b] - f[a]
            f[a] += d * (m / (n + m))
            f[a + 1] += sf[b + 1] + d * d * (n * (m / (n + m)))
        if group[MIN] >= 0:
            b = s + group[MIN]
            _keep(w, f, at + group[MIN], sw[b], sf[b], group[IS_FLOAT], False, n == 0)
        if group[MAX] >= 0:
            b = s + group[MAX]
            _keep(w, f, at + group[MAX], sw[b], sf[b], group[IS_FLOAT], True, n == 0)
        if group[FIRST] >= 0:
            b = s + group[FIRST]
            _keep_ordered(w, at + group[FIRST], sw[b], sw[b + 1], sw[b + 2], False, n == 0)
        if group[LAST] >= 0:
            b = s + group[LAST]
            _keep_ordered(w, at + group[LAST], sw[b], sw[b + 1], sw[b + 2], True, n == 0)
        w[at + group[N]] = n + m


@compiled
def _total(w: Words, f: Floats, at: int, is_float: int) -> float:
    if is_float:
        total: float = f[at] + f[at + 1]
        return total
    rough: float = w[at] * 4294967296.0 + w[at + 1]
    if abs(rough) < 9.0e18:
        return float((w[at] << 32) + w[at + 1])
    return rough


@compiled
def finish(w: Words, f: Floats, at: int, group: Words, op: int, divisor: float) -> tuple[float, bool]:
    """The value of an operator, and whether it is not null. The sum of nothing is 0, its other values are null."""
    n = w[at + group[N]]
    if op == OP_COUNT:
        return float(n), True
    if op == OP_SUM:
        return (_total(w, f, at + group[SUM], group[IS_FLOAT]) / divisor if n else 0.0), True
    if n == 0 or (op == OP_STD and n < 2):
        return math.nan, False
    if op == OP_MEAN:
        return _total(w, f, at + group[SUM], group[IS_FLOAT]) / (n * divisor), True
    if op == OP_STD:
        return math.sqrt(max(f[at + group[STD] + 1], 0.0) / (n - 1)) / divisor, True
    where = (
        group[MIN] if op == OP_MIN else group[MAX] if op == OP_MAX else group[FIRST] if op == OP_FIRST else group[LAST]
    )
    if op in (OP_FIRST, OP_LAST):
        where += 2
    return (f[at + where] if group[IS_FLOAT] else w[at + where] / divisor), True
