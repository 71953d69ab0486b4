"""The window kernel: one state per (view, entity), and one `update`; `reading` has the one `read`.

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

from flyball.features.accumulator import Floats, Plan, Words, add
from flyball.features.compiled import compiled, inlined

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
def keep_from(plan: Plan, level: int, newest: int) -> int:
    """The start of the oldest tile of a level that an exact read can need."""
    since = newest - plan.head
    hop, window = plan.levels[level, 0], plan.levels[level, 1]
    start: int = (since - window) // hop * hop
    if level > 0:
        coarser = plan.levels[level - 1, 0]
        start = min(start, since // coarser * coarser)
    return start


@inlined
def is_kept(plan: Plan, level: int, newest: int, start: int) -> bool:
    """Whether a tile of a level is not older than `keep_from`: as a rule without a division."""
    since = newest - plan.head
    if start > since - plan.levels[level, 1] - plan.levels[level, 0]:  # the multiple of the hop below, or a later one
        return True
    if level == 0:
        return False
    coarser = plan.levels[level - 1, 0]
    return bool(start >= since // coarser * coarser)


@inlined
def is_before_head(t: int, since: int, hop: int) -> bool:
    """Whether a time is before the multiple of `hop` at or below `since`: as a rule without a division."""
    if t >= since:
        return False
    return bool(t + hop <= since or t < since // hop * hop)


@compiled
def lower_bound(w: Words, at: int, n: int, stride: int, value: int) -> int:
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
def tile_bound(w: Words, at: int, n: int, stride: int, hop: int, start: int) -> int:
    """How many of `n` tiles begin before `start`, a multiple of their hop: at once where there are no gaps."""
    if n == 0 or start <= w[at]:
        return 0
    if start > w[at + (n - 1) * stride]:
        return n
    guess = (start - w[at]) // hop
    if guess < n and w[at + guess * stride] == start:
        return int(guess)
    return lower_bound(w, at, min(n, guess), stride, start)


@inlined
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
    index = lower_bound(w, at, n, MAP_ROW, x)
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


@inlined
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
        if e[row] >= w[NEWEST] - plan.maps[i, 2] and (e[row + 2 + g // 64] >> (g % 64)) & 1:
            pair = LEVELS + 2 * (plan.levels.shape[0] + i)
            _remember(w, pair, plan.maps[i, 1], e[row], e[row + 2 + plan.mask_words + g])


@inlined
def advance(w: Words, plan: Plan, newest: int) -> None:
    """Know that there is an event at `newest`, and let go of what no exact read can need from then on."""
    if newest <= w[NEWEST]:
        return
    w[NEWEST] = newest
    last = plan.levels.shape[0] - 1
    for level in range(last + 1):
        m, start = LEVELS + 2 * level, keep_from(plan, level, newest)
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


@inlined
def _update_tiles(w: Words, f: Floats, plan: Plan, e: Words, row: int) -> None:
    t, stride = e[row], 1 + plan.acc_words
    for level in range(plan.levels.shape[0]):
        hop, room, base = plan.levels[level, 0], plan.levels[level, 2], plan.levels[level, 3]
        m = LEVELS + 2 * level
        at, n = w[m], w[m + 1]
        newest = at + (n - 1) * stride
        if n > 0 and w[newest] <= t < w[newest] + hop:  # most events fall into the newest tile: no division
            add(w, f, newest + 1, plan, e, row)
            continue
        coarser = plan.levels[level - 1, 0] if level > 0 else 0
        if t < w[NEWEST] - plan.head - plan.levels[level, 1] - coarser - 2 * hop:  # nor for what is far too old
            continue
        start = t // hop * hop
        if not is_kept(plan, level, w[NEWEST], start):
            continue
        index = tile_bound(w, at, n, stride, hop, start)
        if index < n and w[at + index * stride] == start:
            tile = at + index * stride
        else:
            tile = _open_row(w, m, base, room, stride, index)
            w[tile] = start
            w[tile + 1 : tile + stride] = 0
        add(w, f, tile + 1, plan, e, row)


@inlined
def update(w: Words, f: Floats, plan: Plan, e: Words, row: int) -> None:
    """Take one event, the raw row at `e[row]`, into the working state `w` (`f` is the same memory as floats)."""
    t, lsn, stride = e[row], e[row + 1], plan.row_words
    w[EVENTS] += 1
    advance(w, plan, t)
    if plan.acc_words > 0:
        _update_tiles(w, f, plan, e, row)
    hop = plan.levels[plan.levels.shape[0] - 1, 0]
    if t < w[FOLD_UNTIL] or is_before_head(t, w[NEWEST] - plan.head, hop):
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
