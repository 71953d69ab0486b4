"""Expressions: what they compile to, and what they refuse."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flyball as fb
from flyball.define.algebra import Expr
from flyball.define.expression import OPERATORS, leaves
from flyball.define.notation import show
from flyball.kernel.errors import InvalidError
from tests.define.payments_project import Out, Payments, Seen

AMOUNT = ["col", "Payments", "amount"]


def test_operators_compile_to_their_names() -> None:
    a, b = Payments.amount, Payments.items
    assert (a + b).to_data() == ["add", AMOUNT, ["col", "Payments", "items"]]
    assert (1 - a).to_data() == ["sub", ["lit", 1], AMOUNT]
    assert (2 * a).to_data() == ["mul", ["lit", 2], AMOUNT]
    assert (1 / a).to_data() == ["div", ["lit", 1], AMOUNT]
    assert (-a).to_data() == ["neg", AMOUNT]
    assert abs(a).to_data() == fb.abs(a).to_data() == ["abs", AMOUNT]
    assert (a // 2).to_data() == ["floor", ["div", AMOUNT, ["lit", 2]]]
    assert (a**2).to_data() == ["mul", AMOUNT, AMOUNT]
    assert math.floor(a).to_data() == ["floor", AMOUNT]


def test_conditions_compile_to_their_names() -> None:
    a = Payments.amount
    assert (a > 0).to_data() == ["gt", AMOUNT, ["lit", 0]]
    assert ((a > 0) & ~(a == 3) | (a != 4)).to_data() == [
        "or",
        ["and", ["gt", AMOUNT, ["lit", 0]], ["not", ["eq", AMOUNT, ["lit", 3]]]],
        ["ne", AMOUNT, ["lit", 4]],
    ]
    method = ["col", "Payments", "method"]
    assert Payments.method.isin("chip", "swipe").to_data() == ["in", method, ["lit", "chip"], ["lit", "swipe"]]
    assert Payments.method.isin({"swipe", "chip"}).to_data() == Payments.method.isin(["chip", "swipe"]).to_data()
    assert a.is_null().to_data() == fb.is_null(a).to_data() == ["is_null", AMOUNT]


def test_functions_compile_to_their_names() -> None:
    a = Payments.amount
    for function in (fb.log, fb.log1p, fb.exp, fb.sqrt, fb.floor):
        assert function(a).to_data() == [function.__name__, AMOUNT]
    assert fb.minimum(a, 1).to_data() == ["minimum", AMOUNT, ["lit", 1]]
    assert fb.maximum(1, a).to_data() == ["maximum", ["lit", 1], AMOUNT]
    assert fb.coalesce(a, 0.5).to_data() == ["coalesce", AMOUNT, ["lit", 0.5]]
    assert fb.where(a > 1, a, 0).to_data() == ["where", ["gt", AMOUNT, ["lit", 1]], AMOUNT, ["lit", 0]]
    assert Payments.at.weekday().to_data() == ["weekday", ["col", "Payments", "at"]]


def test_the_difference_of_two_times_is_in_seconds() -> None:
    last = ["view", "Seen", "last_at", ["payer"]]
    assert (fb.row_time() - Seen.last_at).to_data() == ["div", ["sub", ["time"], last], ["lit", 1e6]]


def test_a_time_is_compared_with_a_datetime() -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    assert (Payments.at >= moment).to_data() == ["ge", ["col", "Payments", "at"], ["lit", 1_704_067_200_000_000]]


def test_types_follow_the_operators() -> None:
    assert Payments.amount.type == "decimal"
    assert (Payments.amount + 1).type == "float"
    assert (Payments.amount > 1).type == "boolean"
    assert fb.where(Payments.abroad, 1, 2).type == "integer"
    assert fb.where(Payments.abroad, Payments.amount, 2).type == "float"
    merged = fb.where(Payments.abroad, Payments.method, "none")
    assert (merged.type, merged.categories) == ("category", ("chip", "online", "swipe", "none"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Payments.payee + 1, "Payments.payee is a string, and + takes a number"),
        (lambda: Payments.amount & Payments.abroad, "Payments.amount is a decimal, and & takes a condition"),
        (lambda: Payments.amount == "3", "they cannot be compared"),
        (lambda: Payments.method == "chop", "did you mean 'chip'?"),
        (lambda: Payments.method.isin("onlin"), "did you mean 'online'?"),
        (lambda: Payments.payee < "b", "texts have no order"),
        (lambda: Payments.amount.hour(), "hour takes a timestamp"),
        (lambda: fb.where(Payments.abroad, 1, "a"), "gives one type"),
        (lambda: fb.where(Payments.amount, 1, 2), "takes a condition"),
        (lambda: Payments.amount == None, "is_null()"),  # noqa: E711
        (lambda: Payments.amount + {}, "a dict cannot be used"),
        (lambda: Payments.amount + math.nan, "not a finite number"),
        (lambda: Payments.amount**3, "fb.exp(exponent * fb.log(x))"),
        (lambda: fb.coalesce(Payments.amount), "fb.coalesce(x, 0)"),
        (lambda: Payments.amount.isin(), "at least one value"),
        (lambda: Payments.amount.named("a b"), "not a name"),
    ],
)
def test_a_wrong_expression_says_what_is_wrong_and_where(make: Any, says: str) -> None:
    with pytest.raises(InvalidError) as error:
        make()
    assert says in str(error.value)
    assert "test_algebra.py:" in error.value.message


def test_if_names_where() -> None:
    with pytest.raises(InvalidError, match=r"fb\.where\(condition, then, otherwise\)") as error:
        1 if Payments.amount > 3 else 0
    assert error.value.code == "not_traceable"


def test_and_or_not_name_their_operators() -> None:
    a = Payments.abroad
    with pytest.raises(InvalidError, match=r"use \(a\) & \(b\) in place of `and`"):
        a and a
    with pytest.raises(InvalidError, match=r"use \(a\) \| \(b\) in place of `or`"):
        a or a
    with pytest.raises(InvalidError, match=r"use ~\(a\) in place of `not`"):
        not a


def test_other_truths_name_their_spelling() -> None:
    a = Payments.amount
    with pytest.raises(InvalidError, match=r"use \(0 < x\) & \(x < 5\)"):
        _ = 0 < a < 5
    with pytest.raises(InvalidError, match=r"use fb\.maximum\(a, b\)"):
        max(a, a + 1)
    with pytest.raises(InvalidError, match=r"use x\.isin\(…\)"):
        _ = a in [1, 2]


def test_functions_of_other_libraries_name_ours() -> None:
    np = pytest.importorskip("numpy")
    with pytest.raises(InvalidError, match=r"use fb\.log\(x\)"):
        np.log(Payments.amount)
    with pytest.raises(InvalidError, match=r"use fb\.maximum\(a, b\)"):
        np.maximum(Payments.amount, 1)
    with pytest.raises(InvalidError, match=r"fb\.log, fb\.log1p"):
        math.log(Payments.amount)
    with pytest.raises(InvalidError, match="looped over"):
        list(Payments.amount)


def test_an_expression_does_not_change() -> None:
    with pytest.raises(InvalidError, match="does not change"):
        Payments.amount.name = "x"  # type: ignore[misc]
    with pytest.raises(InvalidError, match="does not change"):
        Payments.amount = fb.Float()  # type: ignore[assignment]


def test_an_expression_shows_itself_as_it_is_written() -> None:
    assert show(Payments.amount > 0.2 * Payments.items) == "Payments.amount > (0.2 * Payments.items)"
    assert show(~Payments.abroad & Out.n_1h.is_null()) == "~Payments.abroad & Out.n_1h.is_null()"
    assert show(fb.where(Payments.abroad, Out.by(Payments.payee).n_1h, 0)) == (
        "fb.where(Payments.abroad, Out.by_payee.n_1h, 0)"
    )


NUMBERS = st.sampled_from([Payments.amount, Payments.items, Payments.score, Out.sum_1d])


def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    constants = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40)
    return st.one_of(
        st.builds(lambda a, b: a + b, inner, inner | constants),
        st.builds(lambda a, b: b - a, inner, constants),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(lambda a, b: a / b, inner, inner | constants),
        st.builds(fb.log1p, inner),
        st.builds(lambda a, b: fb.where(a > b, a, b), inner, inner),
        st.builds(lambda a, b: fb.coalesce(a, fb.maximum(a, b)), inner, inner),
        st.builds(lambda a, b: fb.where((a <= b) | a.is_null(), -a, fb.abs(b)), inner, inner),
    )


EXPRESSIONS = st.recursive(NUMBERS, grow, max_leaves=8)


def well_formed(data: list[Any]) -> bool:
    if data[0] in ("lit", "col", "view", "time"):
        return True
    arity = OPERATORS[data[0]].arity
    return (arity is None or len(data) == arity + 1) and all(well_formed(a) for a in data[1:])


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS)
def test_whatever_is_built_is_made_of_known_operators_and_its_own_leaves(expr: Expr) -> None:
    data = expr.to_data()
    assert well_formed(data)
    assert [leaf.to_data() for leaf in expr.leaves()] == list(leaves(data))
    assert show(expr)


@settings(max_examples=40, deadline=None)
@given(EXPRESSIONS)
def test_tracing_a_function_gives_what_its_operators_give(expr: Expr) -> None:
    def build(x: Expr = Payments.amount, y: Expr = expr) -> Expr:
        return fb.where(y > x, fb.log1p(y) / x, x - y)

    traced = fb.transform(build)
    assert traced.name == "build"
    assert traced.to_data() == build(Payments.amount, expr).to_data()
