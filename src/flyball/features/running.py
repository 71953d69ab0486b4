"""Exact aggregates while a window slides: what enters is added, what leaves is taken away again.

Only what has an exact inverse is computed so: counts, sums and squares of whole numbers, and distinct values. Sums are
`int64` where that cannot overflow, else halves as in `accumulator`; squares are 128 bits, and the variance is
(n * sum of squares - sum**2) / n / (n - 1), of which the numerator is exact. Floats have no exact inverse: see `trees`.

A kernel leaves, per window and row, an accumulator of `ACC` words laid out as `LAYOUT` says; `accumulator.finish` makes
a value of it. Arguments are those of `visibility`; `v` and `p` are a group's words and presence, empty for none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flyball.features.accumulator import Flags, Floats, Words
from flyball.features.compiled import compiled
from flyball.features.visibility import Changes, Indices

# Is it a float, n, sum, std, min, max, first. What a row finds as first, last or n-th last is finished as the first;
# a deviation, of whole numbers too, as that of floats: mean and M2.
LAYOUT = np.array([[0, 0, 1, 3, 5, 6, 7, 7], [1, 0, 1, 3, 5, 6, 7, 7]], np.int64)
ACC = 10

_Unsigned = npt.NDArray[np.uint64]
_U32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@compiled
def multiply(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The product of two unsigned words: high and low word."""
    a0, a1, b0, b1 = a & _LOW, a >> _U32, b & _LOW, b >> _U32
    p00, p01, p10, p11 = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = (p00 >> _U32) + (p01 & _LOW) + (p10 & _LOW)
    return p11 + (p01 >> _U32) + (p10 >> _U32) + (middle >> _U32), (p00 & _LOW) | (middle << _U32)


@compiled
def _minus(h: np.uint64, lo: np.uint64, other: np.uint64, low: np.uint64) -> tuple[np.uint64, np.uint64]:
    return h - other - (_ONE if lo < low else _ZERO), lo - low


@compiled
def _plus(h: np.uint64, lo: np.uint64, other: np.uint64, low: np.uint64) -> tuple[np.uint64, np.uint64]:
    total = lo + low
    return h + other + (_ONE if total < low else _ZERO), total


@compiled
def spread(n: int, total: int, high: np.uint64, low: np.uint64) -> float:
    """n * squares - total**2, exact until it becomes a float; all of it is less than 2**127."""
    un, size = np.uint64(n), np.uint64(abs(total))
    h, lo = multiply(un, low)
    sh, sl = multiply(size, size)
    h, lo = _minus(h + un * high, lo, sh, sl)
    return np.float64(h) * 18446744073709551616.0 + np.float64(lo)


@compiled
def _change(
    sums: _Unsigned, v: Words, p: Flags, first: Indices, last: Indices, low: int, high: int, r: int, leave: bool
) -> None:
    """Add to `sums` what of the events `low` to `high` is visible at row `r` (-1: all), or take it away.

    `sums`: count, sum, sum of squares, where 64 bits hold them.
    """
    n, total, squares, some = 0, 0, 0, p.shape[0] > 0
    if v.shape[0] == 0:
        for e in range(low, high):
            n += (not some or p[e]) and (r < 0 or (first[e] <= r and r < last[e]))
    elif not some and r < 0:
        n = max(high - low, 0)
        for e in range(low, high):
            total += v[e]
            squares += v[e] * v[e]
    else:
        for e in range(low, high):
            if (not some or p[e]) and (r < 0 or (first[e] <= r and r < last[e])):
                n += 1
                total += v[e]
                squares += v[e] * v[e]
    if leave:
        n, total, squares = -n, -total, -squares
    sums[0] += np.uint64(n)
    sums[1] += np.uint64(total)
    sums[2] += np.uint64(squares)


@compiled
def _change_wide(
    sums: _Unsigned, v: Words, p: Flags, first: Indices, last: Indices, low: int, high: int, r: int, leave: bool
) -> None:
    """The same with the sum as halves (1, 2) and the squares as 128 bits (3, 4)."""
    for e in range(low, high):
        if (p.shape[0] == 0 or p[e]) and (r < 0 or (first[e] <= r and r < last[e])):
            x = v[e]
            size = np.uint64(abs(x))
            sh, sl = multiply(size, size)
            upper, lower = np.uint64(x >> 32), np.uint64(x) & _LOW
            if leave:
                sums[0], sums[1], sums[2] = sums[0] - _ONE, sums[1] - upper, sums[2] - lower
                sums[3], sums[4] = _minus(sums[3], sums[4], sh, sl)
            else:
                sums[0], sums[1], sums[2] = sums[0] + _ONE, sums[1] + upper, sums[2] + lower
                sums[3], sums[4] = _plus(sums[3], sums[4], sh, sl)


@compiled
def _shift(
    sums: _Unsigned,
    wide: bool,
    v: Words,
    p: Flags,
    first: Indices,
    last: Indices,
    low: int,
    high: int,
    r: int,
    leave: bool,
) -> None:
    if wide:
        _change_wide(sums, v, p, first, last, low, high, r, leave)
    else:
        _change(sums, v, p, first, last, low, high, r, leave)


@compiled
def run_sums(
    v: Words,
    p: Flags,
    row_at: Words,
    start: Indices,
    stop: Indices,
    c: Changes,
    wide: bool,
    squares: bool,
    acc: Words,
    facc: Floats,
) -> None:
    """Count and sum of one group in the windows of `start`, and M2 if `squares`; `wide`: 64 bits may not hold them."""
    sums = np.zeros(5, np.uint64)
    first, last = c.first, c.last
    for w in range(start.shape[0]):
        for k in range(row_at.shape[0] - 1):
            sums[:] = _ZERO
            dynamic = c.entity[k]
            before = until = -1  # the range at the last row
            for r in range(row_at[k], row_at[k + 1]):
                i, j = start[w, r], stop[r]
                if before < 0:
                    before = until = i
                _shift(sums, wide, v, p, first, last, before, min(i, until), r - 1 if dynamic else -1, True)
                _shift(sums, wide, v, p, first, last, max(i, until), j, r if dynamic else -1, False)
                if dynamic:  # and what was passed earlier, and is still in the window
                    low, e = max(i, before), c.appears[r]
                    while e >= 0:
                        if low <= e and e < until:
                            _shift(sums, wide, v, p, first, last, e, e + 1, -1, False)
                        e = c.next_appears[e]
                    e = c.disappears[r]
                    while e >= 0:
                        if low <= e and e < until:
                            _shift(sums, wide, v, p, first, last, e, e + 1, -1, True)
                        e = c.next_disappears[e]
                before, until = i, j
                acc[w, r, 0] = np.int64(sums[0])
                if v.shape[0] > 0:
                    _leave_sums(sums, wide, squares, acc, facc, w, r)


@compiled
def _leave_sums(sums: _Unsigned, wide: bool, squares: bool, acc: Words, facc: Floats, w: int, r: int) -> None:
    n: int = np.int64(sums[0])  # type: ignore[assignment]
    upper: int = np.int64(sums[1])  # type: ignore[assignment]
    lower: int = np.int64(sums[2])  # type: ignore[assignment]
    high, low = sums[3], sums[4]
    if not wide:
        upper, lower = upper >> 32, upper & 0xFFFFFFFF
        high, low = _ZERO, sums[2]
    acc[w, r, 1], acc[w, r, 2] = upper, lower
    if squares and n > 0:
        facc[w, r, 4] = spread(n, (upper << 32) + lower, high, low) / n


@compiled
def _number(v: Words, event_at: Words) -> tuple[Indices, int]:
    """Per event a code within its entity, equal where values are (open addressing), and how many there are at most."""
    most = 1
    for k in range(event_at.shape[0] - 1):
        most = max(most, event_at[k + 1] - event_at[k])
    size = 16
    while size < 2 * most:
        size *= 2
    keys, owner, slot = np.zeros(size, np.int64), np.full(size, -1, np.int32), np.zeros(size, np.int32)
    codes, mask = np.empty(v.shape[0], np.int32), size - 1
    for k in range(event_at.shape[0] - 1):
        found = 0
        for e in range(event_at[k], event_at[k + 1]):
            at = np.int64(np.uint64(v[e]) * _GOLDEN >> _U32) & mask
            while owner[at] == k and keys[at] != v[e]:
                at = (at + 1) & mask
            if owner[at] != k:
                owner[at], keys[at], slot[at] = k, v[e], found
                found += 1
            codes[e] = slot[at]
    return codes, most


@compiled
def _tally(
    seen: Indices,
    codes: Indices,
    p: Flags,
    first: Indices,
    last: Indices,
    low: int,
    high: int,
    r: int,
    by: int,
) -> int:
    """Count what is visible of the events into `seen`, or out of it; how many more values there are."""
    more = 0
    for e in range(low, high):
        if (p.shape[0] == 0 or p[e]) and (r < 0 or (first[e] <= r and r < last[e])):
            was = seen[codes[e]]
            seen[codes[e]] = was + by
            more += (was + by > 0) - (was > 0)
    return more


@compiled
def run_distinct(
    v: Words,
    p: Flags,
    event_at: Words,
    row_at: Words,
    start: Indices,
    stop: Indices,
    c: Changes,
    acc: Words,
) -> None:
    """How many distinct values of one group there are in the windows of `start`, as the count."""
    codes, most = _number(v, event_at)
    seen = np.zeros(most, np.int32)
    first, last = c.first, c.last
    for w in range(start.shape[0]):
        for k in range(row_at.shape[0] - 1):
            dynamic, found = c.entity[k], 0
            before = until = -1
            for r in range(row_at[k], row_at[k + 1]):
                i, j = start[w, r], stop[r]
                if before < 0:
                    before = until = i
                found += _tally(seen, codes, p, first, last, before, min(i, until), r - 1 if dynamic else -1, -1)
                found += _tally(seen, codes, p, first, last, max(i, until), j, r if dynamic else -1, 1)
                if dynamic:
                    low, e = max(i, before), c.appears[r]
                    while e >= 0:
                        if low <= e and e < until:
                            found += _tally(seen, codes, p, first, last, e, e + 1, -1, 1)
                        e = c.next_appears[e]
                    e = c.disappears[r]
                    while e >= 0:
                        if low <= e and e < until:
                            found += _tally(seen, codes, p, first, last, e, e + 1, -1, -1)
                        e = c.next_disappears[e]
                before, until = i, j
                acc[w, r, 0] = found
            if before >= 0:  # leave the tally empty for the next entity
                _tally(seen, codes, p, first, last, before, until, row_at[k + 1] - 1 if dynamic else -1, -1)
