"""Random projects of one source and its views, and random histories, for the property tests."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import polars as pl
from hypothesis import strategies as st

from flyball.define.spec import AggregateSpec, ColumnSpec, LatestSpec, SourceSpec, ViewSpec
from flyball.features.frames import vectors
from flyball.features.keys import Keys, encode_keys
from flyball.features.views import CompiledView, ViewValues
from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND, duration, hop
from tests.features.brute import Event, answer

SOURCE = SourceSpec(
    name="Payments",
    event_time="at",
    columns=(
        ColumnSpec(name="card", type="string", nullable=True),
        ColumnSpec(name="shop", type="integer", nullable=True),
        ColumnSpec(name="amount", type="decimal", scale=2, nullable=True),
        ColumnSpec(name="count", type="integer", nullable=True),
        ColumnSpec(name="score", type="float", nullable=True),
        ColumnSpec(name="online", type="boolean", nullable=True),
        ColumnSpec(name="kind", type="category", categories=("a", "b", "c"), nullable=True),
    ),
)
CORRECTED = msgspec.structs.replace(SOURCE, corrections=True, key=("id",))  # the key's column is read by no view
_PHYSICAL = {"string": pl.String, "category": pl.String, "float": pl.Float64, "boolean": pl.Boolean}
SCHEMA: dict[str, Any] = {c.name: _PHYSICAL.get(c.type, pl.Int64) for c in SOURCE.columns} | {
    "_event_time": pl.Int64,
    "_known_at": pl.Int64,
    "_lsn": pl.Int64,
    "_key": pl.Binary,
}


def col(name: str) -> list[Any]:
    return ["col", "Payments", name]


def aggregate(
    name: str, op: str, window: str, value: Any = None, where: Any = None, default: float | None = None, **more: Any
) -> AggregateSpec:
    us = duration(window)
    return AggregateSpec(name=name, op=op, value=value, where=where, window=us, hop=hop(us), default=default, **more)  # type: ignore[arg-type]


BIG = ["gt", col("amount"), ["lit", 5.0]]
KIND_A = ["eq", col("kind"), ["lit", "a"]]
VALUES: list[tuple[Any, tuple[str, ...]]] = [
    (None, ("count",)),
    (col("card"), ("count", "distinct")),
    (col("shop"), ("distinct",)),
    (col("amount"), ("count", "sum", "mean", "std", "min", "max", "first", "last", "nth_last", "distinct")),
    (col("count"), ("sum", "mean", "std", "min", "max", "first", "last", "nth_last", "distinct")),
    (col("score"), ("sum", "mean", "std", "min", "max", "first", "last", "nth_last", "distinct")),
    (col("online"), ("sum", "mean", "last", "nth_last", "distinct")),
    (col("kind"), ("count", "first", "last", "nth_last", "distinct")),
    (BIG, ("mean", "sum", "max")),
    (["mul", col("amount"), col("score")], ("sum", "mean", "min", "std")),
]
WINDOWS = ("7s", "1m", "10m", "45m", "3h", "2d", "12d", "20d", "45d")


@st.composite
def window_views(draw: st.DrawFn) -> ViewSpec:
    count = draw(st.integers(1, 8))
    aggregates = []
    for i in range(count):
        value, ops = draw(st.sampled_from(VALUES))
        op = draw(st.sampled_from(ops))
        picks = op in ("first", "last", "nth_last") and value in (col("online"), col("kind"))
        aggregates.append(
            aggregate(
                f"f{i}",
                op,
                draw(st.sampled_from(WINDOWS)),
                value,
                draw(st.sampled_from([None, None, BIG, KIND_A])),
                draw(st.sampled_from([None, None, None if picks else -1.0])),
                nth=draw(st.integers(1, 4)),
                cap=draw(st.sampled_from([1, 2, 1000])),
            )
        )
    return ViewSpec(
        name="V",
        kind="window",
        source="Payments",
        entity=draw(st.sampled_from([("card",), ("shop",), ("card", "shop"), ()])),
        aggregates=tuple(aggregates),
        where=draw(st.sampled_from([None, None, ["eq", col("online"), ["lit", True]]])),
    )


@st.composite
def latest_views(draw: st.DrawFn) -> ViewSpec:
    names = draw(st.lists(st.sampled_from(["amount", "count", "score", "online", "kind"]), min_size=1, unique=True))
    return ViewSpec(
        name="L",
        kind="latest",
        source="Payments",
        entity=draw(st.sampled_from([("card",), ("shop",), ()])),
        latest=tuple(
            LatestSpec(name=f"last_{n}", column=n, type=SOURCE.column(n).type, categories=SOURCE.column(n).categories)
            for n in names
        ),
        where=draw(st.sampled_from([None, BIG])),
        ttl=draw(st.sampled_from([None, 10 * SECOND, HOUR, 3 * DAY])),
    )


def _maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, st.none())


ROW = st.fixed_dictionaries(
    {
        "card": _maybe(st.sampled_from(["x", "y"])),
        "shop": _maybe(st.sampled_from([1, 2])),
        "amount": _maybe(st.integers(-1_000, 1_000)),
        "count": _maybe(st.integers(-(2**50), 2**50)),
        "score": _maybe(st.floats(-1e3, 1e3, allow_subnormal=False)),
        "online": _maybe(st.booleans()),
        "kind": _maybe(st.sampled_from(["a", "b", "c"])),
    }
)


@st.composite
def times(draw: st.DrawFn, base: int) -> int:
    """Times on a few grids, so that ties, hop boundaries and distant times all come up; on both sides of 1970."""
    unit = draw(st.sampled_from([1, SECOND, 5 * SECOND, MINUTE, 5 * MINUTE, HOUR, DAY]))
    return base + draw(st.integers(-20, 20)) * unit


@st.composite
def histories(draw: st.DrawFn, *, max_events: int = 40, again: bool = False) -> list[Event]:
    """Events in LSN order. With `again` keys come again: as duplicates, corrections or deletions."""
    base = draw(st.sampled_from([0, 3 * DAY + 5 * HOUR + 1, 1_700_000_000 * SECOND]))
    events: list[Event] = []
    for lsn in range(draw(st.integers(0, max_events))):
        t = draw(times(base))
        lag = draw(st.sampled_from([0, 0, 0, 1, SECOND, MINUTE, HOUR, 2 * DAY, -HOUR]))
        event = Event(lsn=lsn, t=t, known=t + lag, values=draw(ROW))
        events.append(draw(_again(event, events)) if again and events else event)
    return events


@st.composite
def _again(draw: st.DrawFn, event: Event, before: list[Event]) -> Event:
    """The event itself, or a later version of an earlier one: the same again, corrected or deleted."""
    if draw(st.integers(0, 2)):
        return event
    first = draw(st.sampled_from(before))
    key = first.lsn if first.key is None else first.key
    before[:] = [replace(e, key=key) if e.lsn == first.lsn else e for e in before]
    known = draw(st.sampled_from([event.known, first.known, first.known + SECOND, first.known + DAY]))
    same = draw(st.booleans())
    return replace(
        event,
        t=first.t if same or draw(st.booleans()) else event.t,
        known=known,
        values=first.values if same else event.values | {"card": first.values["card"]},
        key=key,
        deleted=draw(st.integers(0, 3)) == 0,
    )


def frame_of(events: list[Event], source: SourceSpec = SOURCE) -> pl.DataFrame:
    """The physical frame of a source's events; with `_deleted` where it takes corrections."""
    rows = [
        e.values
        | {"_event_time": e.t, "_known_at": e.known, "_lsn": e.lsn, "_key": _key(e).to_bytes(16, "big")}
        | {"_deleted": e.deleted}
        for e in events
    ]
    frame = pl.DataFrame(rows, schema=SCHEMA | {"_deleted": pl.Boolean}, orient="row")
    return frame if source.corrections else frame.drop("_deleted")


def _key(event: Event) -> int:
    return (1 << 64) + event.lsn if event.key is None else event.key


def keys_of(view: CompiledView, entities: list[dict[str, Any]]) -> Keys:
    frame = pl.DataFrame(entities, schema={c: SCHEMA[c] for c in SCHEMA if not c.startswith("_")}, orient="row")
    return encode_keys(list(vectors(frame, view.spec.entity).values()), view.entity, len(entities))


def assert_equals_brute(
    view: CompiledView,
    got: ViewValues,
    row: int,
    events: list[Event],
    entity: Any,
    t: int,
    *,
    whole_std: bool = False,
) -> None:
    """Whole numbers, minima, maxima, first, last and distinct to the bit; float sums, means and deviations to 1e-12
    relative. `whole_std`: deviations of whole numbers too are held to their own size, not to that of the values."""
    spec, source = view.spec, view.source
    expected = answer(spec, source, events, tuple(entity[c] for c in spec.entity), t)
    ops: list[str] = [a.op for a in spec.aggregates] or ["latest"] * len(expected)
    kinds = [g.kind for g in (view.groups[k] for k in view.plan.outs[:, 1])]
    for k, ((value, size), op, kind) in enumerate(zip(expected, ops, kinds, strict=True)):
        actual = None if np.isnan(got.values[row, k]) else float(got.values[row, k])
        assert bool(got.valid[row, k]) == (actual is not None)
        if value is None or actual is None:
            assert value is actual, (spec.features[k], value, actual)
        elif op == "std" and kind == "whole" and whole_std:
            assert math.isclose(actual, value, rel_tol=1e-12), (spec.features[k], value, actual)
        elif op == "std":  # as well as the problem is conditioned: the values' size counts, not only their spread
            assert math.isclose(actual, value, rel_tol=1e-12, abs_tol=1e-12 * size), (spec.features[k], value, actual)
        elif kind == "float" and op in ("sum", "mean"):
            assert math.isclose(actual, value, rel_tol=1e-12, abs_tol=1e-18), (spec.features[k], value, actual)
        else:
            assert actual == float(value), (spec.features[k], op, value, actual)
