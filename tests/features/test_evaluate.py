from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.features.evaluate import evaluate
from flyball.features.vector import Vector, vector_of
from flyball.kernel.errors import InternalError, InvalidError
from flyball.kernel.times import DAY, HOUR

X, Y, N, T, S, B = (["col", "R", name] for name in "xyntsb")
TYPES = {"x": "float", "y": "float", "n": "integer", "t": "timestamp", "s": "string", "b": "boolean"}


def columns(**values: list[Any]) -> dict[Any, Vector]:
    return {("col", "R", name): vector_of(items, TYPES[name]) for name, items in values.items()}


def plain(vector: Vector) -> list[Any]:
    return [v if ok else None for v, ok in zip(vector.values.tolist(), vector.valid.tolist(), strict=True)]


def result(expr: list[Any], **values: list[Any]) -> list[Any]:
    return plain(evaluate(expr, columns(**values)))


def numbers(depth: int) -> st.SearchStrategy[Any]:
    leaf = st.sampled_from([X, Y, N, ["lit", 2.5], ["lit", 0], ["lit", None]])
    if depth == 0:
        return leaf
    inner = numbers(depth - 1)
    unary = st.sampled_from(["neg", "abs", "log", "log1p", "exp", "sqrt", "floor"])
    binary = st.sampled_from(["add", "sub", "mul", "div", "minimum", "maximum", "coalesce"])
    return st.one_of(
        leaf,
        st.builds(lambda o, a: [o, a], unary, inner),
        st.builds(lambda o, a, b: [o, a, b], binary, inner, inner),
        st.builds(lambda c, a, b: ["where", c, a, b], conditions(depth - 1), inner, inner),
        st.sampled_from([["hour", T], ["weekday", T]]),
    )


def conditions(depth: int) -> st.SearchStrategy[Any]:
    leaf = st.sampled_from(
        [B, ["eq", S, ["lit", "a"]], ["in", S, ["lit", "a"], ["lit", "b"]], ["is_null", X], ["ne", S, S]]
    )
    if depth == 0:
        return leaf
    compare = st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"])
    return st.one_of(
        leaf,
        st.builds(lambda o, a, b: [o, a, b], compare, numbers(depth - 1), numbers(depth - 1)),
        st.builds(lambda o, a, b: [o, a, b], st.sampled_from(["and", "or"]), conditions(depth - 1), leaf),
        st.builds(lambda a: ["not", a], conditions(depth - 1)),
    )


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "x": st.none() | st.floats(-1e6, 1e6),
            "y": st.none() | st.floats(-3, 3),
            "n": st.none() | st.integers(-(2**60), 2**60),
            "t": st.none() | st.integers(-(2**55), 2**55),
            "s": st.none() | st.sampled_from(["a", "b", "c"]),
            "b": st.none() | st.booleans(),
        }
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(numbers(3) | conditions(3), ROWS)
def test_a_batch_is_computed_as_its_rows_are(expr: list[Any], rows: list[dict[str, Any]]) -> None:
    together = evaluate(expr, columns(**{name: [row[name] for row in rows] for name in TYPES}))
    for i, row in enumerate(rows):
        alone = evaluate(expr, columns(**{name: [row[name]] for name in TYPES}))
        assert alone.valid[0] == together.valid[i]
        if alone.valid[0]:
            assert alone.values[0] == together.values[i]
            assert not isinstance(alone.values[0], float) or math.isfinite(alone.values[0])


def test_null_in_gives_null_out() -> None:
    assert result(["add", X, Y], x=[1.0, None, 1.0], y=[2.0, 2.0, None]) == [3.0, None, None]
    assert result(["and", B, ["lit", False]], b=[True, None]) == [False, None]
    assert result(["gt", X, ["lit", None]], x=[1.0]) == [None]


def test_three_operators_look_at_null() -> None:
    assert result(["is_null", X], x=[1.0, None]) == [False, True]
    assert result(["coalesce", X, Y, ["lit", 7.0]], x=[1.0, None, None], y=[2.0, 2.0, None]) == [1.0, 2.0, 7.0]
    assert result(["where", B, X, ["lit", 0.0]], b=[True, False, None], x=[1.0, 1.0, 1.0]) == [1.0, 0.0, None]
    assert result(["where", B, X, Y], b=[True, False], x=[1.0, None], y=[None, 2.0]) == [1.0, 2.0]


@pytest.mark.parametrize(
    "expr",
    [
        ["div", X, ["lit", 0.0]],
        ["log", ["lit", 0.0]],
        ["log", ["lit", -1.0]],
        ["sqrt", ["lit", -1.0]],
        ["log1p", ["lit", -1.0]],
        ["exp", ["lit", 1000.0]],
        ["mul", ["lit", 1e300], ["lit", 1e300]],
    ],
)
def test_what_is_not_finite_is_null(expr: list[Any]) -> None:
    assert result(expr, x=[0.0, 1.0]) == [None, None]


def test_hours_and_weekdays_are_right_before_1970() -> None:
    assert result(["hour", T], t=[0, -1, -HOUR, DAY - 1]) == [0.0, 23.0, 23.0, 23.0]
    assert result(["weekday", T], t=[0, -1, -3 * DAY, 4 * DAY]) == [3.0, 2.0, 0.0, 0.0]


def test_integers_compare_exactly() -> None:
    assert result(["eq", N, ["lit", 2**60 + 1]], n=[2**60 + 1, 2**60]) == [True, False]
    assert result(["in", N, ["lit", 3], ["lit", 2**60 + 1]], n=[3, 2**60 + 1, 2**60]) == [True, True, False]


def test_a_choice_of_text_and_null_is_text() -> None:
    assert result(["coalesce", S, ["lit", "none"]], s=["a", None]) == ["a", "none"]
    assert result(["where", B, S, ["lit", None]], b=[True, False], s=["a", "a"]) == ["a", None]


def test_text_is_no_number() -> None:
    for expr in (["add", S, X], ["lt", S, X], ["coalesce", S, X]):
        with pytest.raises(InvalidError) as error:
            result(expr, s=["a", "a"], x=[1.0, 1.0])
        assert error.value.code == "bad_expression"
    with pytest.raises(InvalidError, match="did you mean 'sqrt'"):
        result(["sqr", X], x=[1.0])


def test_a_leaf_that_was_not_read_is_our_defect() -> None:
    with pytest.raises(InternalError):
        evaluate(X, {})


def test_a_literal_alone_has_as_many_rows_as_are_asked_for() -> None:
    assert plain(evaluate(["lit", 2.0], {}, rows=3)) == [2.0, 2.0, 2.0]
    assert np.array_equal(evaluate(["lit", True], {}, rows=2).values, [True, True])
