"""Accumulators of the window kernel: what a tile remembers about the values that fell into it.

A *group* is a pair (value, filter) of a view; several windows and operators share its accumulator, which is made of
these *parts*, each kept only where an operator of the group needs it:

| part | words: whole, float | zero | update, merge | inverse | finished as |
|---|---|---|---|---|---|
| `N` | 1, 1 | 0 | add | subtract | count |
| `SUM` | 2, 2 | 0 | add (whole); Neumaier's compensated sum (float) | subtract (whole) | sum, mean |
| `STD` | 4, 2 | 0 | add squares (whole); Chan's mean and M2 (float) | subtract (whole) | std |
| `MIN`, `MAX` | 1, 1 | any, while `N` is 0 | the smaller, the greater | none | min, max |
| `FIRST` | 3, 3 | any, while `N` is 0 | the earlier by (event_time, lsn) | none | first |

An accumulator of zeros is empty. The words of whole `N`, `SUM` and `STD` are *additive*: they stand first in an
accumulator, merging adds them and taking away subtracts them, word by word. Whole sums have two words (units of 2**32
and of 1) and sums of squares four (units of 2**0, 2**32, 2**64 and 2**96), so nothing overflows and everything is exact
for any 64-bit values, as long as one accumulator holds at most 2**29 of them. Last, nth-last and distinct are no parts
of a tile: they are kept once per entity (`kernel`).

Floats: A. Neumaier 1974; Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
variances". All words are 64 bits; floats are kept as their bits, and functions get the same memory as `w` and as `f`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flyball.features.compiled import compiled, inlined

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# Columns of `Plan.groups`: is it a float, then where its parts stand in the accumulator (-1: not kept).
# `REST`: has it parts that are not additive.
IS_FLOAT, N, SUM, STD, MIN, MAX, FIRST, REST = 0, 1, 2, 3, 4, 5, 6, 7
COLUMNS = 8
# Operators of `Plan.outs`.
OP_COUNT, OP_SUM, OP_MEAN, OP_STD, OP_MIN, OP_MAX, OP_FIRST, OP_LAST, OP_NTH_LAST, OP_DISTINCT = range(10)

WIDTHS = {N: (1, 1), SUM: (2, 2), STD: (4, 2), MIN: (1, 1), MAX: (1, 1), FIRST: (3, 3)}  # words: whole, float
PARTS = {  # what each operator is finished from: whole, float
    "count": ((N,), (N,)),
    "sum": ((N, SUM), (N, SUM)),
    "mean": ((N, SUM), (N, SUM)),
    "std": ((N, SUM, STD), (N, STD)),
    "min": ((N, MIN), (N, MIN)),
    "max": ((N, MAX), (N, MAX)),
    "first": ((N, FIRST), (N, FIRST)),
}
_LOW = 0xFFFFFFFF


def is_additive(part: int, *, is_float: bool) -> bool:
    """Whether a part is merged by adding its words."""
    return part == N or (part in (SUM, STD) and not is_float)


class Plan(NamedTuple):
    """A compiled view, as the kernel sees it.

    Args:
        acc_words, row_words, mask_words: sizes of an accumulator, of a raw row, and of its presence bits.
        additive: how many of an accumulator's words are additive; they stand first.
        head: length of the head in microseconds.
        latest: 1 for a latest view.
        ttl: of a latest view, in microseconds; -1: none.
        fold_at, closed_at, fixed: in a state, where the fold and the closed row stand, and where the fixed part ends.
        raw_at: where raw rows stand in a working state.
        raw_limit: rows of a head that are kept; beyond, the older half is folded.
        words: size of a working state.
        levels: per level, coarse to fine: hop, longest window with that tail hop (0: none), tiles of room, position.
        groups: per group, see `IS_FLOAT` to `FIRST`.
        windows: per window, ascending: length, level of its tail hop.
        need: per window, the groups whose accumulators are read.
        lists: per group that nth-last asks for: the group, how many values are kept, position in the fixed part.
        maps: per group that distinct asks for: the group, how many values are kept, for how long, position.
        outs: per feature: operator, group, window, n of nth-last (1: last) or the cap of distinct, its list or map.
        divisor: per feature; 10**scale where values are integers in units of 10**-scale, else 1.
    """

    acc_words: int
    row_words: int
    mask_words: int
    additive: int
    head: int
    latest: int
    ttl: int
    fold_at: int
    closed_at: int
    fixed: int
    raw_at: int
    raw_limit: int
    words: int
    levels: Words
    groups: Words
    windows: Words
    need: Flags
    lists: Words
    maps: Words
    outs: Words
    divisor: Floats


# --- sum


@inlined
def _add_whole(w: Words, at: int, x: int) -> None:
    w[at] += x >> 32
    w[at + 1] += x & _LOW


@inlined
def _add_float(f: Floats, at: int, x: float) -> None:
    s = f[at]
    total = s + x
    if abs(s) >= abs(x):
        f[at + 1] += (s - total) + x
    else:
        f[at + 1] += (x - total) + s
    f[at] = total


@inlined
def _merge_floats(f: Floats, at: int, groups: Words, g: int, sf: Floats, s: int, stride: int, count: int) -> None:
    a, b = at + groups[g, SUM], s + groups[g, SUM]
    for i in range(count):
        _add_float(f, a, sf[b + i * stride])
        f[a + 1] += sf[b + i * stride + 1]


@compiled
def _total(w: Words, f: Floats, at: int, is_float: int) -> float:
    if is_float:
        total: float = f[at] + f[at + 1]
        return total
    rough: float = w[at] * 4294967296.0 + w[at + 1]
    if abs(rough) < 9.0e18:
        return float((w[at] << 32) + w[at + 1])
    return rough


# --- standard deviation


@inlined
def _add_square(w: Words, at: int, x: int) -> None:
    high, low = abs(x) >> 32 & _LOW, abs(x) & _LOW  # the least integer is its own abs, and right as unsigned
    least, middle, most = low * low, high * low, high * high
    w[at] += least & _LOW
    w[at + 1] += (least >> 32 & _LOW) + 2 * (middle & _LOW)
    w[at + 2] += 2 * (middle >> 32) + (most & _LOW)
    w[at + 3] += most >> 32


@inlined
def _add_deviation(f: Floats, at: int, n: int, x: float) -> None:
    d = x - f[at]
    f[at] += d / (n + 1)
    f[at + 1] += d * (x - f[at])


@inlined
def _merge_deviations(
    w: Words, f: Floats, at: int, groups: Words, g: int, sw: Words, sf: Floats, s: int, stride: int, count: int
) -> None:
    n, a, b, c = w[at + groups[g, N]], at + groups[g, STD], s + groups[g, STD], s + groups[g, N]
    for i in range(count):
        m = sw[c + i * stride]
        if m:
            d = sf[b + i * stride] - f[a]
            f[a] += d * (m / (n + m))
            f[a + 1] += sf[b + i * stride + 1] + d * d * (n * (m / (n + m)))
            n += m


@compiled
def _spread(w: Words, sums: int, squares: int, n: int) -> float:
    """n times the sum of squares, less the square of the sum: exactly, in digits of 16 bits, and rounded at the end."""
    digits = np.zeros(28, np.int64)
    high, low = w[sums] + (w[sums + 1] >> 32), w[sums + 1] & _LOW
    if high < 0:
        high, low = (-high - 1, 4294967296 - low) if low else (-high, low)
    s, q, out = digits[:6], digits[6:16], digits[16:28]
    s[0], s[1] = low & 0xFFFF, low >> 16
    for k in range(4):
        s[2 + k] = high >> (16 * k) & 0xFFFF
    carry = 0
    for k in range(4):
        carry += w[squares + k]
        q[2 * k], q[2 * k + 1] = carry & 0xFFFF, carry >> 16 & 0xFFFF
        carry >>= 32
    q[8], q[9] = carry & 0xFFFF, carry >> 16
    for k in range(10):
        out[k] += q[k] * (n & 0xFFFF)
        out[k + 1] += q[k] * (n >> 16)
    for i in range(6):
        for k in range(6):
            out[i + k] -= s[i] * s[k]
    carry = 0
    for k in range(12):
        carry += out[k]
        out[k] = carry & 0xFFFF
        carry >>= 16
    result = 0.0
    for k in range(11, -1, -1):
        result = result * 65536.0 + out[k]
    return result


@compiled
def _deviation(w: Words, f: Floats, at: int, group: Words, n: int) -> float:
    if group[IS_FLOAT]:
        return math.sqrt(max(f[at + group[STD] + 1], 0.0) / (n - 1))
    return math.sqrt(_spread(w, at + group[SUM], at + group[STD], n) / (float(n) * float(n - 1)))


# --- minimum, maximum, first


@inlined
def _keep(w: Words, f: Floats, at: int, x: int, y: float, is_float: int, largest: bool, empty: bool) -> None:
    """Minimum or maximum: `x` as an integer, `y` as a float."""
    if is_float:
        if empty or (y > f[at] if largest else y < f[at]):
            f[at] = y
    elif empty or (x > w[at] if largest else x < w[at]):
        w[at] = x


@inlined
def _keep_first(w: Words, at: int, t: int, lsn: int, x: int, empty: bool) -> None:
    """The first by (event_time, lsn); values are moved as bits."""
    if empty or t < w[at] or (t == w[at] and lsn < w[at + 1]):
        w[at], w[at + 1], w[at + 2] = t, lsn, x


@inlined
def _merge_kept(
    w: Words,
    f: Floats,
    at: int,
    groups: Words,
    g: int,
    part: int,
    largest: bool,
    sw: Words,
    sf: Floats,
    s: int,
    stride: int,
    count: int,
) -> None:
    empty, a, b, c = w[at + groups[g, N]] == 0, at + groups[g, part], s + groups[g, part], s + groups[g, N]
    if groups[g, IS_FLOAT]:
        y = f[a]
        for i in range(count):
            z = sf[b + i * stride]
            if sw[c + i * stride] and (empty or (z > y if largest else z < y)):
                y, empty = z, False
        f[a] = y
    else:
        x = w[a]
        for i in range(count):
            v = sw[b + i * stride]
            if sw[c + i * stride] and (empty or (v > x if largest else v < x)):
                x, empty = v, False
        w[a] = x


@inlined
def _merge_firsts(w: Words, at: int, groups: Words, g: int, sw: Words, s: int, stride: int, count: int) -> None:
    empty, a, b, c = w[at + groups[g, N]] == 0, at + groups[g, FIRST], s + groups[g, FIRST], s + groups[g, N]
    for i in range(0, count * stride, stride):
        if sw[c + i]:
            _keep_first(w, a, sw[b + i], sw[b + i + 1], sw[b + i + 2], empty)
            empty = False


# --- a whole accumulator


@inlined
def add(w: Words, f: Floats, at: int, plan: Plan, e: Words, row: int) -> None:
    """Add the raw row at `e[row]` to the accumulator at `w[at]`."""
    ef = e.view(np.float64)
    for g in range(plan.groups.shape[0]):
        if plan.groups[g, N] < 0 or not (e[row + 2 + g // 64] >> (g % 64)) & 1:
            continue
        v = row + 2 + plan.mask_words + g
        x, y, is_float = e[v], ef[v], plan.groups[g, IS_FLOAT]
        n = w[at + plan.groups[g, N]]
        w[at + plan.groups[g, N]] = n + 1
        if plan.groups[g, SUM] >= 0:
            if is_float:
                _add_float(f, at + plan.groups[g, SUM], y)
            else:
                _add_whole(w, at + plan.groups[g, SUM], x)
        if plan.groups[g, STD] >= 0:
            if is_float:
                _add_deviation(f, at + plan.groups[g, STD], n, y)
            else:
                _add_square(w, at + plan.groups[g, STD], x)
        if plan.groups[g, MIN] >= 0:
            _keep(w, f, at + plan.groups[g, MIN], x, y, is_float, False, n == 0)
        if plan.groups[g, MAX] >= 0:
            _keep(w, f, at + plan.groups[g, MAX], x, y, is_float, True, n == 0)
        if plan.groups[g, FIRST] >= 0:
            _keep_first(w, at + plan.groups[g, FIRST], e[row], e[row + 1], x, n == 0)


@inlined
def _merge_rest(
    w: Words, f: Floats, at: int, groups: Words, g: int, sw: Words, sf: Floats, s: int, stride: int, count: int
) -> None:
    """Merge what is not additive of one group, before its count is."""
    if groups[g, IS_FLOAT] and groups[g, SUM] >= 0:
        _merge_floats(f, at, groups, g, sf, s, stride, count)
    if groups[g, IS_FLOAT] and groups[g, STD] >= 0:
        _merge_deviations(w, f, at, groups, g, sw, sf, s, stride, count)
    if groups[g, MIN] >= 0:
        _merge_kept(w, f, at, groups, g, MIN, False, sw, sf, s, stride, count)
    if groups[g, MAX] >= 0:
        _merge_kept(w, f, at, groups, g, MAX, True, sw, sf, s, stride, count)
    if groups[g, FIRST] >= 0:
        _merge_firsts(w, at, groups, g, sw, s, stride, count)


@compiled
def merge(w: Words, f: Floats, at: int, plan: Plan, need: Flags, sw: Words, sf: Floats, s: int) -> None:
    """Merge the accumulator at `sw[s]` into the one at `w[at]`, for the groups in `need`; others are undefined."""
    for g in range(plan.groups.shape[0]):
        if need[g] and plan.groups[g, REST]:
            _merge_rest(w, f, at, plan.groups, g, sw, sf, s, 1, 1)
    for k in range(plan.additive):
        w[at + k] += sw[s + k]


@compiled
def merge_run(
    w: Words, f: Floats, at: int, plan: Plan, sw: Words, sf: Floats, first: int, stride: int, count: int
) -> None:
    """`merge` for all groups, of `count` accumulators that begin at `sw[first]` and are `stride` words apart."""
    for g in range(plan.groups.shape[0]):
        if plan.groups[g, REST]:
            _merge_rest(w, f, at, plan.groups, g, sw, sf, first, stride, count)
    for k in range(plan.additive):
        total = w[at + k]
        for i in range(count):
            total += sw[first + i * stride + k]
        w[at + k] = total


@compiled
def finish(w: Words, f: Floats, at: int, group: Words, op: int, divisor: float) -> tuple[float, bool]:
    """The value of an operator of a tile, and whether it is not null. The sum of nothing is 0, the rest null."""
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
        return _deviation(w, f, at, group, n) / divisor, True
    where = group[MIN] if op == OP_MIN else group[MAX] if op == OP_MAX else group[FIRST] + 2
    return (f[at + where] if group[IS_FLOAT] else w[at + where] / divisor), True
