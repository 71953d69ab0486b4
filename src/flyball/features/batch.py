"""The kernel over many states at once: the online update, the online read, and packed states.

A *working* state has room to grow (`Plan.words`); a *packed* one is the same words without the room, as it is stored.
"""

from __future__ import annotations

import numpy as np

from flyball.features.accumulator import Flags, Floats, Plan, Words
from flyball.features.compiled import compiled
from flyball.features.kernel import LEVELS, RAW_AT, RAW_N, SIZE, read, reset, update


@compiled
def _pack(w: Words, plan: Plan, to: Words, o: int) -> int:
    """Write the working state `w` as a packed one to `to[o:]`; returns the position after it."""
    fixed = LEVELS + 2 * plan.levels.shape[0] + plan.acc_words + plan.row_words
    to[o : o + fixed] = w[:fixed]
    at = fixed
    size = w[RAW_N] * plan.row_words
    to[o + at : o + at + size] = w[w[RAW_AT] : w[RAW_AT] + size]
    to[o + RAW_AT] = at
    at += size
    for level in range(plan.levels.shape[0]):
        m = LEVELS + 2 * level
        size = w[m + 1] * (1 + plan.acc_words)
        to[o + at : o + at + size] = w[w[m] : w[m] + size]
        to[o + m] = at
        at += size
    to[o + SIZE] = at
    end: int = o + at
    return end


@compiled
def _unpack(blob: Words, o: int, plan: Plan, w: Words) -> None:
    """Make the packed state at `blob[o]` the working state `w`."""
    fixed = LEVELS + 2 * plan.levels.shape[0] + plan.acc_words + plan.row_words
    w[:fixed] = blob[o : o + fixed]
    at, size = o + blob[o + RAW_AT], blob[o + RAW_N] * plan.row_words
    w[plan.raw_at : plan.raw_at + size] = blob[at : at + size]
    w[RAW_AT] = plan.raw_at
    for level in range(plan.levels.shape[0]):
        m, base = LEVELS + 2 * level, plan.levels[level, 3]
        at, size = o + blob[o + m], blob[o + m + 1] * (1 + plan.acc_words)
        w[base : base + size] = blob[at : at + size]
        w[m] = base


@compiled
def apply(plan: Plan, blob: Words, blob_at: Words, events: Words, event_at: Words, out: Words, out_at: Words) -> None:
    """Update packed states: `blob[blob_at[k]:]` (-1: a new entity) takes `events[event_at[k]:event_at[k + 1]]`.

    The results are packed one after another into `out`; `out_at[k]` is where the k-th begins.
    """
    w = np.zeros(plan.words, np.int64)
    f = w.view(np.float64)
    to = 0
    for k in range(blob_at.shape[0]):
        if blob_at[k] < 0:
            reset(w, plan)
        else:
            _unpack(blob, blob_at[k], plan, w)
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
    acc = np.zeros(2 * plan.acc_words, np.int64)
    f, facc = blob.view(np.float64), acc.view(np.float64)
    for row in range(times.shape[0]):
        exact[row] = read(blob, f, blob_at[entity[row]], plan, times[row], acc, facc, values[row], valid[row])


@compiled
def empty(plan: Plan) -> Words:
    """The packed state of an entity that saw nothing."""
    w = np.zeros(plan.words, np.int64)
    reset(w, plan)
    out = np.zeros(LEVELS + 2 * plan.levels.shape[0] + plan.acc_words + plan.row_words, np.int64)
    _pack(w, plan, out, 0)
    return out
