"""The oracle: views by their definition, in plain Python with exact fractions, in O(rows times events)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flyball.define.spec import AggregateSpec, SourceSpec, ViewSpec


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event with physical values; `known` is when it became visible.

    Events of one `key` (None: one that no other event has) are duplicates or versions of each other.
    """

    lsn: int
    t: int
    known: int
    values: dict[str, Any]
    key: int | None = None
    deleted: bool = False


def versions(events: list[Event]) -> list[list[Event]]:
    """The events of each key."""
    found: dict[tuple[str, int], list[Event]] = {}
    for e in events:
        found.setdefault(("lsn", e.lsn) if e.key is None else ("key", e.key), []).append(e)
    return list(found.values())


def seen_at(events: list[Event], source: SourceSpec, t: int, *, final: int | None = None) -> list[Event]:
    """The events that count for a row at `t`, whatever their event time, by the definition of versions.

    Without corrections the first LSN of a key counts, from when it is known. With them the newest version by
    (known, lsn) that is known by `t` does, unless it is a deletion. `final` is the mode `event`: what a row sees then
    are the versions that count at `final`, as if they had always been known.
    """
    known_by = t if final is None else final
    found = []
    for same in versions(events):
        if not source.corrections:
            first = min(same, key=lambda e: e.lsn)
            found += [first] if first.known <= known_by else []
            continue
        known = [e for e in same if e.known <= known_by]
        newest = max(known, key=lambda e: (e.known, e.lsn), default=None)
        found += [newest] if newest is not None and not newest.deleted else []
    return found


def truth(expr: list[Any], event: Event, source: SourceSpec) -> Any:
    """A few operators, one event at a time, null as None."""
    op = expr[0]
    if op == "lit":
        return expr[1]
    if op == "col":
        value = event.values[expr[2]]
        column = source.column(expr[2])
        return value / 10**column.scale if value is not None and column.type == "decimal" else value
    a, b = (truth(argument, event, source) for argument in expr[1:])
    if a is None or b is None:
        return None
    operators: dict[str, Any] = {
        "gt": lambda: a > b,
        "eq": lambda: a == b,
        "mul": lambda: a * b,
        "add": lambda: a + b,
    }
    return operators[op]()


def visible(events: list[Event], view: ViewSpec, source: SourceSpec, entity: tuple[Any, ...], t: int) -> list[Event]:
    """Events of `entity` before `t` that pass the view's filter, by (event_time, lsn); all of them are known."""
    if any(v is None for v in entity):
        return []
    found = [
        e
        for e in events
        if e.t < t
        and tuple(e.values[c] for c in view.entity) == entity
        and (view.where is None or truth(view.where, e, source) is True)
    ]
    return sorted(found, key=lambda e: (e.t, e.lsn))


def answer(
    view: ViewSpec, source: SourceSpec, events: list[Event], entity: tuple[Any, ...], t: int
) -> list[tuple[Any, float]]:
    """Per feature its value (None for null) from the events that are known, and the size of what went into it."""
    seen = visible(events, view, source, entity, t)
    if view.kind == "latest":
        newest = seen[-1] if seen and (view.ttl is None or seen[-1].t >= t - view.ttl) else None
        return [(_latest(newest, c.column, c.default, source), 0.0) for c in view.latest]
    return [_aggregate(a, source, seen, t) for a in view.aggregates]


def _latest(newest: Event | None, column: str, default: Any, source: SourceSpec) -> Any:
    value = None if newest is None else newest.values[column]
    spec = source.column(column)
    value = default if value is None else value
    if value is not None and spec.type == "category":
        return float(spec.categories.index(value))
    return value / 10**spec.scale if spec.type == "decimal" and value is not None and value != default else value


def _aggregate(a: AggregateSpec, source: SourceSpec, seen: list[Event], t: int) -> tuple[Any, float]:
    start = (t - a.window) // a.hop * a.hop
    inside = [e for e in seen if e.t >= start and (a.where is None or truth(a.where, e, source) is True)]
    if a.value is None:
        return float(len(inside)), 0.0
    units, values = 1, []
    for e in inside:
        if a.value[0] == "col":  # whole numbers stay whole
            column, value = source.column(a.value[2]), e.values[a.value[2]]
            units = 10**column.scale if column.type == "decimal" else 1
            if column.type == "category" and value is not None:
                value = column.categories.index(value)
        else:
            value = truth(a.value, e, source)
        if value is not None:
            values.append(value)
    if a.op == "distinct":
        return float(min(len(set(values)), a.cap)), 0.0
    if a.op == "nth_last":
        values = values[-a.nth :][:1] if len(values) >= a.nth else []
    result = _value(a.op, values, units)
    size = 0.0 if a.op == "count" else max((abs(v) for v in values), default=0.0) / units
    return (a.default if result is None else result), size


def _value(op: str, values: list[Any], units: int) -> float | None:
    n = len(values)
    if op == "count":
        return float(n)
    total = sum((Fraction(v) for v in values), Fraction(0))
    if op == "sum":
        return float(total / units)
    if n == 0 or (op == "std" and n < 2):
        return None
    if op == "mean":
        return float(total / (n * units))
    if op == "std":
        mean = total / n
        return math.sqrt(sum((Fraction(v) - mean) ** 2 for v in values) / (n - 1)) / units
    chosen = {
        "min": min(values),
        "max": max(values),
        "first": values[0],
        "last": values[-1],
        "nth_last": values[-1],  # the one that is left
    }[op]
    return float(chosen) / units
