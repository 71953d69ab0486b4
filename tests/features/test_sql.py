"""The query of a view is a second oracle: DuckDB computes by definition what the sweep computes by tiles."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import AggregateSpec, SourceSpec, ViewSpec
from flyball.features.recompute import Conditions, Recomputation, Served
from flyball.features.sql import table_expression, view_sql
from flyball.features.sqlexpr import literal, name, text
from flyball.features.views import CompiledView
from flyball.kernel.times import DAY, HOUR, SECOND
from tests.features.brute import Event
from tests.features.cases import KIND_A, SOURCE, aggregate, col, frame_of, histories, latest_views, window_views
from tests.features.slices import FrameSlices
from tests.features.test_recompute import definition_of, plain

duckdb = pytest.importorskip("duckdb")
CORRECTED = msgspec.structs.replace(SOURCE, corrections=True, key=("id",))
TYPES = {
    "string": "VARCHAR",
    "category": "VARCHAR",
    "integer": "BIGINT",
    "float": "DOUBLE",
    "boolean": "BOOLEAN",
    "decimal": "DECIMAL(18, 2)",
}


def query(view: ViewSpec, source: SourceSpec, events: pl.DataFrame, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The query's answers for rows of entity values and `at` in microseconds."""
    with duckdb.connect() as connection:
        columns = ", ".join(f"{name(c.name)} {TYPES[c.type]}" for c in source.columns)
        system = "_event_time TIMESTAMP, _known_at TIMESTAMP, _lsn BIGINT, _key BLOB, _deleted BOOLEAN"
        connection.execute(f"CREATE TABLE lake ({columns}, {system})")
        for row in events.iter_rows(named=True):
            values = [_spelled(c.type, row[c.name]) for c in source.columns]
            times = [f"make_timestamp({row[n]})" for n in ("_event_time", "_known_at")]
            values += [*times, str(row["_lsn"]), f"'{row['_key'].hex()}'::BLOB", literal(row["_deleted"])]
            connection.execute(f"INSERT INTO lake VALUES ({', '.join(values)})")
        entity = [*view.entity]
        given = ", ".join(f"{name(c)} {TYPES[source.column(c).type]}" for c in entity)
        connection.execute(f'CREATE TABLE asked ({given + ", " if given else ""}"at" TIMESTAMP)')
        for row in rows:
            values = [_spelled(source.column(c).type, row[c]) for c in entity] + [f"make_timestamp({row['at']})"]
            connection.execute(f"INSERT INTO asked VALUES ({', '.join(values)})")
        cursor = connection.execute(view_sql(view, source, table="lake", rows="asked"))
        names = [part[0] for part in cursor.description]
        return [dict(zip(names, answer, strict=True)) for answer in cursor.fetchall()]


def _spelled(kind: str, value: Any) -> str:
    if kind == "decimal" and value is not None:
        return f"'{value / 100:.2f}'::DECIMAL(18, 2)"
    return literal(value)


def frame(events: list[Event], keys: list[int], deleted: list[bool]) -> pl.DataFrame:
    return frame_of(events).with_columns(
        pl.Series("_key", [bytes([key]) for key in keys], dtype=pl.Binary),
        pl.Series("_deleted", deleted, dtype=pl.Boolean),
    )


CENTS = msgspec.structs.replace(
    SOURCE,
    columns=tuple(msgspec.structs.replace(c, scale=2) if c.type == "decimal" else c for c in SOURCE.columns),
)
WHERES = [
    ["and", ["gt", col("score"), ["lit", 0.0]], ["is_null", col("kind")]],
    ["or", col("online"), KIND_A],
    ["not", ["in", col("kind"), ["lit", "a"], ["lit", "b"]]],
    ["lt", ["hour", ["time"]], ["lit", 12]],
    ["ge", ["weekday", ["time"]], ["lit", 3]],
]
VALUES = [
    ["div", col("amount"), col("score")],
    ["log", col("amount")],
    ["log1p", ["div", col("score"), ["lit", 1000.0]]],
    ["sqrt", ["sub", col("score"), ["lit", 1.5]]],
    ["exp", ["neg", ["abs", col("score")]]],
    ["where", col("online"), col("score"), ["lit", -2.0]],
    ["coalesce", col("score"), ["floor", col("amount")], ["lit", 0.0]],
    ["minimum", ["maximum", col("score"), ["lit", 0.0]], col("amount")],
    ["exp", ["mul", col("score"), ["lit", 10.0]]],
]


@st.composite
def rich_views(draw: st.DrawFn) -> ViewSpec:
    """Views with every operator of expressions in their values and filters."""
    aggregates = [
        aggregate(
            f"g{n}",
            draw(st.sampled_from(["sum", "mean", "min", "max", "last", "std"])),
            draw(st.sampled_from(["7s", "10m", "3h", "12d"])),
            draw(st.sampled_from(VALUES)),
            draw(st.sampled_from([None, *WHERES])),
        )
        for n in range(draw(st.integers(1, 5)))
    ]
    return ViewSpec(
        name="R",
        kind="window",
        source="Payments",
        entity=draw(st.sampled_from([("card",), ("shop",), ()])),
        aggregates=tuple(aggregates),
        where=draw(st.sampled_from([None, *WHERES])),
    )


@settings(max_examples=30, deadline=None)
@given(st.data(), st.booleans())
def test_the_query_of_a_view_gives_what_the_sweep_gives(data: st.DataObject, corrections: bool) -> None:
    source = CORRECTED if corrections else SOURCE
    view = plain(data.draw(st.one_of(window_views(), latest_views(), rich_views())))
    events = data.draw(histories(max_events=20))
    keys = [data.draw(st.integers(0, 9)) for _ in events]
    if not corrections:  # a copy of an event has its time: those of other times are not read, so nothing drops them
        keys = [[other.t for other in events].index(event.t) for event in events]
    deleted = [corrections and data.draw(st.integers(0, 4)) == 0 for _ in events]
    marks = [mark for event in events for mark in (event.t, event.known)] or [0]
    rows: list[dict[str, Any]] = [
        {
            "card": data.draw(st.sampled_from(["x", "y", None])),
            "shop": data.draw(st.sampled_from([1, 2, None])),
            "at": data.draw(st.sampled_from(marks)) + data.draw(st.sampled_from([0, 1, SECOND, HOUR, 3 * DAY])),
        }
        for _ in range(data.draw(st.integers(1, 5)))
    ]
    history = frame(events, keys, deleted)
    records = [
        Served(id=str(n), at=row["at"], inputs=row, features={}, lsn={}, known_through={}) for n, row in enumerate(rows)
    ]
    again = Recomputation(definition_of(view, source), records, FrameSlices({"Payments": history}))
    right = again.compute(Conditions(seen="known"), np.arange(len(rows))).matrix
    compare(view, source, query(view, source, history, rows), right)


def compare(view: ViewSpec, source: SourceSpec, found: list[dict[str, Any]], right: Any) -> None:
    compiled = CompiledView(view, source)
    ops: list[str] = [a.op for a in view.aggregates] or ["latest"] * len(view.features)
    kinds = [g.kind for g in (compiled.groups[k] for k in compiled.plan.outs[:, 1])]
    for row, answer in enumerate(found):
        for k, feature in enumerate(view.features):
            value, expected = answer[feature], float(right[row, k])
            if isinstance(value, str):
                value = float(compiled.feature_types[k][2].index(value))
            if value is None or math.isnan(expected):
                assert value is None, (feature, value, expected)
                assert math.isnan(expected), (feature, value, expected)
            elif ops[k] == "std" or (kinds[k] == "float" and ops[k] in ("sum", "mean")):
                assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-6 if ops[k] == "std" else 1e-9)
            elif kinds[k] == "float":
                assert math.isclose(value, expected, rel_tol=1e-12, abs_tol=0.0), (feature, value, expected)
            else:
                assert value == expected, (feature, value, expected)


def test_values_before_the_newest_and_distinct_values_are_counted_in_the_window() -> None:
    given: list[dict[str, Any]] = [
        {"card": "x", "shop": 1, "amount": 100, "score": 1.0, "kind": "a"},
        {"card": "x", "shop": 2, "amount": 250, "score": 2.0, "kind": "b"},
        {"card": "x", "shop": 1, "amount": None, "score": 3.0, "kind": "a"},
        {"card": "x", "shop": 1, "amount": 70, "score": 4.0, "kind": None},
    ]
    events = [
        Event(lsn=n, t=n * SECOND, known=n * SECOND, values={"count": None, "online": None, **values})
        for n, values in enumerate(given)
    ]
    extra: list[AggregateSpec] = [
        msgspec.structs.replace(aggregate("second", "nth_last", "1m", col("amount")), nth=2),
        msgspec.structs.replace(aggregate("ninth", "nth_last", "1m", col("amount"), default=-1.0), nth=9),
        msgspec.structs.replace(aggregate("kind_2", "nth_last", "1m", col("kind")), nth=2),
        aggregate("shops", "distinct", "1m", col("shop")),
        msgspec.structs.replace(aggregate("capped", "distinct", "1m", col("score")), cap=3),
    ]
    view = ViewSpec(name="V", kind="window", source="Payments", entity=("card",), aggregates=tuple(extra))
    history = frame(events, [0, 1, 2, 3], [False] * 4)
    (answer, empty) = query(view, CENTS, history, [{"card": "x", "at": 10 * SECOND}, {"card": "y", "at": 10 * SECOND}])
    assert {k: answer[k] for k in view.features} == {
        "second": 2.5,
        "ninth": -1.0,
        "kind_2": "b",
        "shops": 2,
        "capped": 3,
    }
    assert {k: empty[k] for k in view.features} == {
        "second": None,
        "ninth": -1.0,
        "kind_2": None,
        "shops": 0,
        "capped": 0,
    }


def test_decimals_are_exact() -> None:
    events = [
        Event(lsn=n, t=n, known=n, values=dict.fromkeys(SOURCE_NAMES, None) | {"card": "x", "amount": 10 + 20 * n})
        for n in range(2)
    ]
    view = ViewSpec(
        name="V",
        kind="window",
        source="Payments",
        entity=("card",),
        aggregates=(aggregate("s", "sum", "1m", col("amount")),),
    )
    (answer,) = query(view, CENTS, frame(events, [0, 1], [False] * 2), [{"card": "x", "at": SECOND}])
    assert answer["s"] == 0.4


SOURCE_NAMES = tuple(c.name for c in SOURCE.columns)


def test_the_query_says_where_the_rows_go_and_where_events_are_read() -> None:
    view = ViewSpec(
        name="V", kind="window", source="Payments", entity=("card",), aggregates=(aggregate("n", "count", "1h"),)
    )
    shown = view_sql(view, SOURCE, table=table_expression("/lake/Pay'ments", "delta"))
    assert "delta_scan('/lake/Pay''ments')" in shown
    assert "put your rows here" in shown
    assert "count over 1h, its start on a hop of 30s" in shown
    assert "read_parquet('/lake/P/**/*.parquet'" in table_expression("/lake/P/", "parquet")
    assert table_expression("mine.events", "table") == "mine.events"
    assert (name('a"b'), text("it's")) == ('"a""b"', "'it''s'")


def test_the_template_runs_as_it_is() -> None:
    view = ViewSpec(
        name="V", kind="window", source="Payments", entity=("card",), aggregates=(aggregate("n", "count", "1h"),)
    )
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE lake (card VARCHAR, _event_time TIMESTAMPTZ, _known_at TIMESTAMPTZ, _lsn BIGINT, _key BLOB)"
        )
        ((card, _, n),) = connection.execute(view_sql(view, SOURCE, table="lake")).fetchall()
    assert (card, n) == ("…", 0.0)
