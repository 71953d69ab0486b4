"""From a view's declaration to the arrays that the kernel runs on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from flyball.define.expression import LEAVES, OPERATORS, leaves
from flyball.define.spec import AggregateSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import COLUMNS, IS_FLOAT, PARTS, REST, WIDTHS, Plan, is_additive
from flyball.features.kernel import LEVELS, LIST_ROW, MAP_ROW
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import canonical
from flyball.kernel.times import MINUTE, show_duration

Kind = Literal["whole", "float", "text"]

HEAD = 5 * MINUTE
RAW_LIMIT = 4096
MAX_TILES = 10_000  # of one window
MAX_NTH = 100
MAX_CAP = 10_000  # distinct values of an entity that are remembered
_OPS = ("count", "sum", "mean", "std", "min", "max", "first", "last", "nth_last", "distinct")  # as `OP_…` are numbered
_PICKS = ("first", "last", "nth_last")
_ON_TEXT = ("count", "distinct")
_ON_CATEGORY = ("count", "first", "last", "nth_last", "distinct")


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A (value, filter) pair. `value` None counts rows. Whole values are int64 in units of 1/`divisor`.

    Of text only that it is there is kept, or, where distinct ones are counted (`hashed`), a hash of 64 bits.
    """

    value: list[Any] | None
    where: list[Any] | None
    kind: Kind
    divisor: float
    hashed: bool = False


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
        if kind == "text" and aggregate.op == "distinct":
            found[groups[name]] = replace(found[groups[name]], hashed=True)
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
    _check_parameters(view, aggregate)
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
    picked = source.column(value[2]).type if value[0] == "col" and aggregate.op in _PICKS else ""
    if picked in ("boolean", "category") and aggregate.default is not None:
        raise _refuse(view, f"{aggregate.name} picks a {picked}, which has no default; leave it out")


def _check_parameters(view: ViewSpec, aggregate: AggregateSpec) -> None:
    if aggregate.op == "nth_last" and not 1 <= aggregate.nth <= MAX_NTH:
        raise _refuse(view, f"{aggregate.name} is the last but {aggregate.nth - 1}; 1 to {MAX_NTH} values are kept")
    if aggregate.op == "distinct" and not 1 <= aggregate.cap <= MAX_CAP:
        raise _refuse(view, f"{aggregate.name} counts up to {aggregate.cap} values; a cap is 1 to {MAX_CAP}")


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
    table, acc_words, additive = _accumulator(view, groups, which)
    head = max(HEAD, source.skew)
    order = _hops(view)
    windows = sorted({(a.window, order.index(a.hop)) for a in view.aggregates})
    masks, row_words = _row_words(groups)
    lists, maps = _kept(view, groups, which)
    fold_at = LEVELS + 2 * (len(order) + len(maps))
    at = closed_at = fold_at + acc_words
    for row in lists:
        row[2] = at
        at += 1 + LIST_ROW * row[1]
    fixed = raw_at = at
    at += 2 * raw_limit * row_words
    for row in maps:
        row[2] += head + order[0]
        row[3] = at
        at += MAP_ROW * row[1]
    levels = np.zeros((len(order), 4), np.int64)
    for i, hop in enumerate(order):
        longest = max((w for w, level in windows if level == i), default=0)
        span = max(longest, order[i - 1] if i else 0) + head
        room = 2 * (span // hop + 4)  # twice: the front is freed by moving on, and reclaimed when the end is reached
        levels[i] = hop, longest, room, at
        at += room * (1 + acc_words)
    need = np.zeros((len(windows), len(groups)), np.bool_)
    outs = np.zeros((len(which), 5), np.int64)
    for k, aggregate in enumerate(view.aggregates):
        window = windows.index((aggregate.window, order.index(aggregate.hop)))
        need[window, which[k]] |= aggregate.op in PARTS
        outs[k] = _OPS.index(aggregate.op), which[k], window, *_slot(aggregate, which[k], lists, maps)
    return Plan(
        acc_words=acc_words,
        row_words=row_words,
        mask_words=masks,
        additive=additive,
        head=head,
        latest=0,
        ttl=-1,
        fold_at=fold_at,
        closed_at=closed_at,
        fixed=fixed,
        raw_at=raw_at,
        raw_limit=raw_limit,
        words=at,
        levels=levels,
        groups=table,
        windows=np.array(windows, np.int64).reshape(-1, 2),
        need=need,
        lists=np.array(lists, np.int64).reshape(-1, 3),
        maps=np.array(maps, np.int64).reshape(-1, 4),
        outs=outs,
        divisor=np.array([groups[g].divisor for g in which], np.float64),
    )


def _hops(view: ViewSpec) -> list[int]:
    """The hops of the tiles, coarse to fine: each divides the one before."""
    hops = {a.hop for a in view.aggregates}
    if min(hops) > HEAD:
        hops.add(HEAD)
    order = sorted(hops, reverse=True)
    for coarse, fine in pairwise(order):
        if coarse % fine:
            raise _refuse(view, f"the hops {show_duration(coarse)} and {show_duration(fine)} do not divide each other")
    return order


def _kept(view: ViewSpec, groups: list[Group], which: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """What is kept per entity, not per tile: `Plan.lists` and `Plan.maps`, their positions still 0."""
    lists, maps = [], []
    for g in range(len(groups)):
        mine = [a for a, group in zip(view.aggregates, which, strict=True) if group == g]
        nth = max((a.nth if a.op == "nth_last" else 1 for a in mine if a.op in ("last", "nth_last")), default=0)
        if nth:
            lists.append([g, nth, 0])
        distinct = [a for a in mine if a.op == "distinct"]
        if distinct:
            maps.append([g, max(a.cap for a in distinct), max(a.window for a in distinct), 0])
    return lists, maps


def _slot(aggregate: AggregateSpec, group: int, lists: list[list[int]], maps: list[list[int]]) -> tuple[int, int]:
    """An operator's parameter, and which list or map answers it."""
    if aggregate.op in ("last", "nth_last"):
        return aggregate.nth if aggregate.op == "nth_last" else 1, [row[0] for row in lists].index(group)
    if aggregate.op == "distinct":
        return aggregate.cap, [row[0] for row in maps].index(group)
    return 0, -1


def latest_plan(view: ViewSpec, source: SourceSpec, groups: list[Group], raw_limit: int) -> Plan:
    masks, row_words = _row_words(groups)
    table = np.full((len(groups), COLUMNS), -1, np.int64)
    table[:, IS_FLOAT] = [g.kind == "float" for g in groups]
    closed_at = LEVELS + 2
    raw_at = closed_at + row_words
    words = raw_at + 2 * raw_limit * row_words
    return Plan(
        acc_words=0,
        row_words=row_words,
        mask_words=masks,
        additive=0,
        head=max(HEAD, source.skew),
        latest=1,
        ttl=-1 if view.ttl is None else view.ttl,
        fold_at=closed_at,
        closed_at=closed_at,
        fixed=raw_at,
        raw_at=raw_at,
        raw_limit=raw_limit,
        words=words,
        levels=np.array([[1, 0, 0, words]], np.int64),
        groups=table,
        windows=np.zeros((0, 2), np.int64),
        need=np.zeros((0, len(groups)), np.bool_),
        lists=np.zeros((0, 3), np.int64),
        maps=np.zeros((0, 4), np.int64),
        outs=np.array([[0, g, 0, 0, -1] for g in range(len(groups))], np.int64).reshape(-1, 5),
        divisor=np.array([g.divisor for g in groups], np.float64),
    )


def _row_words(groups: list[Group]) -> tuple[int, int]:
    masks = (len(groups) + 63) // 64
    return masks, 2 + masks + len(groups)


def _accumulator(view: ViewSpec, groups: list[Group], which: list[int]) -> tuple[Any, int, int]:
    """`Plan.groups`, the words of an accumulator, and how many of them, at its beginning, are additive."""
    table = np.full((len(groups), COLUMNS), -1, np.int64)
    wanted = []
    for g, group in enumerate(groups):
        is_float = group.kind == "float"
        table[g, IS_FLOAT], table[g, REST] = is_float, 0
        ops = {a.op for a, w in zip(view.aggregates, which, strict=True) if w == g}
        parts = {part for op in ops if op in PARTS for part in PARTS[op][is_float]}
        wanted += [(not is_additive(part, is_float=is_float), g, part, WIDTHS[part][is_float]) for part in parts]
    at = additive = 0
    for rest, g, part, width in sorted(wanted):
        table[g, part] = at
        at += width
        table[g, REST] = table[g, REST] == 1 or rest
        additive = additive if rest else at
    return table, at, additive
