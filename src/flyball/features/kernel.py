"""The window kernel: one state per (view, entity), one `update` and one `read`, for training sets and for serving.

A state is a flat array of 64-bit words, so that it is the same thing in memory, in a batch of many states, and in a
store. It holds, in this order:

* the meta words below, then for each level where its tiles start and how many there are;
* an accumulator *fold*: the rows of the head that were dropped because there were too many;
* of a latest view a row *closed*: the newest row older than the head;
* lists: per group that nth-last asks for, how many and the newest (event_time, lsn, value) older than the head, sorted;
* raw rows of the head: (event_time, lsn, presence bits, one value per group), sorted by (event_time, lsn);
* maps: per group that distinct asks for, (value, newest event_time) of rows older than the head, sorted by value;
* tiles: per level (hops from coarse to fine) rows of (start, accumulator), sorted by start, where an event fell.

A read at `t` sees event_time < t. A window of length W with hop h covers floor((t - W) / h) * h <= event_time < t: its
value is that of the coarsest closed tiles in it, of finer ones on both sides, and of the rows after the last boundary
of the finest hop. All windows end at `t`, so a longer one goes on from the sum of a shorter one. Answers are exact for
`t` from `exact_from(state)` on: the newest event less the length of the head, or later where rows of the head were
folded, or where a state was rebuilt from fewer rows. Tiles, rows and values that no exact read can need are dropped as
time goes on, and an event older than all of them changes nothing. What is read is a function of the events alone.
"""

from __future__ import annotations

import math

import numpy as np

from flyball.features.accumulator import IS_FLOAT, OP_DISTINCT, Flags, Floats, Plan, Words, add, finish, merge_run
from flyball.features.compiled import compiled

FORMAT_VERSION = 2
NEVER = -(1 << 62)

# Words of the meta part. `FLOOR`: what is older than it was not there when the state was rebuilt.
FORMAT, SIZE, NEWEST, EVENTS, FOLD_UNTIL, FOLD_HOP, CLOSED, RAW_AT, RAW_N, FLOOR, LEVELS = range(11)
LIST_ROW, MAP_ROW = 3, 2


@compiled
def reset(w: Words, plan: Plan) -> None:
    """Make a working state (of `plan.words` words) the state of an entity that saw nothing."""
    n = plan.levels.shape[0]
    w[: plan.fixed] = 0
    w[FORMAT], w[NEWEST], w[FOLD_UNTIL], w[FOLD_HOP], w[RAW_AT] = FORMAT_VERSION, NEVER, NEVER, NEVER, plan.raw_at
    w[FLOOR] = NEVER
    for level in range(n):
        w[LEVELS + 2 * level] = plan.levels[level, 3]
    for m in range(plan.maps.shape[0]):
        w[LEVELS + 2 * (n + m)] = plan.maps[m, 3]


@compiled
def _keep_from(plan: Plan, level: int, newest: int) -> int:
    """The start of the oldest tile of a level that an exact read can need."""
    since = newest - plan.head
    hop, window = plan.levels[level, 0], plan.levels[level, 1]
    start: int = (since - window) // hop * hop
    if level > 0:
        coarser = plan.levels[level - 1, 0]
        start = min(start, since // coarser * coarser)
    return start


@compiled
def _lower_bound(w: Words, at: int, n: int, stride: int, value: int) -> int:
    """How many of `n` sorted rows begin with a word less than `value`."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if w[at + middle * stride] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _tile_bound(w: Words, at: int, n: int, stride: int, hop: int, start: int) -> int:
    """How many of `n` tiles begin before `start`, a multiple of their hop: at once where there are no gaps."""
    if n == 0 or start <= w[at]:
        return 0
    if start > w[at + (n - 1) * stride]:
        return n
    guess = (start - w[at]) // hop
    if guess < n and w[at + guess * stride] == start:
        return int(guess)
    return _lower_bound(w, at, min(n, guess), stride, start)


@compiled
def _open_row(w: Words, i_at: int, base: int, room: int, stride: int, index: int) -> int:
    """Open a row at `index` of the region that the meta words `i_at` (position) and `i_at + 1` (count) describe."""
    at: int = w[i_at]
    n: int = w[i_at + 1]
    if at + (n + 1) * stride > base + room * stride:  # rows left at the front: move back to the region's start
        w[base : base + n * stride] = w[at : at + n * stride].copy()
        at = base
        w[i_at] = base
    for k in range(at + n * stride - 1, at + index * stride - 1, -1):
        w[k + stride] = w[k]
    w[i_at + 1] = n + 1
    return at + index * stride


@compiled
def _close(w: Words, plan: Plan, e: Words, row: int) -> None:
    """Keep the row at `e[row]` as the newest before the head, where it is."""
    at = plan.closed_at
    if not w[CLOSED] or e[row] > w[at] or (e[row] == w[at] and e[row + 1] > w[at + 1]):
        w[CLOSED] = 1
        for k in range(plan.row_words):
            w[at + k] = e[row + k]


@compiled
def _list(w: Words, at: int, most: int, t: int, lsn: int, x: int) -> None:
    """Keep a value in the list at `w[at]` where it is among the `most` newest."""
    n, first = w[at], at + 1
    index = n
    while index > 0:
        before = first + (index - 1) * LIST_ROW
        if w[before] < t or (w[before] == t and w[before + 1] < lsn):
            break
        index -= 1
    if n < most:
        for k in range(first + n * LIST_ROW - 1, first + index * LIST_ROW - 1, -1):
            w[k + LIST_ROW] = w[k]
        w[at] = n + 1
    elif index == 0:
        return
    else:  # the oldest goes
        index -= 1
        for k in range(first, first + index * LIST_ROW):
            w[k] = w[k + LIST_ROW]
    to = first + index * LIST_ROW
    w[to], w[to + 1], w[to + 2] = t, lsn, x


@compiled
def _oldest(w: Words, at: int, n: int) -> int:
    oldest = 0
    for i in range(1, n):
        if w[at + MAP_ROW * i + 1] < w[at + MAP_ROW * oldest + 1]:
            oldest = i
    return oldest


@compiled
def _remember(w: Words, pair: int, most: int, t: int, x: int) -> None:
    """Keep a value in the map that `w[pair]` describes.

    Of more than `most` values the newest are kept: a window that would see a forgotten one sees `most` others.
    """
    at, n = w[pair], w[pair + 1]
    index = _lower_bound(w, at, n, MAP_ROW, x)
    if index < n and w[at + MAP_ROW * index] == x:
        w[at + MAP_ROW * index + 1] = max(t, w[at + MAP_ROW * index + 1])
        return
    end = n
    if n == most:
        end = _oldest(w, at, n)
        if t <= w[at + MAP_ROW * end + 1]:
            return
        if end < index:
            index -= 1
    else:
        w[pair + 1] = n + 1
    for k in range(index, end):  # from the place that is free to the one that is needed
        j = at + MAP_ROW * (end - 1 - (k - index))
        w[j + MAP_ROW], w[j + MAP_ROW + 1] = w[j], w[j + 1]
    for k in range(end, index):
        j = at + MAP_ROW * k
        w[j], w[j + 1] = w[j + MAP_ROW], w[j + MAP_ROW + 1]
    w[at + MAP_ROW * index], w[at + MAP_ROW * index + 1] = x, t


@compiled
def _settle(w: Words, plan: Plan, e: Words, row: int) -> None:
    """Take the row at `e[row]`, older than the head's rows, into what is kept per entity."""
    if plan.latest:
        _close(w, plan, e, row)
    for i in range(plan.lists.shape[0]):
        g = plan.lists[i, 0]
        if (e[row + 2 + g // 64] >> (g % 64)) & 1:
            _list(w, plan.lists[i, 2], plan.lists[i, 1], e[row], e[row + 1], e[row + 2 + plan.mask_words + g])
    for i in range(plan.maps.shape[0]):
        g = plan.maps[i, 0]
        if (e[row + 2 + g // 64] >> (g % 64)) & 1:
            pair = LEVELS + 2 * (plan.levels.shape[0] + i)
            _remember(w, pair, plan.maps[i, 1], e[row], e[row + 2 + plan.mask_words + g])


@compiled
def advance(w: Words, plan: Plan, newest: int) -> None:
    """Know that there is an event at `newest`, and let go of what no exact read can need from then on."""
    if newest <= w[NEWEST]:
        return
    w[NEWEST] = newest
    last = plan.levels.shape[0] - 1
    for level in range(last + 1):
        m, start = LEVELS + 2 * level, _keep_from(plan, level, newest)
        while w[m + 1] > 0 and w[w[m]] < start:
            w[m] += 1 + plan.acc_words
            w[m + 1] -= 1
    hop = plan.levels[last, 0]
    start = (newest - plan.head) // hop * hop
    while w[RAW_N] > 0 and w[w[RAW_AT]] < start:
        _settle(w, plan, w, w[RAW_AT])
        w[RAW_AT] += plan.row_words
        w[RAW_N] -= 1


@compiled
def _fold(w: Words, f: Floats, plan: Plan) -> None:
    """Drop the older half of the head's rows; what they add up to within the hop of the cut is kept."""
    last = plan.levels.shape[0] - 1
    at, n, stride = w[RAW_AT], w[RAW_N], plan.row_words
    cut = w[at + n // 2 * stride]
    if cut == w[at]:
        cut = w[at + (n - 1) * stride]
    if cut == w[at]:
        cut += 1  # all rows at one instant
    hop = cut // plan.levels[last, 0] * plan.levels[last, 0]
    if w[FOLD_HOP] != hop:
        w[plan.fold_at : plan.fold_at + plan.acc_words] = 0
        w[FOLD_HOP] = hop
    w[FOLD_UNTIL] = cut
    while w[RAW_N] > 0 and w[w[RAW_AT]] < cut:
        _settle(w, plan, w, w[RAW_AT])
        if w[w[RAW_AT]] >= hop:
            add(w, f, plan.fold_at, plan, w, w[RAW_AT])
        w[RAW_AT] += stride
        w[RAW_N] -= 1


@compiled
def _update_tiles(w: Words, f: Floats, plan: Plan, e: Words, row: int) -> None:
    t, stride = e[row], 1 + plan.acc_words
    for level in range(plan.levels.shape[0]):
        hop, room, base = plan.levels[level, 0], plan.levels[level, 2], plan.levels[level, 3]
        start = t // hop * hop
        if start < _keep_from(plan, level, w[NEWEST]):
            continue
        m = LEVELS + 2 * level
        at, n = w[m], w[m + 1]
        index = n - 1 if n > 0 and w[at + (n - 1) * stride] == start else _tile_bound(w, at, n, stride, hop, start)
        if index < n and w[at + index * stride] == start:
            tile = at + index * stride
        else:
            tile = _open_row(w, m, base, room, stride, index)
            w[tile] = start
            w[tile + 1 : tile + stride] = 0
        add(w, f, tile + 1, plan, e, row)


@compiled
def update(w: Words, f: Floats, plan: Plan, e: Words, row: int) -> None:
    """Take one event, the raw row at `e[row]`, into the working state `w` (`f` is the same memory as floats)."""
    t, lsn, stride = e[row], e[row + 1], plan.row_words
    w[EVENTS] += 1
    advance(w, plan, t)
    if plan.acc_words > 0:
        _update_tiles(w, f, plan, e, row)
    hop = plan.levels[plan.levels.shape[0] - 1, 0]
    if t < w[FOLD_UNTIL] or t < (w[NEWEST] - plan.head) // hop * hop:
        _settle(w, plan, e, row)
        if t < w[FOLD_UNTIL] and t // hop * hop == w[FOLD_HOP]:
            add(w, f, plan.fold_at, plan, e, row)
        return
    at, index = w[RAW_AT], w[RAW_N]
    while index > 0:
        before = at + (index - 1) * stride
        if w[before] < t or (w[before] == t and w[before + 1] < lsn):
            break
        index -= 1
    to = _open_row(w, RAW_AT, plan.raw_at, 2 * plan.raw_limit, stride, index)
    for k in range(stride):
        w[to + k] = e[row + k]
    if w[RAW_N] >= plan.raw_limit:
        _fold(w, f, plan)


@compiled
def exact_from(w: Words, o: int, plan: Plan) -> int:
    """The time from which on reads of the state at `w[o]` are exact."""
    start: int = w[o + FLOOR]
    if w[o + EVENTS] > 0:
        start = max(start, w[o + NEWEST] - plan.head, w[o + FOLD_UNTIL])
    return start


# --- reading


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
    first = _tile_bound(w, at, n, stride, hop, start)
    count = _tile_bound(w, at, n, stride, hop, -(-end // hop) * hop) - first
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
    for i in range(_lower_bound(w, at, n, plan.row_words, start), n):
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
        if boundary + hop > t or boundary < _keep_from(plan, top - 1, w[o + NEWEST]):
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
    for i in range(_lower_bound(w, at, w[o + RAW_N], stride, t) - 1, -1, -1):
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
    begin, end = _lower_bound(w, raw, w[o + RAW_N], stride, s), _lower_bound(w, raw, w[o + RAW_N], stride, t)
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
        known = _lower_bound(w, at, n, MAP_ROW, x)
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
    i = _lower_bound(w, at, w[o + RAW_N], stride, t)
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
