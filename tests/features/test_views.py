from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flyball.define.spec import AggregateSpec, ColumnSpec, LatestSpec, SourceSpec, ViewSpec
from flyball.features.keys import encode_keys, entity_key
from flyball.features.vector import vector_of
from flyball.features.views import CompiledView
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import HOUR, MINUTE
from tests.features.cases import SOURCE, aggregate, col


def window(*aggregates: AggregateSpec, **more: Any) -> ViewSpec:
    return ViewSpec(name="V", kind="window", source="Payments", aggregates=aggregates, **more)


def latest(column: str) -> ViewSpec:
    return ViewSpec(
        name="L", kind="latest", source="Payments", latest=(LatestSpec(name="x", column=column, type="string"),)
    )


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (latest("card"), "fb.Category"),
        (latest("nothing"), "no column 'nothing'"),
        (window(aggregate("a", "last", "1h", col("card"))), "fb.Category"),
        (window(aggregate("a", "mean", "1h", col("kind"))), "mean of a category"),
        (window(aggregate("a", "sum", "1h")), "needs a value"),
        (window(aggregate("a", "count", "1h", where=["gt", ["col", "Other", "x"], ["lit", 1]])), "not ['Other', 'x']"),
        (window(aggregate("a", "sum", "1h", ["view", "W", "x", []])), "it can read the columns of Payments"),
        (window(aggregate("a", "count", "1h"), entity=("nobody",)), "no column 'nobody'"),
        (window(AggregateSpec(name="a", op="count", window=HOUR, hop=0)), "hops of 0s"),
        (window(AggregateSpec(name="a", op="count", window=10**6 * HOUR, hop=MINUTE)), "at most 10000 hops"),
        (window(AggregateSpec(name="a", op="count", window=HOUR, hop=7 * MINUTE)), "do not divide each other"),
    ],
)
def test_what_cannot_be_computed_is_refused(view: ViewSpec, says: str) -> None:
    with pytest.raises(InvalidError) as error:
        CompiledView(view, SOURCE)
    assert error.value.code == "bad_view"
    assert says in str(error.value)


def test_aggregates_of_one_value_and_filter_share_their_state() -> None:
    amount = col("amount")
    one = CompiledView(window(aggregate("a", "sum", "1h", amount)), SOURCE)
    same = [aggregate(f"a{w}", op, w, amount) for w in ("1h", "2h") for op in ("sum", "mean", "count")]
    more = CompiledView(window(*(s for i, s in enumerate(same) if i != 5)), SOURCE)
    assert one.plan.acc_words == more.plan.acc_words == 3
    filtered = CompiledView(window(same[0], aggregate("b", "sum", "1h", amount, col("online"))), SOURCE)
    assert filtered.plan.acc_words == 6


def test_state_is_kept_by_meaning() -> None:
    base = window(aggregate("n", "count", "1h"), aggregate("k", "last", "1h", col("kind")), entity=("card",))
    named = ViewSpec(**{f: getattr(base, f) for f in base.__struct_fields__} | {"name": "W", "description": "other"})
    assert CompiledView(base, SOURCE).definition == CompiledView(named, SOURCE).definition

    def changed(name: str, **change: Any) -> SourceSpec:
        columns = [
            c if c.name != name else ColumnSpec(**{f: getattr(c, f) for f in c.__struct_fields__} | change)
            for c in SOURCE.columns
        ]
        return SourceSpec(name=SOURCE.name, event_time="at", columns=tuple(columns))

    assert (
        CompiledView(base, changed("kind", categories=("c", "b", "a"))).definition
        != CompiledView(base, SOURCE).definition
    )
    assert CompiledView(base, changed("amount", scale=3)).definition == CompiledView(base, SOURCE).definition
    assert CompiledView(base, changed("card", description="x")).definition == CompiledView(base, SOURCE).definition


def test_keys_are_equal_where_values_of_like_types_are() -> None:
    text, category = ColumnSpec(name="a", type="string"), ColumnSpec(name="b", type="category", categories=("x",))
    cents, mills = ColumnSpec(name="c", type="decimal", scale=2), ColumnSpec(name="d", type="decimal", scale=3)
    assert entity_key(("x",), (text,)) == entity_key(("x",), (category,))
    assert entity_key((150,), (cents,)) == entity_key((1500,), (mills,))
    assert entity_key(("1",), (text,)) != entity_key((1,), (ColumnSpec(name="e", type="integer"),))
    assert entity_key(("ab", "c"), (text, text)) != entity_key(("a", "bc"), (text, text))
    assert len(entity_key((), ())) == 16


def test_a_null_in_any_entity_column_is_no_key() -> None:
    text, number = ColumnSpec(name="a", type="string"), ColumnSpec(name="b", type="integer")
    keys = encode_keys(
        [vector_of(["x", None, "x", "y"], "string"), vector_of([1, 1, None, 1], "integer")], [text, number], 4
    )
    assert keys.codes.tolist() == [0, -1, -1, 1]
    assert keys.unique == [entity_key(("x", 1), (text, number)), entity_key(("y", 1), (text, number))]


def test_events_that_change_nothing_are_left_out() -> None:
    view = CompiledView(window(aggregate("n", "sum", "1h", col("amount")), entity=("card",)), SOURCE)
    columns = {"card": vector_of(["x", None, "x"], "string"), "amount": vector_of([1, 1, None], "decimal")}
    events = view.events(columns, np.arange(3), np.arange(3))
    assert events.index.tolist() == [0]
