"""Sources: what a declaration becomes, and what a wrong one says."""

from __future__ import annotations

import json
import types
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flyball as fb
from flyball.define.spec import SourceSpec
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import DAY, HOUR
from tests.define.payments_project import Chargebacks, Payments
from tests.define.taxi_project import Trips


def test_a_source_becomes_its_contract() -> None:
    spec = Payments._spec
    assert (spec.name, spec.event_time, spec.event_time_unit, spec.key) == ("Payments", "at", "iso", ("id",))
    assert (spec.known.kind, spec.known.column, spec.known.unit) == ("column", "loaded_at", "iso")
    assert (spec.retention, spec.owner, spec.description) == (
        400 * DAY,
        "risk",
        "Card payments, as they are authorised.",
    )
    amount = spec.column("amount")
    assert (amount.type, amount.scale, amount.gt, amount.nullable) == ("decimal", 2, 0.0, False)
    assert spec.column("payer").pii
    assert spec.column("age_group").sensitive


def test_a_time_that_is_not_declared_is_read_by_its_unit() -> None:
    spec = Trips._spec
    assert (spec.event_time, spec.event_time_unit, spec.key) == ("trip_start_timestamp", "s", ())
    assert (spec.known.kind, spec.known.delay) == ("delay", HOUR)
    assert Chargebacks._spec.known.kind == "live"


def test_columns_may_come_from_a_class_that_is_mixed_in() -> None:
    class Money:
        amount = fb.Decimal(2)

    class Sales(Money, fb.Source, event_time=fb.epoch("at"), key=fb.row_key()):
        shop = fb.String()

    class Refunds(Money, fb.Source, event_time=fb.epoch("at"), key=fb.row_key()):
        shop = fb.String()

    assert Sales.amount.to_data() == ["col", "Sales", "amount"]
    assert Refunds.amount.to_data() == ["col", "Refunds", "amount"]
    assert [c.name for c in Sales._spec.columns] == ["amount", "shop"]


def declare(body: dict[str, Any], **keywords: Any) -> Any:
    given = {"event_time": fb.epoch("t"), "key": fb.row_key()} | keywords
    return types.new_class("Sales", (fb.Source,), given, lambda namespace: namespace.update(body))


FLAGS = st.fixed_dictionaries({"nullable": st.booleans(), "pii": st.booleans(), "description": st.text(max_size=5)})
BOUNDS = st.fixed_dictionaries({}, optional={"ge": st.integers(-9, 0), "lt": st.floats(1, 9)})
COLUMNS = st.one_of(
    st.builds(lambda flags: fb.String(**flags), FLAGS),
    st.builds(lambda flags, names: fb.Category(*names, **flags), FLAGS, st.lists(st.text(), min_size=1, unique=True)),
    st.builds(lambda flags, scale, bounds: fb.Decimal(scale, **flags, **bounds), FLAGS, st.integers(0, 9), BOUNDS),
    st.builds(lambda flags, bounds: fb.Float(**flags, **bounds), FLAGS, BOUNDS),
    st.builds(lambda flags: fb.Timestamp(**flags), FLAGS),
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{1,8}", fullmatch=True), COLUMNS, min_size=1, max_size=5))
def test_any_source_comes_back_from_json_with_the_same_hash(body: dict[str, Any]) -> None:
    body.pop("any", None)
    source = declare(body | {"last_one": fb.Float()}, skew="1m30s")
    spec: SourceSpec = source._spec
    again = msgspec.convert(json.loads(json.dumps(spec.to_data())), SourceSpec)
    assert again == spec
    assert again.hash == spec.hash


@pytest.mark.parametrize(
    ("body", "keywords", "says"),
    [
        ({"_x": fb.Float()}, {}, "Sales._x: names that begin with _ are reserved"),
        ({"any": fb.Float()}, {}, "the name 'any' is reserved"),
        ({"x": fb.Float}, {}, "Sales.x is the class fb.Float; call it: fb.Float(…)"),
        ({"x": 3}, {}, "Sales.x is a int, not a column; write x = fb.Float()"),
        ({"__annotations__": {"x": float}}, {}, "Sales.x has a type but no value; write x = fb.Float()"),
        ({}, {}, "Sales declares no columns"),
        ({"x": fb.Float()}, {"event_time": "y"}, "event_time 'y' is not a declared column"),
        ({"at": fb.Timestamp()}, {"event_time": "att"}, "did you mean 'at'?"),
        ({"at": fb.Integer()}, {"event_time": "at"}, "is declared integer, not fb.Timestamp()"),
        ({"at": fb.Timestamp(nullable=True)}, {"event_time": "at"}, "each event needs its time"),
        ({"t": fb.Timestamp()}, {}, "it is declared fb.Timestamp()"),
        ({"x": fb.Float()}, {"event_time": fb.Float()}, "write the name of a column in quotes"),
        ({"id": fb.String()}, {"key": "ids"}, "the key 'ids' is not a declared column; did you mean 'id'?"),
        ({"id": fb.String(nullable=True)}, {"key": "id"}, "each event needs its key"),
        ({"id": fb.String()}, {"key": ()}, "key is empty"),
        ({"x": fb.Float()}, {"known": "1h"}, 'write fb.delay("1h")'),
        ({"x": fb.Float()}, {"known": fb.known_at("y")}, "known 'y' is not a declared column"),
        ({"x": fb.Float()}, {"skew": "soon"}, "'soon' is not a duration"),
    ],
)
def test_a_wrong_source_says_what_is_wrong(body: dict[str, Any], keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidError) as error:
        declare(body, **keywords)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fb.Category(), "needs its values"),
        (lambda: fb.Category("a", "a"), "stands twice"),
        (lambda: fb.Category(["a", "b"]), "a category is a text"),  # type: ignore[arg-type]
        (lambda: fb.Decimal(2.5), "digits after the point"),  # type: ignore[arg-type]
        (lambda: fb.Float(ge=3, le=1), "the lower bound 3 is above the upper bound 1"),
        (lambda: fb.Float(ge=3, gt=1), "one lower bound"),
        (lambda: fb.String(pattern="("), "not a regular expression"),
        (lambda: fb.String(max_length=0), "at least 1"),
        (lambda: fb.epoch("t", "m"), "counts 's', 'ms' or 'us'"),  # type: ignore[arg-type]
        (lambda: fb.Float().to_data(), "belongs to no source yet"),
        (lambda: Payments(), "has no instances"),
    ],
)
def test_a_wrong_column_says_what_is_wrong(make: Any, says: str) -> None:
    with pytest.raises(InvalidError) as error:
        make()
    assert says in str(error.value)


def test_an_unknown_column_names_the_near_one_and_the_line() -> None:
    with pytest.raises(
        InvalidError, match=r"test_source.py:\d+: Payments has no column 'amout'; did you mean 'amount'"
    ):
        Payments.amout  # type: ignore[attr-defined]
    assert not hasattr(Payments, "amout")


def test_a_source_is_not_extended() -> None:
    with pytest.raises(InvalidError, match="extends the source Payments"):

        class More(Payments, event_time="at", key="id"):
            extra = fb.Float()


def test_a_request_has_columns_of_its_own() -> None:
    class Score(fb.Request):
        amount = fb.Float(ge=0)

    assert Score.amount.to_data() == ["col", "Score", "amount"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Chargebacks.any(on=Payments.id, within="1d"), "Chargebacks has no column 'id'"),
        (lambda: Chargebacks.any(on=Payments.id == Payments.payee, within="1d"), "an equality of two columns"),
        (lambda: Chargebacks.any(on=Chargebacks.at == Payments.id, within="1d"), "they cannot be compared"),
        (lambda: Chargebacks.any(on=Chargebacks.payment == Payments.id, within="0s"), "longer than 0"),
        (
            lambda: Chargebacks.any(on=Chargebacks.payment == Payments.id, within="1d", where=Payments.abroad),
            "may read columns of Chargebacks only",
        ),
    ],
)
def test_a_wrong_join_says_what_is_wrong(make: Any, says: str) -> None:
    with pytest.raises(InvalidError) as error:
        make()
    assert says in str(error.value)


def test_a_join_is_by_the_same_name_or_by_an_equality_either_way_round() -> None:
    class Refunds(fb.Source, event_time=fb.iso("at"), key="id"):
        id = fb.String()

    same = Refunds.any(on=Payments.id, within="1d")
    assert (same.on.to_data(), same.rows_on.to_data()) == (["col", "Refunds", "id"], ["col", "Payments", "id"])
    turned = Chargebacks.any(on=Payments.id == Chargebacks.payment, within="1d")
    assert (turned.on.name, turned.rows_on.name) == ("payment", "id")
