"""Expressions as data: the operators, their arity and the type of their result.

An expression is a list: `["lit", 0.2]`, `["col", "Trips", "fare"]`,
`["view", "CompanyTrips", "fare_mean_30d", ["company"]]`, `["time"]`, or `[operator, argument, …]`. It is what a traced
transform becomes, what travels in plans and manifests, and what `features.evaluate` computes, offline and online alike.

Null in gives null out, except for `is_null`, `coalesce` and `where` (a null condition gives null). Division by zero,
the logarithm of a number that is not positive, the square root of a negative one, and any result that is not finite
give null.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

ResultType = Literal["number", "boolean", "same"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """An operator: how many arguments (None: one or more) and what it gives."""

    arity: int | None
    result: ResultType


OPERATORS: dict[str, Operator] = {
    "add": Operator(arity=2, result="number"),
    "sub": Operator(arity=2, result="number"),
    "mul": Operator(arity=2, result="number"),
    "div": Operator(arity=2, result="number"),
    "neg": Operator(arity=1, result="number"),
    "abs": Operator(arity=1, result="number"),
    "log": Operator(arity=1, result="number"),
    "log1p": Operator(arity=1, result="number"),
    "exp": Operator(arity=1, result="number"),
    "sqrt": Operator(arity=1, result="number"),
    "floor": Operator(arity=1, result="number"),
    "minimum": Operator(arity=2, result="number"),
    "maximum": Operator(arity=2, result="number"),
    "hour": Operator(arity=1, result="number"),  # of a timestamp, 0 to 23, UTC
    "weekday": Operator(arity=1, result="number"),  # of a timestamp, Monday is 0, UTC
    "lt": Operator(arity=2, result="boolean"),
    "le": Operator(arity=2, result="boolean"),
    "gt": Operator(arity=2, result="boolean"),
    "ge": Operator(arity=2, result="boolean"),
    "eq": Operator(arity=2, result="boolean"),
    "ne": Operator(arity=2, result="boolean"),
    "and": Operator(arity=2, result="boolean"),
    "or": Operator(arity=2, result="boolean"),
    "not": Operator(arity=1, result="boolean"),
    "is_null": Operator(arity=1, result="boolean"),
    "in": Operator(arity=None, result="boolean"),  # first argument is one of the literals that follow
    "coalesce": Operator(arity=None, result="same"),
    "where": Operator(arity=3, result="same"),
}

LEAVES = ("lit", "col", "view", "time")


def leaves(expr: list[Any]) -> Iterator[list[Any]]:
    """The leaves of an expression, left to right, literals left out; a leaf may come twice."""
    if expr[0] in LEAVES:
        if expr[0] != "lit":
            yield expr
        return
    for argument in expr[1:]:
        yield from leaves(argument)


def columns_of(expr: list[Any], source: str) -> set[str]:
    """The columns of `source` that an expression reads."""
    return {leaf[2] for leaf in leaves(expr) if leaf[0] == "col" and leaf[1] == source}
