"""The window kernel: one state per (view, entity), one `update` and one `read`, for training sets and for serving.

A state is a flat array of 64-bit words, so that it is the same thing in memory, in a batch of many states, and in a
store. It holds, in this order:

* the meta words below, then for each level where its tiles start and how many there are;
* an accumulator *fold*: the rows of the head that were dropped because there were too many;
* a row *closed*: of a latest view, the newest row older than the head;
* raw rows of the head: (event_time, lsn, presence bits, one value per group), sorted by (event_time, lsn);
* tiles: per level (hops from coarse to fine) rows of (start, accumulator), sorted by start, where an event fell.

A read at `t` sees event_time < t. A window of length W with hop h covers floor((t - W) / h) * h <= event_time < t: it
walks from there through the coarsest closed tiles, then finer ones, then the rows after the last boundary of the finest
hop. Answers are exact for `t` from `exact_from(state)` on: the newest event less the length of the head, or later where
rows of the head were folded. Tiles and rows that no exact read can need are dropped as time goes on, and an event older
than all of them changes nothing. Everything is a function of the order of updates alone.
"""

from __future__ import annotations

import math

import numpy as np

from flyball.features.accumulator import IS_FLOAT, Flags, Floats, Plan, Words, add, finish, merge
from flyball.features.compiled import compiled

FORMAT_VERSION = 1
NEVER = -(1 << 62)

# Words of the meta part.
FORMAT, SIZE, NEWEST, EVENTS, FOLD_UNTIL, FOLD_HOP, CLOSED, RAW_AT, RAW_N, LEVELS = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9


@compiled
def reset(w: Words, plan: Plan) -> None:
    """Make a working state (of `plan.words` words) the state of an entity that saw nothing."""
    n = plan.levels.shape[0]
    w[: LEVELS + 2 * n + plan.acc_words + plan.row_words] = 0
    w[FORMAT], w[NEWEST], w[FOLD_UNTIL], w[FOLD_HOP], w[RAW_AT] = FORMAT_VERSION, NEVER, NEVER, NEVER, plan.raw_at
    for level in range(n):
        w[LEVELS + 2 * level] = plan.levels[level, 3]


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
    at = LEVELS + 2 * plan.levels.shape[0] + plan.acc_words
    if not w[CLOSED] or e[row] > w[at] or (e[row] == w[at] and e[row + 1] > w[at + 1]):
        w[CLOSED] = 1
        for k in range(plan.row_words):
            w[at + k] = e[row + k]


@compiled
def _prune(w: Words, plan: Plan) -> None:
    """Let go of what no exact read can need."""
    newest, last = w[NEWEST], plan.levels.shape[0] - 1
    if not plan.latest:
        for level in range(last + 1):
            m, start = LEVELS + 2 * level, _keep_from(plan, level, newest)
            while w[m + 1] > 0 and w[w[m]] < start:
                w[m] += 1 + plan.acc_words
                w[m + 1] -= 1
    hop = plan.levels[last, 0]
    start = (newest - plan.head) // hop * hop
    while w[RAW_N] > 0 and w[w[RAW_AT]] < start:
        if plan.latest:
            _close(w, plan, w, w[RAW_AT])
        w[RAW_AT] += plan.row_words
        w[RAW_N] -= 1


@compiled
def _fold(w: Words, f: Floats, plan: Plan) -> None:
    """Drop the older half of the head's rows; what they add up to within the hop of the cut is kept."""
    last, fold = plan.levels.shape[0] - 1, LEVELS + 2 * plan.levels.shape[0]
    at, n, stride = w[RAW_AT], w[RAW_N], plan.row_words
    cut = w[at + n // 2 * stride]
    if cut == w[at]:
        cut = w[at + (n - 1) * stride]
    if cut == w[at]:
        cut += 1  # all rows at one instant
    hop = cut // plan.levels[last, 0] * plan.levels[last, 0]
    if w[FOLD_HOP] != hop:
        w[fold : fold + plan.acc_words] = 0
        w[FOLD_HOP] = hop
    w[FOLD_UNTIL] = cut
    while w[RAW_N] > 0 and w[w[RAW_AT]] < cut:
        if plan.latest:
            _close(w, plan, w, w[RAW_AT])
        elif w[w[RAW_AT]] >= hop:
            add(w, f, fold, plan, w, w[RAW_AT])
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
        index = n - 1 if n > 0 and w[at + (n - 1) * stride] == start else _lower_bound(w, at, n, stride, start)
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
    last = plan.levels.shape[0] - 1
    w[EVENTS] += 1
    if t > w[NEWEST]:
        w[NEWEST] = t
        _prune(w, plan)
    if not plan.latest:
        _update_tiles(w, f, plan, e, row)
    hop = plan.levels[last, 0]
    if t < w[FOLD_UNTIL] or t < (w[NEWEST] - plan.head) // hop * hop:
        if plan.latest:
            _close(w, plan, e, row)
        elif t < w[FOLD_UNTIL] and t // hop * hop == w[FOLD_HOP]:
            add(w, f, LEVELS + 2 * (last + 1), plan, e, row)
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
    if w[o + EVENTS] == 0:
        return NEVER
    start: int = max(w[o + NEWEST] - plan.head, w[o + FOLD_UNTIL])
    return start


# --- reading


@compiled
def _merge_tiles(
    w: Words, f: Floats, o: int, plan: Plan, level: int, start: int, end: int, need: Flags, acc: Words, facc: Floats
) -> None:
    """Merge the tiles of a level from `start` up to `end` into the second accumulator of `acc`."""
    m, stride = o + LEVELS + 2 * level, 1 + plan.acc_words
    at, n = o + w[m], w[m + 1]
    for i in range(_lower_bound(w, at, n, stride, start), n):
        tile = at + i * stride
        if w[tile] >= end:
            break
        merge(acc, facc, plan.acc_words, plan, need, w, f, tile + 1)


@compiled
def _read_head(w: Words, f: Floats, o: int, plan: Plan, t: int, everything: Flags, acc: Words, facc: Floats) -> None:
    """The rows from the last boundary of the finest hop to `t`, into the first accumulator of `acc`."""
    last = plan.levels.shape[0] - 1
    start = t // plan.levels[last, 0] * plan.levels[last, 0]
    acc[: 2 * plan.acc_words] = 0
    if t > w[o + NEWEST]:  # nothing is newer: the open tile is the head
        _merge_tiles(w, f, o, plan, last, start, t, everything, acc, facc)
        acc[: plan.acc_words] = acc[plan.acc_words : 2 * plan.acc_words]
        return
    if w[o + FOLD_HOP] == start:
        merge(acc, facc, 0, plan, everything, w, f, o + LEVELS + 2 * (last + 1))
    at, n = o + w[o + RAW_AT], w[o + RAW_N]
    for i in range(_lower_bound(w, at, n, plan.row_words, start), n):
        row = at + i * plan.row_words
        if w[row] >= t:
            break
        add(acc, facc, 0, plan, w, row)


@compiled
def _read_windows(
    w: Words, f: Floats, o: int, plan: Plan, t: int, acc: Words, facc: Floats, values: Floats, valid: Flags
) -> None:
    levels, size = plan.levels, plan.acc_words
    everything = np.ones(plan.groups.shape[0], np.bool_)
    _read_head(w, f, o, plan, t, everything, acc, facc)
    for i in range(plan.windows.shape[0]):
        need, level = plan.need[i], plan.windows[i, 1]
        acc[size : 2 * size] = 0
        s = (t - plan.windows[i, 0]) // levels[level, 0] * levels[level, 0]
        while level > 0:  # up to coarser tiles, from boundary to boundary
            hop = levels[level - 1, 0]
            boundary = -(-s // hop) * hop
            if boundary + hop > t or boundary < _keep_from(plan, level - 1, w[o + NEWEST]):
                break
            _merge_tiles(w, f, o, plan, level, s, boundary, need, acc, facc)
            s = boundary
            level -= 1
        while level < levels.shape[0]:  # and down to the finest
            end = t // levels[level, 0] * levels[level, 0]
            _merge_tiles(w, f, o, plan, level, s, end, need, acc, facc)
            s = end
            level += 1
        merge(acc, facc, size, plan, need, acc, facc, 0)
        for k in range(plan.outs.shape[0]):
            if plan.outs[k, 2] == i:
                group = plan.groups[plan.outs[k, 1]]
                values[k], valid[k] = finish(acc, facc, size, group, plan.outs[k, 0], plan.divisor[k])


@compiled
def _read_latest(w: Words, f: Floats, o: int, plan: Plan, t: int, values: Floats, valid: Flags) -> None:
    at, stride = o + w[o + RAW_AT], plan.row_words
    i = _lower_bound(w, at, w[o + RAW_N], stride, t)
    row = at + (i - 1) * stride
    found = i > 0
    if not found and w[o + CLOSED]:
        row = o + LEVELS + 2 * plan.levels.shape[0] + plan.acc_words
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
def read(
    w: Words, f: Floats, o: int, plan: Plan, t: int, acc: Words, facc: Floats, values: Floats, valid: Flags
) -> bool:
    """Read the state at `w[o]` at time `t` into one value and validity per feature; returns whether they are exact.

    `acc` is scratch of two accumulators (`facc` is the same memory as floats).
    """
    if plan.latest:
        _read_latest(w, f, o, plan, t, values, valid)
    else:
        _read_windows(w, f, o, plan, t, acc, facc, values, valid)
    return t >= exact_from(w, o, plan)
