"""Entities that are asked about by hand are read as ingestion reads events, or refused."""

from __future__ import annotations

from typing import Any

import pytest

import flyball as fb
from flyball.define.spec import ColumnSpec
from flyball.features.arrival import SEALED
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import DAY
from flyball.loop.views import check_entity
from flyball.testing import platform

NUMBER = ColumnSpec(name="num", type="integer")
CARD = ColumnSpec(name="card", type="integer", pii=True)
SHOP = ColumnSpec(name="shop", type="string", nullable=True)


class Items(fb.Source, event_time="time", key="id", known=fb.delay("0s")):
    id = fb.String(max_length=32)
    num = fb.Integer()
    time = fb.Timestamp()


class Item(fb.WindowView, source=Items, entity=Items.num):
    n = fb.count("1d")


@pytest.mark.parametrize(
    "entity",
    [{"num": "7", "card": "4111"}, {"num": 7, "card": f"{SEALED}abc", "shop": "x"}, {"num": " 7 ", "card": 1}],
)
def test_values_as_requests_spell_them_digests_and_nulls_are_taken(entity: dict[str, Any]) -> None:
    check_entity([NUMBER, CARD, SHOP], {"shop": None} | entity, "Item")


@pytest.mark.parametrize(
    ("entity", "code", "says"),
    [
        ({"num": "abc"}, "bad_field", "'num' must be a whole number of at most 64 bits, not 'abc'"),
        ({"num": f"{SEALED}abc"}, "bad_field", "'num'"),
        ({"card": "secret"}, "bad_field", "'card' must be a whole number of at most 64 bits, not the value that"),
        ({"shop": 5}, "bad_field", "'shop' must be text, not 5"),
        ({"nun": 1}, "bad_entity", "no column 'nun': did you mean 'num'"),
    ],
)
def test_a_value_that_is_none_of_its_column_is_refused(entity: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(InvalidError, match=says) as caught:
        check_entity([NUMBER, CARD, SHOP], {"num": 1, "card": 2, "shop": "x"} | entity, "Item")
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def test_explain_refuses_a_value_instead_of_answering_zero() -> None:
    project = fb.Project("items", services=[fb.Service("live", rows=Items, features=[Item])])
    with platform(project, at=20_000 * DAY) as running:
        with pytest.raises(InvalidError) as caught:
            running._control.explain("Item", "n", entity={"num": "abc"})
        assert caught.value.code == "bad_field"
        assert running._control.explain("Item", "n", entity={"num": "5"})["value"]["known"] == 0
