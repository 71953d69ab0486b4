"""Random projects of one source and its views, and random histories, for the property tests."""

from __future__ import annotations

import math
from typing import Any

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
    name: str, op: str, window: str, value: Any = None, where: Any = None, default: float | None = None
) -> AggregateSpec:
    us = duration(window)
    return AggregateSpec(name=name, op=op, value=value, where=where, window=us, hop=hop(us), default=default)  # type: ignore[arg-type]


BIG = ["gt", col("amount"), ["lit", 5.0]]
KIND_A = ["eq", col("kind"), ["lit", "a"]]
VALUES: list[tuple[Any, tuple[str, ...]]] = [
    (None, ("count",)),
    (col("card"), ("count",)),
    (col("amount"), ("count", "sum", "mean", "std", "min", "max", "first", "last")),
    (col("count"), ("sum", "mean", "std", "min", "max", "first", "last")),
    (col("score"), ("sum", "mean", "std", "min", "max", "first", "last")),
    (col("online"), ("sum", "mean", "last")),
    (col("kind"), ("count", "first", "last")),
    (BIG, ("mean", "sum", "max")),
    (["mul", col("amount"), col("score")], ("sum", "mean", "min")),
]
WINDOWS = ("7s", "1m", "10m", "45m", "3h", "2d", "12d", "20d", "45d")


@st.composite
def window_views(draw: st.DrawFn) -> ViewSpec:
    count = draw(st.integers(1, 8))
    aggregates = []
    for i in range(count):
        value, ops = draw(st.sampled_from(VALUES))
        aggregates.append(
            aggregate(
                f"f{i}",
                draw(st.sampled_from(ops)),
                draw(st.sampled_from(WINDOWS)),
                value,
                draw(st.sampled_from([None, None, BIG, KIND_A])),
                draw(st.sampled_from([None, None, -1.0])),
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
def histories(draw: st.DrawFn, *, max_events: int = 40) -> list[Event]:
    base = draw(st.sampled_from([0, 3 * DAY + 5 * HOUR + 1, 1_700_000_000 * SECOND]))
    events = []
    for lsn in range(draw(st.integers(0, max_events))):
        t = draw(times(base))
        lag = draw(st.sampled_from([0, 0, 0, 1, SECOND, MINUTE, HOUR, 2 * DAY, -HOUR]))
        events.append(Event(lsn=lsn, t=t, known=t + lag, values=draw(ROW)))
    return events


def frame_of(events: list[Event]) -> pl.DataFrame:
    rows = [
        e.values | {"_event_time": e.t, "_known_at": e.known, "_lsn": e.lsn, "_key": e.lsn.to_bytes(16, "big")}
        for e in events
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def keys_of(view: CompiledView, entities: list[dict[str, Any]]) -> Keys:
    frame = pl.DataFrame(entities, schema={c: SCHEMA[c] for c in SCHEMA if not c.startswith("_")}, orient="row")
    return encode_keys(list(vectors(frame, view.spec.entity).values()), view.entity, len(entities))


def assert_equals_brute(
    view: CompiledView, got: ViewValues, row: int, events: list[Event], entity: Any, t: int
) -> None:
    """Whole numbers, minima, maxima, first and last to the bit; float sums, means and deviations to 1e-12 relative."""
    spec, source = view.spec, view.source
    expected = answer(spec, source, events, tuple(entity[c] for c in spec.entity), t)
    ops: list[str] = [a.op for a in spec.aggregates] or ["latest"] * len(expected)
    kinds = [g.kind for g in (view.groups[k] for k in view.plan.outs[:, 1])]
    for k, ((value, size), op, kind) in enumerate(zip(expected, ops, kinds, strict=True)):
        actual = None if np.isnan(got.values[row, k]) else float(got.values[row, k])
        assert bool(got.valid[row, k]) == (actual is not None)
        if value is None or actual is None:
            assert value is actual, (spec.features[k], value, actual)
        elif op == "std":  # as well as the problem is conditioned: the values' size counts, not only their spread
            assert math.isclose(actual, value, rel_tol=1e-12, abs_tol=1e-12 * size), (spec.features[k], value, actual)
        elif kind == "float" and op in ("sum", "mean"):
            assert math.isclose(actual, value, rel_tol=1e-12, abs_tol=1e-18), (spec.features[k], value, actual)
        else:
            assert actual == float(value), (spec.features[k], op, value, actual)
