"""The kernel over many states at once: the online update, the online read, and packed states.

A *working* state has room to grow (`Plan.words`); a *packed* one is the same words without the room, as it is stored.
"""

from __future__ import annotations

import math

import numpy as np

from flyball.features.accumulator import COLUMNS, Flags, Floats, Plan, Words
from flyball.features.compiled import compiled
from flyball.features.kernel import (
    FLOOR,
    LEVELS,
    MAP_ROW,
    NEWEST,
    RAW_AT,
    RAW_N,
    SIZE,
    advance,
    reset,
    update,
)
from flyball.features.reading import read, scratch_words

_NUMBERS = 13  # of a plan; its tables follow


@compiled
def _copy(w: Words, m: int, size: int, to: Words, o: int, at: int) -> int:
    """Copy a region of `size` words, that the meta word `m` points to, to `to[o + at:]`; returns where it ends."""
    begin = w[m]
    for k in range(size):
        to[o + at + k] = w[begin + k]
    to[o + m] = at
    return at + size


@compiled
def _pack(w: Words, plan: Plan, to: Words, o: int) -> int:
    """Write the working state `w` as a packed one to `to[o:]`; returns the position after it."""
    at = plan.fixed
    to[o : o + at] = w[:at]
    at = _copy(w, RAW_AT, w[RAW_N] * plan.row_words, to, o, at)
    levels = plan.levels.shape[0]
    for i in range(plan.maps.shape[0]):  # without the values that no exact read can need
        m, since = LEVELS + 2 * (levels + i), w[NEWEST] - plan.maps[i, 2]
        begin = at
        for k in range(w[m], w[m] + w[m + 1] * MAP_ROW, MAP_ROW):
            if w[k + 1] >= since:
                to[o + at], to[o + at + 1] = w[k], w[k + 1]
                at += MAP_ROW
        to[o + m], to[o + m + 1] = begin, (at - begin) // MAP_ROW
    for level in range(levels):
        m = LEVELS + 2 * level
        at = _copy(w, m, w[m + 1] * (1 + plan.acc_words), to, o, at)
    to[o + SIZE] = at
    end: int = o + at
    return end


@compiled
def _take(blob: Words, o: int, m: int, size: int, w: Words, base: int) -> None:
    at = o + blob[o + m]
    for k in range(size):
        w[base + k] = blob[at + k]
    w[m] = base


@compiled
def _unpack(blob: Words, o: int, plan: Plan, w: Words) -> None:
    """Make the packed state at `blob[o]` the working state `w`."""
    w[: plan.fixed] = blob[o : o + plan.fixed]
    _take(blob, o, RAW_AT, w[RAW_N] * plan.row_words, w, plan.raw_at)
    levels = plan.levels.shape[0]
    for i in range(plan.maps.shape[0]):
        m = LEVELS + 2 * (levels + i)
        _take(blob, o, m, w[m + 1] * MAP_ROW, w, plan.maps[i, 3])
    for level in range(levels):
        m = LEVELS + 2 * level
        _take(blob, o, m, w[m + 1] * (1 + plan.acc_words), w, plan.levels[level, 3])


@compiled
def apply(
    plan: Plan, blob: Words, blob_at: Words, events: Words, event_at: Words, out: Words, out_at: Words, floor: int
) -> None:
    """Update packed states: `blob[blob_at[k]:]` (-1: a new entity, of which
    nothing is known before `floor`) takes `events[event_at[k]:event_at[k + 1]]`.

    The results are packed one after another into `out`; `out_at[k]` is where the k-th begins.
    """
    w = np.zeros(plan.words, np.int64)
    f = w.view(np.float64)
    to = 0
    for k in range(blob_at.shape[0]):
        if blob_at[k] < 0:
            reset(w, plan)
            w[FLOOR] = floor
        else:
            _unpack(blob, blob_at[k], plan, w)
        newest = w[NEWEST]
        for event in range(event_at[k], event_at[k + 1]):
            newest = max(newest, events[event * plan.row_words])
        advance(w, plan, newest)  # at once: what no read after the batch can need is not built
        for event in range(event_at[k], event_at[k + 1]):
            update(w, f, plan, events, event * plan.row_words)
        out_at[k] = to
        to = _pack(w, plan, out, to)
    out_at[blob_at.shape[0]] = to


@compiled
def read_states(
    plan: Plan, blob: Words, blob_at: Words, entity: Words, times: Words, values: Floats, valid: Flags, exact: Flags
) -> None:
    """Read, for each row, the packed state at `blob[blob_at[entity[row]]]` at `times[row]`."""
    acc = np.zeros(scratch_words(plan), np.int64)
    f, facc = blob.view(np.float64), acc.view(np.float64)
    for row in range(times.shape[0]):
        exact[row] = read(blob, f, blob_at[entity[row]], plan, times[row], acc, facc, values[row], valid[row])


def flat(plan: Plan, defaults: Floats) -> Words:
    """All that reading one state needs of a view, in one array: handing over a plan costs more than reading a state."""
    numbers = [value for value in plan if isinstance(value, int)]
    tables = [plan.levels, plan.groups, plan.windows, plan.lists, plan.maps, plan.outs]
    sizes = [len(table) for table in tables]
    floats = np.concatenate([plan.divisor, defaults]).view(np.int64)
    return np.concatenate([np.array(numbers + sizes, np.int64), *(table.reshape(-1) for table in tables), floats])


@compiled
def _table(p: Words, at: int, i: int, columns: int) -> tuple[Words, int]:
    rows = p[_NUMBERS + i]
    return p[at : at + rows * columns].reshape((rows, columns)), at + rows * columns


@compiled
def read_one(p: Words, blob: Words, t: int, acc: Words, values: Floats, valid: Flags) -> bool:
    """Read the packed state at the beginning of `blob` at `t`, with defaults in the place of nulls; is it exact.

    Args:
        p: `flat`.
        acc: scratch, of `scratch_words`.
    """
    at = _NUMBERS + 6
    levels, at = _table(p, at, 0, 4)
    groups, at = _table(p, at, 1, COLUMNS)
    windows, at = _table(p, at, 2, 2)
    lists, at = _table(p, at, 3, 3)
    maps, at = _table(p, at, 4, 4)
    outs, at = _table(p, at, 5, 5)
    n = outs.shape[0]
    divisor, defaults = p[at : at + n].view(np.float64), p[at + n : at + 2 * n].view(np.float64)
    need = p[:0].view(np.bool_).reshape((0, 1))  # for partial merges, which no read does
    plan = Plan(
        p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12],
        levels, groups, windows, need, lists, maps, outs, divisor,
    )  # fmt: skip
    exact = read(blob, blob.view(np.float64), 0, plan, t, acc, acc.view(np.float64), values, valid)
    for k in range(n):
        if not valid[k]:
            values[k], valid[k] = defaults[k], not math.isnan(defaults[k])
    return exact


@compiled
def empty(plan: Plan) -> Words:
    """The packed state of an entity that saw nothing."""
    w = np.zeros(plan.words, np.int64)
    reset(w, plan)
    out = np.zeros(plan.fixed, np.int64)
    _pack(w, plan, out, 0)
    return out
