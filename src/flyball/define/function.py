"""The functions of the language: what expressions have no operator for."""

from __future__ import annotations

from typing import Any

from flyball.define.algebra import Expr, RowTime, build
from flyball.define.mistake import mistake


def where(condition: Any, then: Any, otherwise: Any) -> Expr:
    """`then` where the condition is true, else `otherwise`; null where the condition is null."""
    return build("where", condition, then, otherwise)


def coalesce(*values: Any) -> Expr:
    """The first value that is not null."""
    if len(values) < 2:
        raise mistake("fb.coalesce needs a value and what to use in its place, such as fb.coalesce(x, 0)")
    return build("coalesce", *values)


def is_null(value: Any) -> Expr:
    """True where the value is missing."""
    return build("is_null", value)


def log(value: Any) -> Expr:
    """The natural logarithm; null where the value is not positive."""
    return build("log", value)


def log1p(value: Any) -> Expr:
    """The natural logarithm of 1 + value; null where that is not positive."""
    return build("log1p", value)


def exp(value: Any) -> Expr:
    """e to the power of the value; null where that is not finite."""
    return build("exp", value)


def sqrt(value: Any) -> Expr:
    """The square root; null where the value is negative."""
    return build("sqrt", value)


def abs(value: Any) -> Expr:
    """The absolute value."""
    return build("abs", value)


def floor(value: Any) -> Expr:
    """The greatest whole number that is not above the value."""
    return build("floor", value)


def minimum(left: Any, right: Any) -> Expr:
    """The smaller of two values of one row."""
    return build("minimum", left, right)


def maximum(left: Any, right: Any) -> Expr:
    """The greater of two values of one row."""
    return build("maximum", left, right)


def row_time() -> Expr:
    """The time of the row itself, a timestamp; the difference of two timestamps is in seconds."""
    return RowTime("time", (), "timestamp")
