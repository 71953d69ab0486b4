from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.define.spec import ColumnSpec
from flyball.features.request import physical, request_vectors
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import HOUR

AMOUNT = ColumnSpec(name="amount", type="decimal", scale=2)
KIND = ColumnSpec(name="kind", type="category", categories=("cash", "card"))
N = ColumnSpec(name="n", type="integer", nullable=True)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (AMOUNT, "12.45", 1245),
        (AMOUNT, 12.45, 1245),
        (AMOUNT, 12, 1200),
        (AMOUNT, "-0.10", -10),
        (AMOUNT, "1e1", 1000),
        (N, 2**62, 2**62),
        (N, 5.0, 5),
        (N, "7", 7),
        (N, None, None),
        (KIND, "card", "card"),
        (ColumnSpec(name="f", type="float"), "0.5", 0.5),
        (ColumnSpec(name="b", type="boolean"), "true", True),
        (ColumnSpec(name="t", type="timestamp"), "1970-01-01T01:00:00Z", HOUR),
        (ColumnSpec(name="s", type="string"), "é", "é"),
    ],
)
def test_a_field_is_read_exactly(column: ColumnSpec, value: Any, expected: Any) -> None:
    read = physical(column, value)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (AMOUNT, "12.453"),
        (AMOUNT, 12.453),
        (AMOUNT, "NaN"),
        (AMOUNT, float("inf")),
        (AMOUNT, True),
        (AMOUNT, [1]),
        (AMOUNT, "9" * 30),
        (N, 5.5),
        (N, 2**63),
        (KIND, "crad"),
        (KIND, 1),
        (ColumnSpec(name="f", type="float"), "nan"),
        (ColumnSpec(name="f", type="float"), True),
        (ColumnSpec(name="b", type="boolean"), 2),
        (ColumnSpec(name="t", type="timestamp"), "yesterday"),
        (ColumnSpec(name="t", type="timestamp"), 2**70),
        (ColumnSpec(name="s", type="string"), 5),
    ],
)
def test_a_bad_field_is_named_with_its_value(column: ColumnSpec, value: Any) -> None:
    with pytest.raises(InvalidError) as error:
        physical(column, value)
    assert error.value.code == "bad_field"
    assert repr(column.name) in error.value.message
    assert repr(value)[:20] in error.value.message


def test_the_value_of_a_pii_column_is_in_no_message() -> None:
    for kind in ("decimal", "category", "integer", "timestamp", "float", "boolean"):
        column = ColumnSpec(name="secret", type=kind, categories=("marker1",), pii=True)
        with pytest.raises(InvalidError) as error:
            physical(column, "marker")
        assert "marker" not in str(error.value)


def test_a_bad_row_fails_alone() -> None:
    vectors, errors = request_vectors(
        [AMOUNT, KIND], [{"amount": 1, "kind": "cash"}, {"amount": "x"}, {"kind": "card"}]
    )
    assert vectors["amount"].values.tolist() == [100, 0, 0]
    assert vectors["kind"].valid.tolist() == [True, False, True]
    assert {row: error.code for row, error in errors.items()} == {1: "bad_field", 2: "missing_field"}


@given(st.integers(-(10**15), 10**15))
def test_the_float_of_a_decimal_finds_its_units_again(units: int) -> None:
    assert physical(AMOUNT, units / 100) == units
