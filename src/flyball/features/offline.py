"""Views as training sees them: every row's values from the events that were visible at its time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.define.expression import leaves
from flyball.features.accumulator import OP_COUNT, Flags, Floats, Words
from flyball.features.entities import event_codes, place, settle
from flyball.features.evaluate import evaluate
from flyball.features.frames import CURRENT, vector, words
from flyball.features.keys import Keys
from flyball.features.plan import Group
from flyball.features.ranges import Answers
from flyball.features.vector import LeafKey, Vector, column_key, logical
from flyball.features.views import CompiledView, ViewValues
from flyball.features.visibility import Indices, Part

AsOf = Literal["known", "event"]
_THREADS = min(os.cpu_count() or 1, 8)
_SMALL = 20_000  # events and rows that one thread does at once


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """What is read of events: per group its words (None: none are needed) and where it is present (None: everywhere).

    `wanted`: the events that pass the view's filter; None for all.
    """

    values: list[Words | None]
    present: list[Flags | None]
    wanted: Flags | None


def sweep(
    view: CompiledView,
    events: pl.DataFrame,
    keys: Keys,
    times: Words,
    *,
    asof: AsOf = "known",
) -> ViewValues:
    """Read `view` for `n` rows at their times, each from the events that were visible then. Always exact.

    Args:
        events: physical frame of the view's source, each event once; or its versions, with `_until`
            (`frames.history`).
        keys: the rows' entities (`encode_keys`); a row without one gets the defaults.
        times: `(n,)` microseconds, in any order.
        asof: `known` sees event_time < t and known_at <= t < _until; `event` sees event_time < t alone, of the versions
            that no other has taken the place of.
    """
    return sweep_codes(
        view, events, event_codes(events, view.entity, keys), keys.codes, keys.entities, times, asof=asof
    )


def sweep_codes(
    view: CompiledView,
    events: pl.DataFrame,
    codes: Indices,
    row_codes: Words,
    entities: int,
    times: Words,
    *,
    asof: AsOf = "known",
) -> ViewValues:
    """`sweep`, where the entities of events and rows are coded alike: 0 to `entities`, -1 for none."""
    if asof == "event" and "_until" in events.columns and bool((events["_until"] < CURRENT).any()):
        final = (events["_until"] == CURRENT).to_numpy()
        events, codes = events.filter(pl.Series(final)), codes[final]
    lsn = words(events, "_lsn")
    if (lsn[1:] < lsn[:-1]).any():
        order = np.argsort(lsn, kind="stable")
        events, codes = events[order], codes[order]
    columns = _columns_of(view, events)
    if columns.wanted is not None:
        codes = np.where(columns.wanted, codes, np.int32(-1))
    part = _sorted_part(events, columns, codes, row_codes, entities, times, asof)
    n, features = len(times), len(view.spec.features)
    values, valid = np.empty((n, features)), np.empty((n, features), np.bool_)
    _answer(view, part, values, valid)
    return ViewValues(values=values, valid=valid, exact=np.ones(n, np.bool_))


# --- events as columns


def _columns_of(view: CompiledView, events: pl.DataFrame) -> _Columns:
    n, source = len(events), view.source
    expressions = [g.value for g in view.groups if g.value is not None and g.value[0] != "col"]
    expressions += [g.where for g in view.groups if g.where is not None]
    expressions += [view.spec.where] if view.spec.where is not None else []
    found: dict[LeafKey, Vector] = {("time",): Vector(words(events, "_event_time"), np.ones(n, np.bool_))}
    for name in {leaf[2] for expr in expressions for leaf in leaves(expr) if leaf[0] == "col"}:
        found[column_key(source.name, name)] = logical(vector(events[name]), source.column(name))
    counts_only = _counted(view)
    values: list[Words | None] = []
    present: list[Flags | None] = []
    for g, group in enumerate(view.groups):
        own, there = _group_words(view, group, events, found, need=g not in counts_only)
        if group.where is not None:
            there = _true(group.where, found, n) if there is None else there & _true(group.where, found, n)
        values.append(own)
        present.append(there)
    wanted = None if view.spec.where is None else _true(view.spec.where, found, n)
    return _Columns(values=values, present=present, wanted=wanted)


def _counted(view: CompiledView) -> set[int]:
    """The groups of which nothing but the count is asked."""
    if view.plan.latest:
        return set()
    asked = {int(g) for op, g in view.plan.outs[:, :2] if op != OP_COUNT}
    return set(range(len(view.groups))) - asked


def _group_words(
    view: CompiledView, group: Group, events: pl.DataFrame, found: dict[LeafKey, Vector], *, need: bool
) -> tuple[Words | None, Flags | None]:
    """A group's values as 64-bit words (None: not needed), and where there are any (None: everywhere)."""
    if group.value is None:
        return None, None
    if group.value[0] == "col":
        return _column_words(events[group.value[2]], view.source.column(group.value[2]).categories, need=need)
    got = evaluate(group.value, found, rows=len(events))
    valid = got.valid
    if got.values.dtype == object:
        series = pl.Series(got.values.tolist(), dtype=pl.String)
        return (_text_words(series) if need else None), _unless_all(valid)
    if group.kind == "whole":
        return np.where(valid, got.values.astype(np.int64), 0), _unless_all(valid)
    floats = np.ascontiguousarray(got.values, np.float64)
    valid = valid & np.isfinite(floats)
    return np.where(valid, floats + 0.0, 0.0).view(np.int64), _unless_all(valid)


def _column_words(series: pl.Series, categories: Sequence[str], *, need: bool) -> tuple[Words | None, Flags | None]:
    if categories:
        series = series.cast(pl.Enum(list(categories)), strict=False).to_physical()
    if series.dtype == pl.Float64:
        series = pl.select(pl.when(series.is_finite()).then(series + 0.0)).to_series() if need else series
    there = series.is_not_null().to_numpy() if series.null_count() else None
    if not need:
        return None, there
    if series.dtype == pl.String:
        return _text_words(series), there
    filled = series if there is None else series.fill_null(False if series.dtype == pl.Boolean else 0)
    values = filled.to_numpy() if filled.dtype != pl.Boolean else filled.cast(pl.Int64).to_numpy()
    if values.dtype == np.float64:
        return np.ascontiguousarray(values).view(np.int64), there
    return np.ascontiguousarray(values, np.int64), there


def _text_words(series: pl.Series) -> Words:
    """A number for each text, equal where texts are; within this frame only."""
    return series.fill_null("").rank("dense").cast(pl.Int64).to_numpy()


def _unless_all(valid: Flags) -> Flags | None:
    return None if valid.all() else valid


def _true(expr: list[Any], found: dict[LeafKey, Vector], n: int) -> Flags:
    condition = evaluate(expr, found, rows=n)
    true: Flags = condition.valid & condition.values.astype(np.bool_)
    return true


# --- events and rows by entity


def _sorted_part(
    events: pl.DataFrame,
    columns: _Columns,
    codes: Indices,
    row_codes: Words,
    entities: int,
    times: Words,
    asof: AsOf,
) -> Part:
    own = np.where(row_codes < 0, entities, row_codes).astype(np.int32)  # nobody's rows come last
    row_at, to, row_times = place(own, np.ascontiguousarray(times, np.int64), entities + 1)
    event_at, order, t = place(codes, words(events, "_event_time"), entities + 1)
    cuts = _cuts(event_at, row_at)
    _each(lambda low, high: settle(event_at, order, t, low, high), cuts)
    _each(lambda low, high: settle(row_at, to, row_times, low, high), cuts)
    columns_at: list[npt.NDArray[Any] | None] = [*columns.values, *columns.present, None, None]
    if asof == "known":
        columns_at[-2] = words(events, "_known_at")
        if "_until" in events.columns and bool((events["_until"] < CURRENT).any()):
            columns_at[-1] = words(events, "_until")
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda column: None if column is None else column[order], columns_at))
    groups = len(columns.values)
    return Part(
        t=t,
        known=found[-2],
        until=found[-1],
        values=found[:groups],
        present=found[groups:-2],
        event_at=event_at,
        row_at=row_at,
        times=row_times,
        to=to,
    )


def _cuts(event_at: Words, row_at: Words) -> Words:
    """Bounds of ranges of entities with about as much work each, several for each thread."""
    work = event_at + 8 * row_at
    parts = 1 if work[-1] < _SMALL else 8 * _THREADS
    inner = np.searchsorted(work, work[-1] * np.arange(1, parts) // parts)
    return np.unique(np.array([0, *inner, len(event_at) - 1], np.int64))


def _each(function: Callable[[int, int], None], cuts: Words) -> None:
    pairs = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
    if len(pairs) == 1:
        function(*pairs[0])
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda pair: function(*pair), pairs))


def _slice(part: Part, low: int, high: int) -> Part:
    """The entities `low` to `high`."""
    e0, e1, r0, r1 = part.event_at[low], part.event_at[high], part.row_at[low], part.row_at[high]
    return Part(
        t=part.t[e0:e1],
        known=None if part.known is None else part.known[e0:e1],
        until=None if part.until is None else part.until[e0:e1],
        values=[None if v is None else v[e0:e1] for v in part.values],
        present=[None if p is None else p[e0:e1] for p in part.present],
        event_at=part.event_at[low : high + 1] - e0,
        row_at=part.row_at[low : high + 1] - r0,
        times=part.times[r0:r1],
        to=part.to[r0:r1],
    )


def _answer(view: CompiledView, part: Part, values: Floats, valid: Flags) -> None:
    nulls = np.ascontiguousarray(view.defaults, np.float64)

    def one(low: int, high: int) -> None:
        answers = Answers(_slice(part, low, high), view.plan, values, valid, nulls)
        if view.plan.latest:
            answers.latest()
        else:
            answers.windows()

    _each(one, _cuts(part.event_at, part.row_at))
