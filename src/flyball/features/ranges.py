"""A view's values at the rows of some entities, from ranges of sorted events: the training side of the window algebra.

The two paths share what an aggregate is: `plan` says which groups, windows and operators a view has, `accumulator` what
the words of a part mean and how they are finished into a value, and both read one interval, from the start of the
tail's hop up to the row's time. They differ in how parts are put together. Online there is one row and a past in tiles,
so `kernel` merges tiles; here there are many rows of one entity, so ranges slide (`running`) where a part has an exact
inverse, and are covered by nodes of a tree (`trees`, `moments`) where it has none. Both are held against one brute
force.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flyball.features.accumulator import (
    IS_FLOAT,
    OP_COUNT,
    OP_DISTINCT,
    OP_FIRST,
    OP_LAST,
    OP_MAX,
    OP_MEAN,
    OP_MIN,
    OP_NTH_LAST,
    OP_STD,
    OP_SUM,
    Flags,
    Floats,
    Plan,
    Words,
    finish,
)
from flyball.features.compiled import compiled
from flyball.features.moments import run_moments
from flyball.features.running import ACC, LAYOUT, run_distinct, run_sums
from flyball.features.trees import find, run_extreme
from flyball.features.visibility import Changes, Indices, Part, changes, ranges

_FITS = 4.0e18  # less than 2**62
_NO_WORDS, _NO_FLAGS = np.zeros(0, np.int64), np.zeros(0, np.bool_)
_SUMS = (OP_COUNT, OP_SUM, OP_MEAN, OP_STD)


class Answers:
    """The answers of one part, written as `values` and `valid` `(all rows, features)`; a null is its `nulls`."""

    def __init__(self, part: Part, plan: Plan, values: Floats, valid: Flags, nulls: Floats) -> None:
        self._part, self._plan = part, plan
        self._values, self._valid, self._nulls = values, valid, nulls
        self._found = np.empty((len(plan.outs), len(part.times)))  # by feature, NaN for null
        self._changes: Changes = changes(part)
        self._start, self._stop = ranges(part, plan)
        self._most = float(np.diff(part.event_at).max(initial=1))

    def windows(self) -> None:
        """Answer a window view: group by group, and for each what has the same structure."""
        for g in range(len(self._plan.groups)):
            features = np.flatnonzero(self._plan.outs[:, 1] == g).tolist()
            by_op = {op: [k for k in features if self._plan.outs[k, 0] == op] for op in range(OP_DISTINCT + 1)}
            if self._plan.groups[g, IS_FLOAT]:
                self._sums(g, by_op[OP_COUNT], counts=True)
                self._moments(g, [k for op in (OP_SUM, OP_MEAN, OP_STD) for k in by_op[op]])
            else:
                self._sums(g, [k for op in _SUMS for k in by_op[op]], counts=not any(by_op[op] for op in _SUMS[1:]))
            self._extremes(g, by_op[OP_MAX], 0)
            self._extremes(g, by_op[OP_MIN], -1)
            self._ordered(g, by_op[OP_FIRST] + by_op[OP_LAST] + by_op[OP_NTH_LAST])
            self._distinct(g, by_op[OP_DISTINCT])
        _scatter(self._found, self._part.to, self._nulls, self._values, self._valid)

    def latest(self) -> None:
        """Answer a latest view: the newest event's values, if it is not older than the view's time to live."""
        part, plan = self._part, self._plan
        since = np.repeat(part.event_at[:-1], np.diff(part.row_at)).astype(np.int32)[None]
        found = np.empty_like(since)
        find(_NO_FLAGS, len(part.t), since, self._stop, self._changes, np.ones(1, np.int64), found)
        event = found[0]
        if plan.ttl >= 0 and len(part.t):
            event = np.where(part.t[event] >= part.times - plan.ttl, event, -1)
        for k, g in enumerate(plan.outs[:, 1].tolist()):
            present = part.present[g]
            own = event if present is None or not len(event) else np.where(_at(present, event), event, -1)
            self._give_events(k, g, own)
        _scatter(self._found, part.to, self._nulls, self._values, self._valid)

    # --- one structure each

    def _sums(self, g: int, features: list[int], *, counts: bool) -> None:
        if not features:
            return
        v, p = self._words(g), self._flags(g)
        v = _NO_WORDS if counts else v
        largest = max(float(v.max(initial=0)), -float(v.min(initial=0)))
        wide = self._most * largest >= _FITS or self._most * largest * largest >= _FITS
        windows, acc = self._room(features)
        std = [k for k in features if self._plan.outs[k, 0] == OP_STD]
        part, start = self._part, self._start[windows]
        run_sums(v, p, part.row_at, start, self._stop, self._changes, wide, bool(std), acc, _floats(acc))
        self._give(features, windows, acc, is_float=0)
        if std and self._most * largest >= 2 * _FITS:
            self._large_std(v, p, std)

    def _large_std(self, v: Words, p: Flags, features: list[int]) -> None:
        """Deviations of whole numbers whose squares 128 bits may not hold, where that is so."""
        part = self._part
        sizes = np.diff(part.event_at)
        events = np.abs(v.astype(np.float64))
        largest = np.zeros(len(sizes))
        np.maximum.at(largest, np.repeat(np.arange(len(sizes)), sizes), events)
        rows = np.repeat(sizes * largest >= 2 * _FITS, np.diff(part.row_at))
        windows, acc = self._room(features)
        self._run_moments(v.astype(np.float64), p, windows, acc)
        self._give(features, windows, acc, is_float=1, only=rows)

    def _moments(self, g: int, features: list[int]) -> None:
        if features:
            windows, acc = self._room(features)
            self._run_moments(self._words(g).view(np.float64), self._flags(g), windows, acc)
            self._give(features, windows, acc, is_float=1)

    def _run_moments(self, y: Floats, p: Flags, windows: list[int], acc: Words) -> None:
        part, start = self._part, self._start[windows]
        run_moments(y, p, part.event_at, part.row_at, start, self._stop, self._changes, acc, _floats(acc))

    def _extremes(self, g: int, features: list[int], flip: int) -> None:
        if features:
            is_float = bool(self._plan.groups[g, IS_FLOAT])
            windows, acc = self._room(features)
            start = self._start[windows]
            run_extreme(self._words(g), self._flags(g), start, self._stop, self._changes, is_float, flip, acc)
            self._give(features, windows, acc, is_float=int(is_float))

    def _ordered(self, g: int, features: list[int]) -> None:
        if not features:
            return
        outs = self._plan.outs[features]
        nth = np.where(outs[:, 0] == OP_FIRST, 0, np.where(outs[:, 0] == OP_LAST, 1, outs[:, 3]))
        start = self._start[outs[:, 2]]
        found = np.empty_like(start)
        find(self._flags(g), len(self._part.t), start, self._stop, self._changes, nth, found)
        for k, event in zip(features, found, strict=True):
            self._give_events(k, g, event)

    def _distinct(self, g: int, features: list[int]) -> None:
        if not features:
            return
        part, (windows, acc) = self._part, self._room(features)
        start = self._start[windows]
        run_distinct(self._words(g), self._flags(g), part.event_at, part.row_at, start, self._stop, self._changes, acc)
        for k in features:
            counted = acc[windows.index(int(self._plan.outs[k, 2]))].copy()
            np.minimum(counted[:, 0], self._plan.outs[k, 3], out=counted[:, 0])
            self._finish(k, counted, 0, OP_COUNT)

    # --- from accumulators to values

    def _words(self, g: int) -> Words:
        values = self._part.values[g]
        return _NO_WORDS if values is None else values

    def _flags(self, g: int) -> Flags:
        present = self._part.present[g]
        return _NO_FLAGS if present is None else present

    def _room(self, features: Sequence[int]) -> tuple[list[int], Words]:
        """The windows of features, the shortest first, and an accumulator for each of their rows."""
        windows = sorted({int(w) for w in self._plan.outs[features, 2]}, key=lambda w: int(self._plan.windows[w, 0]))
        return windows, np.zeros((len(windows), len(self._stop), ACC), np.int64)

    def _give(
        self, features: list[int], windows: list[int], acc: Words, *, is_float: int, only: Flags | None = None
    ) -> None:
        for k in features:
            op, window = int(self._plan.outs[k, 0]), int(self._plan.outs[k, 2])
            self._finish(k, acc[windows.index(window)], 1 if op == OP_STD else is_float, op, only)

    def _give_events(self, k: int, g: int, event: Indices) -> None:
        """Values of feature `k` from the events that its rows found (-1: none)."""
        acc = np.zeros((len(event), ACC), np.int64)
        acc[:, 0] = event >= 0
        acc[:, 9] = _at(self._words(g), event)
        self._finish(k, acc, int(self._plan.groups[g, IS_FLOAT]), OP_FIRST)

    def _finish(self, k: int, acc: Words, is_float: int, op: int, only: Flags | None = None) -> None:
        words = acc.reshape(-1)
        rows = _NO_FLAGS if only is None else only
        _finish(words, words.view(np.float64), LAYOUT[is_float], op, self._plan.divisor[k], rows, self._found[k])


def _floats(acc: Words) -> Floats:
    return acc.view(np.float64)


def _at(values: Words, event: Indices) -> Words:
    return values[event] if len(values) else np.zeros(len(event), values.dtype)


@compiled
def _finish(w: Words, f: Floats, layout: Words, op: int, divisor: float, only: Flags, found: Floats) -> None:
    """Finish the accumulators of all rows (or `only` some), NaN for null."""
    for r in range(found.shape[0]):
        if only.shape[0] == 0 or only[r]:
            value, there = finish(w, f, r * ACC, layout, op, divisor)
            found[r] = value if there else np.nan


@compiled
def _scatter(found: Floats, to: Indices, nulls: Floats, values: Floats, valid: Flags) -> None:
    for r in range(to.shape[0]):
        for k in range(found.shape[0]):
            value = nulls[k] if np.isnan(found[k, r]) else found[k, r]
            values[to[r], k] = value
            valid[to[r], k] = not np.isnan(value)
