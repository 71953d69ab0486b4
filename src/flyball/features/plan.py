"""From a view's declaration to the arrays that the kernel runs on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from flyball.define.expression import LEAVES, OPERATORS, leaves
from flyball.define.spec import AggregateSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import Plan
from flyball.features.kernel import LEVELS
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import canonical
from flyball.kernel.times import MINUTE, show_duration

Kind = Literal["whole", "float", "text"]

HEAD = 5 * MINUTE
RAW_LIMIT = 4096
MAX_TILES = 10_000  # of one window
_OPS = ("count", "sum", "mean", "std", "min", "max", "first", "last", "nth_last", "distinct")  # as `OP_…` are numbered
_ON_TEXT = ("count", "distinct")
_ON_CATEGORY = ("count", "first", "last", "nth_last", "distinct")
_PARTS = {"sum": 2, "mean": 2, "std": 3, "min": 4, "max": 5, "first": 6, "last": 7}  # columns of `Plan.groups`
_WIDTH = {2: 2, 3: 2, 4: 1, 5: 1, 6: 3, 7: 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A (value, filter) pair. `value` None counts rows. Whole values are int64 in units of 1/`divisor`."""

    value: list[Any] | None
    where: list[Any] | None
    kind: Kind
    divisor: float


def kind_of(expr: list[Any], source: SourceSpec) -> tuple[Kind, float]:
    """Whether an expression's values are kept as whole numbers, and in which fraction of one; by types alone."""
    op = expr[0]
    if op == "col":
        column = source.column(expr[2])
        if column.type == "decimal":
            return "whole", float(10**column.scale)
        return ("text" if column.type == "string" else "float" if column.type == "float" else "whole"), 1.0
    if op == "lit":
        return ("text" if isinstance(expr[1], str) else "whole" if isinstance(expr[1], bool) else "float"), 1.0
    if op in LEAVES:
        return "whole", 1.0
    result = OPERATORS[op].result
    if result != "same":
        return ("whole" if result == "boolean" else "float"), 1.0
    kinds = {kind_of(argument, source)[0] for argument in (expr[2:] if op == "where" else expr[1:])}
    if "text" in kinds:
        return "text", 1.0
    booleans = all(_is_boolean(argument, source) for argument in (expr[2:] if op == "where" else expr[1:]))
    return ("whole" if booleans else "float"), 1.0


def _is_boolean(expr: list[Any], source: SourceSpec) -> bool:
    if expr[0] == "col":
        return source.column(expr[2]).type == "boolean"
    if expr[0] == "lit":
        return isinstance(expr[1], bool)
    return expr[0] in OPERATORS and OPERATORS[expr[0]].result == "boolean"


def _refuse(view: ViewSpec, what: str, hint: str = "") -> InvalidError:
    return InvalidError(f"the view {view.name}: {what}", code="bad_view", hint=hint)


def check_expressions(view: ViewSpec, source: SourceSpec) -> None:
    """A view reads columns of its own source and the event's time, nothing else."""
    known = {c.name for c in source.columns}
    expressions = [e for a in view.aggregates for e in (a.value, a.where)] + [view.where]
    for leaf in (leaf for e in expressions if e is not None for leaf in leaves(e)):
        if leaf[0] == "view" or (leaf[0] == "col" and (leaf[1] != source.name or leaf[2] not in known)):
            raise _refuse(view, f"it can read the columns of {source.name}, not {leaf[1:]}")
    for name in (*view.entity, *(c.column for c in view.latest)):
        if name not in known:
            raise _refuse(view, f"{source.name} has no column {name!r}")


def window_groups(view: ViewSpec, source: SourceSpec) -> tuple[list[Group], list[int]]:
    """The distinct (value, filter) pairs of a window view, and which one each aggregate reads."""
    groups: dict[bytes, int] = {}
    found: list[Group] = []
    which = []
    for aggregate in view.aggregates:
        kind, divisor = kind_of(aggregate.value or ["time"], source)
        _check_aggregate(view, aggregate, source, kind)
        name = canonical([aggregate.value, aggregate.where])
        if name not in groups:
            groups[name] = len(found)
            found.append(Group(value=aggregate.value, where=aggregate.where, kind=kind, divisor=divisor))
        which.append(groups[name])
    return found, which


def _check_aggregate(view: ViewSpec, aggregate: AggregateSpec, source: SourceSpec, kind: Kind) -> None:
    if aggregate.op != "count" and aggregate.value is None:
        raise _refuse(view, f"{aggregate.name} needs a value for {aggregate.op}")
    if aggregate.window <= 0 or aggregate.hop <= 0 or aggregate.window // aggregate.hop > MAX_TILES:
        raise _refuse(
            view,
            f"{aggregate.name} has a window of {show_duration(aggregate.window)} in hops of "
            f"{show_duration(aggregate.hop)}; both are positive, and a window has at most {MAX_TILES} hops",
        )
    if kind == "text" and aggregate.op not in _ON_TEXT:
        raise _refuse(
            view,
            f"{aggregate.name} is the {aggregate.op} of text; count and distinct work on any column, first and last on "
            "a category",
            "declare the column with fb.Category and its values",
        )
    value = aggregate.value or ["lit", 0]
    is_category = value[0] == "col" and source.column(value[2]).type == "category"
    if is_category and aggregate.op not in _ON_CATEGORY:
        raise _refuse(view, f"{aggregate.name} is the {aggregate.op} of a category; use {', '.join(_ON_CATEGORY)}")


def latest_groups(view: ViewSpec, source: SourceSpec) -> list[Group]:
    groups = []
    for latest in view.latest:
        expr = ["col", source.name, latest.column]
        kind, divisor = kind_of(expr, source)
        if kind == "text":
            raise _refuse(
                view,
                f"{latest.name} is the latest value of the text column {latest.column!r}; a model takes numbers",
                "declare the column with fb.Category and its values",
            )
        groups.append(Group(value=expr, where=None, kind=kind, divisor=divisor))
    return groups


def window_plan(view: ViewSpec, source: SourceSpec, groups: list[Group], which: list[int], raw_limit: int) -> Plan:
    table, acc_words = _accumulator(view, groups, which)
    head = max(HEAD, source.skew)
    hops = {a.hop for a in view.aggregates}
    if min(hops) > HEAD:
        hops.add(HEAD)
    order = sorted(hops, reverse=True)
    for coarse, fine in pairwise(order):
        if coarse % fine:
            raise _refuse(view, f"the hops {show_duration(coarse)} and {show_duration(fine)} do not divide each other")
    windows = sorted({(a.window, order.index(a.hop)) for a in view.aggregates})
    masks, row_words = _row_words(groups)
    raw_at = LEVELS + 2 * len(order) + acc_words + row_words
    at = raw_at + 2 * raw_limit * row_words
    levels = np.zeros((len(order), 4), np.int64)
    for i, hop in enumerate(order):
        longest = max((w for w, level in windows if level == i), default=0)
        span = max(longest, order[i - 1] if i else 0) + head
        room = 2 * (span // hop + 4)  # twice: the front is freed by moving on, and reclaimed when the end is reached
        levels[i] = hop, longest, room, at
        at += room * (1 + acc_words)
    need = np.zeros((len(windows), len(groups)), np.bool_)
    outs = np.zeros((len(which), 4), np.int64)
    for k, aggregate in enumerate(view.aggregates):
        window = windows.index((aggregate.window, order.index(aggregate.hop)))
        need[window, which[k]] = True
        parameter = {"nth_last": aggregate.nth, "distinct": aggregate.cap}.get(aggregate.op, 0)
        outs[k] = _OPS.index(aggregate.op), which[k], window, parameter
    return Plan(
        acc_words=acc_words,
        row_words=row_words,
        mask_words=masks,
        head=head,
        latest=0,
        ttl=-1,
        raw_at=raw_at,
        raw_limit=raw_limit,
        words=at,
        levels=levels,
        groups=table,
        windows=np.array(windows, np.int64).reshape(-1, 2),
        need=need,
        outs=outs,
        divisor=np.array([groups[g].divisor for g in which], np.float64),
    )


def latest_plan(view: ViewSpec, source: SourceSpec, groups: list[Group], raw_limit: int) -> Plan:
    masks, row_words = _row_words(groups)
    table = np.full((len(groups), 8), -1, np.int64)
    table[:, 0] = [g.kind == "float" for g in groups]
    raw_at = LEVELS + 2 + row_words
    words = raw_at + 2 * raw_limit * row_words
    return Plan(
        acc_words=0,
        row_words=row_words,
        mask_words=masks,
        head=max(HEAD, source.skew),
        latest=1,
        ttl=-1 if view.ttl is None else view.ttl,
        raw_at=raw_at,
        raw_limit=raw_limit,
        words=words,
        levels=np.array([[1, 0, 0, words]], np.int64),
        groups=table,
        windows=np.zeros((0, 2), np.int64),
        need=np.zeros((0, len(groups)), np.bool_),
        outs=np.array([[0, g, 0, 0] for g in range(len(groups))], np.int64).reshape(-1, 4),
        divisor=np.array([g.divisor for g in groups], np.float64),
    )


def _row_words(groups: list[Group]) -> tuple[int, int]:
    masks = (len(groups) + 63) // 64
    return masks, 2 + masks + len(groups)


def _accumulator(view: ViewSpec, groups: list[Group], which: list[int]) -> tuple[Any, int]:
    table = np.full((len(groups), 8), -1, np.int64)
    at = 0
    for g, group in enumerate(groups):
        table[g, 0] = group.kind == "float"
        table[g, 1] = at
        at += 1
        ops = {a.op for a, w in zip(view.aggregates, which, strict=True) if w == g}
        for part in sorted({_PARTS[op] for op in ops if op in _PARTS}):
            table[g, part] = at
            at += _WIDTH[part]
    return table, at
