"""Transforms: traced once, and refused with the expression to use."""

from __future__ import annotations

import math
from typing import Any

import pytest

import flyball as fb
from flyball.kernel.errors import InvalidError
from tests.define.payments_project import Out, Payments, against_usual, since_last

E = fb.Expr


def test_a_transform_is_the_expression_that_its_function_gives() -> None:
    usual = ["view", "Out", "sum_1d", ["payer"]]
    amount = ["col", "Payments", "amount"]
    assert against_usual.to_data() == [
        "where",
        ["gt", usual, ["lit", 0]],
        ["div", amount, ["coalesce", usual, ["lit", 1]]],
        ["lit", 0],
    ]
    assert (against_usual.name, against_usual.type) == ("against_usual", "float")


def test_a_transform_takes_transforms_and_plain_constants() -> None:
    @fb.transform
    def hours(seconds: E = since_last, per: float = 3600.0) -> E:
        return seconds / per

    assert hours.to_data() == ["div", since_last.to_data(), ["lit", 3600.0]]


def test_a_bare_column_keeps_its_type_through_a_transform() -> None:
    @fb.transform
    def how(method: E = Payments.method) -> E:
        return method

    assert (how.type, how.categories) == ("category", ("chip", "online", "swipe"))


def with_if(amount: E = Payments.amount) -> E:
    if amount > 100:
        return amount
    return amount * 2


def with_and(amount: E = Payments.amount, abroad: E = Payments.abroad) -> object:
    return amount > 1 and abroad


def with_math(amount: E = Payments.amount) -> object:
    return math.log(amount)


def with_method(amount: Any = Payments.amount) -> object:
    return amount.fillna(0)


def with_typo(amount: E = Payments.amount) -> object:
    return amout + 1  # type: ignore[name-defined]  # noqa: F821


def with_default_missing(amount: E) -> E:
    return amount


def with_nothing(amount: E = Payments.amount) -> None:
    del amount


def with_constant(amount: E = Payments.amount) -> float:
    del amount
    return 3.0


def without_parameters() -> E:
    return Payments.amount


def with_stars(*amounts: E) -> E:
    return amounts[0]


@pytest.mark.parametrize(
    ("function", "line", "says"),
    [
        (with_if, 1, "use fb.where(condition, then, otherwise)"),
        (with_and, 1, "use (a) & (b)"),
        (with_math, 1, "fb.log"),
        (with_method, 1, "use fb.coalesce(x, value)"),
        (with_typo, 1, "NameError: name 'amout' is not defined"),
        (with_default_missing, 0, "write amount=Source.column"),
        (with_nothing, 0, "returns nothing"),
        (with_constant, 0, "returns the constant 3.0"),
        (without_parameters, 0, "has no parameter that stands for a column"),
        (with_stars, 0, "must be one that can be given by name"),
    ],
)
def test_what_cannot_be_traced_names_function_file_line_and_spelling(function: Any, line: int, says: str) -> None:
    with pytest.raises(InvalidError) as error:
        fb.transform(function)
    text = str(error.value)
    assert f"transform {function.__name__}" in text
    assert f"test_transform.py:{function.__code__.co_firstlineno + line}" in text
    assert says in text


def test_a_transform_in_python_comes_later() -> None:
    with pytest.raises(InvalidError, match="later version") as error:
        fb.transform(python=True)
    assert error.value.code == "not_yet"


def test_only_plain_functions_are_traced() -> None:
    with pytest.raises(InvalidError, match="takes a function"):
        fb.transform(Out.n_1h)  # type: ignore[call-overload]
