"""Reading a state: the one `read` of training sets and of serving. What a state holds, and how, is said in `kernel`."""

from __future__ import annotations

import math

import numpy as np

from flyball.features.accumulator import IS_FLOAT, OP_DISTINCT, Flags, Floats, Plan, Words, add, finish, merge_run
from flyball.features.compiled import compiled
from flyball.features.kernel import (
    CLOSED,
    EVENTS,
    FLOOR,
    FOLD_HOP,
    FOLD_UNTIL,
    LEVELS,
    LIST_ROW,
    MAP_ROW,
    NEWEST,
    RAW_AT,
    RAW_N,
    keep_from,
    lower_bound,
    tile_bound,
)


@compiled
def exact_from(w: Words, o: int, plan: Plan) -> int:
    """The time from which on reads of the state at `w[o]` are exact."""
    start: int = w[o + FLOOR]
    if w[o + EVENTS] > 0:
        start = max(start, w[o + NEWEST] - plan.head, w[o + FOLD_UNTIL])
    return start


@compiled
def _merge_tiles(
    w: Words, f: Floats, o: int, plan: Plan, level: int, start: int, end: int, acc: Words, facc: Floats, to: int
) -> None:
    """Merge the tiles of a level from `start` up to `end` into the accumulator at `acc[to]`."""
    if start >= end:
        return
    m, stride = o + LEVELS + 2 * level, 1 + plan.acc_words
    at, n = o + w[m], w[m + 1]
    hop = plan.levels[level, 0]
    first = tile_bound(w, at, n, stride, hop, start)
    count = tile_bound(w, at, n, stride, hop, -(-end // hop) * hop) - first
    merge_run(acc, facc, to, plan, w, f, at + first * stride + 1, stride, count)


@compiled
def _read_head(w: Words, f: Floats, o: int, plan: Plan, t: int, acc: Words, facc: Floats, to: int) -> None:
    """The rows from the last boundary of the finest hop to `t`, into the accumulator at `acc[to]`."""
    last = plan.levels.shape[0] - 1
    start = t // plan.levels[last, 0] * plan.levels[last, 0]
    if t > w[o + NEWEST]:  # nothing is newer: the open tile is the head
        _merge_tiles(w, f, o, plan, last, start, t, acc, facc, to)
        return
    if w[o + FOLD_HOP] == start:
        merge_run(acc, facc, to, plan, w, f, o + plan.fold_at, 1, 1)
    at, n = o + w[o + RAW_AT], w[o + RAW_N]
    for i in range(lower_bound(w, at, n, plan.row_words, start), n):
        row = at + i * plan.row_words
        if w[row] >= t:
            break
        add(acc, facc, to, plan, w, row)


@compiled
def _read_window(
    w: Words, f: Floats, o: int, plan: Plan, t: int, i: int, reached: Words, acc: Words, facc: Floats
) -> int:
    """Sum up window `i`; where in `acc` the sum is.

    `acc` holds, per level, the sum from `reached` on; then one that is used freely; then, per level, the sum after the
    last boundary alone.
    """
    levels, size = plan.levels, plan.acc_words
    level = top = plan.windows[i, 1]
    s = (t - plan.windows[i, 0]) // levels[level, 0] * levels[level, 0]
    edge = s
    while top > 0:  # the coarsest level with a boundary within the window, and tiles from there on
        hop = levels[top - 1, 0]
        boundary = -(-edge // hop) * hop
        if boundary + hop > t or boundary < keep_from(plan, top - 1, w[o + NEWEST]):
            break
        edge, top = boundary, top - 1
    to = levels.shape[0] * size
    if edge > reached[top]:  # a longer window with finer hops came before: start again
        after = to + size + top * size
        acc[to : to + size] = acc[after : after + size]
        end = t // levels[top, 0] * levels[top, 0]
        _merge_tiles(w, f, o, plan, top, edge, end, acc, facc, to)
    else:
        _merge_tiles(w, f, o, plan, top, edge, reached[top], acc, facc, top * size)
        reached[top] = edge
        if top == level:
            return int(top * size)
        acc[to : to + size] = acc[top * size : (top + 1) * size]
    while top < level:  # and the finer tiles before it
        top += 1
        hop = levels[top, 0]
        before = -(-s // hop) * hop
        _merge_tiles(w, f, o, plan, top, before, edge, acc, facc, to)
        edge = before
    return int(to)


@compiled
def _read_windows(
    w: Words, f: Floats, o: int, plan: Plan, t: int, acc: Words, facc: Floats, values: Floats, valid: Flags
) -> None:
    levels, size = plan.levels, plan.acc_words
    last = levels.shape[0] - 1
    reached = np.zeros(last + 1, np.int64)
    acc[: (last + 2) * size] = 0
    _read_head(w, f, o, plan, t, acc, facc, last * size)
    reached[last] = t // levels[last, 0] * levels[last, 0]
    for level in range(last - 1, -1, -1):  # per level, what is after its last boundary
        to, finer = level * size, (level + 1) * size
        reached[level] = t // levels[level, 0] * levels[level, 0]
        acc[to : to + size] = acc[finer : finer + size]
        _merge_tiles(w, f, o, plan, level + 1, reached[level], reached[level + 1], acc, facc, to)
    acc[(last + 2) * size : (2 * last + 3) * size] = acc[: (last + 1) * size]
    for i in range(plan.windows.shape[0]):
        to = _read_window(w, f, o, plan, t, i, reached, acc, facc)
        for k in range(plan.outs.shape[0]):
            if plan.outs[k, 2] == i and plan.outs[k, 4] < 0:
                group = plan.groups[plan.outs[k, 1]]
                values[k], valid[k] = finish(acc, facc, to, group, plan.outs[k, 0], plan.divisor[k])


@compiled
def _nth_last(w: Words, o: int, plan: Plan, slot: int, nth: int, s: int, t: int) -> int:
    """Where the word of the n-th newest value with s <= event_time < t is; -1: there are fewer."""
    g = plan.lists[slot, 0]
    at, stride = o + w[o + RAW_AT], plan.row_words
    for i in range(lower_bound(w, at, w[o + RAW_N], stride, t) - 1, -1, -1):
        row = at + i * stride
        if w[row] < s:
            return -1
        if (w[row + 2 + g // 64] >> (g % 64)) & 1:
            nth -= 1
            if nth == 0:
                return int(row + 2 + plan.mask_words + g)
    at = o + plan.lists[slot, 2]
    for i in range(w[at] - 1, -1, -1):
        row = at + 1 + i * LIST_ROW
        if w[row] < s:
            return -1
        if w[row] < t:
            nth -= 1
            if nth == 0:
                return int(row + 2)
    return -1


@compiled
def _distinct(w: Words, o: int, plan: Plan, slot: int, cap: int, s: int, t: int) -> int:
    """How many values there are with s <= event_time < t, at most `cap`."""
    g, pair, stride = plan.maps[slot, 0], o + LEVELS + 2 * (plan.levels.shape[0] + slot), plan.row_words
    at, n = o + w[pair], w[pair + 1]
    found = 0
    for i in range(n):
        found += s <= w[at + MAP_ROW * i + 1] < t
    raw = o + w[o + RAW_AT]
    begin, end = lower_bound(w, raw, w[o + RAW_N], stride, s), lower_bound(w, raw, w[o + RAW_N], stride, t)
    if end <= begin or found >= cap:
        return min(found, cap)
    size = 4
    while size < 2 * (end - begin):
        size *= 2
    seen = np.zeros(size, np.int64)  # rows of values that the map does not count, by the value's hash; 0: free
    for i in range(begin, end):
        row = raw + i * stride
        if not (w[row + 2 + g // 64] >> (g % 64)) & 1:
            continue
        x = w[row + 2 + plan.mask_words + g]
        known = lower_bound(w, at, n, MAP_ROW, x)
        if known < n and w[at + MAP_ROW * known] == x and s <= w[at + MAP_ROW * known + 1] < t:
            continue
        slot_of = ((x ^ (x >> 32)) * 0x9E3779B1 >> 8) & (size - 1)
        while seen[slot_of] and w[seen[slot_of]] != x:
            slot_of = (slot_of + 1) & (size - 1)
        if not seen[slot_of]:
            seen[slot_of] = row + 2 + plan.mask_words + g
            found += 1
    return min(found, cap)


@compiled
def _read_kept(w: Words, f: Floats, o: int, plan: Plan, t: int, values: Floats, valid: Flags) -> None:
    """The operators that are answered from what is kept per entity."""
    for k in range(plan.outs.shape[0]):
        op, g, i, parameter, slot = plan.outs[k]
        if slot < 0:
            continue
        hop = plan.levels[plan.windows[i, 1], 0]
        s = (t - plan.windows[i, 0]) // hop * hop
        if op == OP_DISTINCT:
            values[k], valid[k] = _distinct(w, o, plan, slot, parameter, s, t), True
            continue
        v = _nth_last(w, o, plan, slot, parameter, s, t)
        values[k], valid[k] = math.nan, v >= 0
        if v >= 0:
            values[k] = f[v] if plan.groups[g, IS_FLOAT] else w[v] / plan.divisor[k]


@compiled
def _read_latest(w: Words, f: Floats, o: int, plan: Plan, t: int, values: Floats, valid: Flags) -> None:
    at, stride = o + w[o + RAW_AT], plan.row_words
    i = lower_bound(w, at, w[o + RAW_N], stride, t)
    row = at + (i - 1) * stride
    found = i > 0
    if not found and w[o + CLOSED]:
        row = o + plan.closed_at
        found = w[row] < t
    found = found and (plan.ttl < 0 or w[row] >= t - plan.ttl)
    for k in range(plan.outs.shape[0]):
        g = plan.outs[k, 1]
        v = row + 2 + plan.mask_words + g
        valid[k] = found and (w[row + 2 + g // 64] >> (g % 64)) & 1
        values[k] = math.nan
        if valid[k]:
            values[k] = f[v] if plan.groups[g, IS_FLOAT] else w[v] / plan.divisor[k]


@compiled
def scratch_words(plan: Plan) -> int:
    """How much memory a read computes in."""
    return int((2 * plan.levels.shape[0] + 1) * plan.acc_words)


@compiled
def read(
    w: Words, f: Floats, o: int, plan: Plan, t: int, acc: Words, facc: Floats, values: Floats, valid: Flags
) -> bool:
    """Read the state at `w[o]` at time `t` into one value and validity per feature; returns whether they are exact.

    `acc` is scratch of `scratch_words` (`facc` is the same memory as floats).
    """
    if plan.latest:
        _read_latest(w, f, o, plan, t, values, valid)
    else:
        if plan.acc_words > 0:
            _read_windows(w, f, o, plan, t, acc, facc, values, valid)
        _read_kept(w, f, o, plan, t, values, valid)
    return t >= exact_from(w, o, plan)
