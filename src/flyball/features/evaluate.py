"""Expressions on columns, with the meaning that `flyball.define.expression` gives them; offline and online alike.

NumPy only: the same function computes a training set's frame and a worker's micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.define.expression import LEAVES, OPERATORS
from flyball.features.vector import LeafKey, Vector, leaf_key
from flyball.kernel.errors import InternalError, InvalidError, did_you_mean
from flyball.kernel.times import DAY, HOUR

Array = npt.NDArray[Any]

_UNARY: dict[str, Callable[[Array], Array]] = {
    "neg": np.negative,
    "abs": np.abs,
    "log": np.log,
    "log1p": np.log1p,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "floor": np.floor,
}
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def evaluate(expr: list[Any], columns: Mapping[LeafKey, Vector], *, rows: int | None = None) -> Vector:
    """Compute an expression.

    Args:
        columns: its leaves, by `leaf_key`; decimals as float64.
        rows: how many rows there are, where no column says so.

    Returns:
        float64 for numbers, bool for conditions, objects for text; a column or literal of integers keeps its int64.
    """
    if rows is None:
        rows = len(next(iter(columns.values()))) if columns else 1
    with np.errstate(all="ignore"):
        return _evaluate(expr, columns, rows)


def _evaluate(expr: list[Any], columns: Mapping[LeafKey, Vector], rows: int) -> Vector:
    op = expr[0]
    if op == "lit":
        return _literal(expr[1], rows)
    if op in LEAVES:
        try:
            return columns[leaf_key(expr)]
        except KeyError:
            raise InternalError(f"the column {expr[1:]} was not read", code="missing_leaf") from None
    if op not in OPERATORS:
        raise InvalidError(f"{op!r} is not an operator; {did_you_mean(str(op), OPERATORS)}", code="bad_expression")
    if op == "in":
        return _one_of(_evaluate(expr[1], columns, rows), [literal[1] for literal in expr[2:]])
    arguments = [_evaluate(argument, columns, rows) for argument in expr[1:]]
    if op == "is_null":
        return Vector(~arguments[0].valid, np.ones(rows, np.bool_))
    if op == "coalesce":
        result = arguments[-1]
        for argument in reversed(arguments[:-1]):
            result = _choose(argument.valid, argument, result)
        return result
    if op == "where":
        condition, yes, no = arguments
        chosen = _choose(condition.values.astype(np.bool_), yes, no)
        return Vector(chosen.values, chosen.valid & condition.valid)
    return _strict(op, arguments)


def _literal(value: Any, rows: int) -> Vector:
    if value is None:
        return Vector(np.zeros(rows), np.zeros(rows, np.bool_))
    if isinstance(value, bool):
        values: Array = np.full(rows, value, np.bool_)
    elif isinstance(value, int):
        values = np.full(rows, value, np.int64)
    elif isinstance(value, float):
        values = np.full(rows, value, np.float64)
    else:
        values = np.full(rows, value, object)
    return Vector(values, np.ones(rows, np.bool_))


def _strict(op: str, arguments: list[Vector]) -> Vector:
    """Operators that give null where any argument is null."""
    valid = np.logical_and.reduce([a.valid for a in arguments])
    values = [a.values for a in arguments]
    if op in _UNARY:
        return _finite(_UNARY[op](_number(op, values[0])), valid)
    if op in _BINARY:
        return _finite(_BINARY[op](_number(op, values[0]), _number(op, values[1])), valid)
    if op in _COMPARE:
        return Vector(_COMPARE[op](*_comparable(op, values)).astype(np.bool_), valid)
    if op == "hour":
        return Vector((_number(op, values[0], np.int64) % DAY // HOUR).astype(np.float64), valid)
    if op == "weekday":  # 1970-01-01 was a Thursday
        return Vector(((_number(op, values[0], np.int64) // DAY + 3) % 7).astype(np.float64), valid)
    truth = [v.astype(np.bool_) for v in values]
    if op == "and":
        return Vector(truth[0] & truth[1], valid)
    if op == "or":
        return Vector(truth[0] | truth[1], valid)
    return Vector(~truth[0], valid)  # not


def _finite(values: Array, valid: Array) -> Vector:
    return Vector(values, valid & np.isfinite(values))


def _number(op: str, values: Array, dtype: Any = np.float64) -> Array:
    if values.dtype == object:
        raise InvalidError(f"{op!r} takes numbers, not text", code="bad_expression")
    return np.ascontiguousarray(values, dtype)


def _comparable(op: str, values: list[Array]) -> list[Array]:
    text = [v.dtype == object for v in values]
    if any(text) and not all(text):
        raise InvalidError(f"{op!r} compares text with a number", code="bad_expression")
    return values


def _one_of(vector: Vector, literals: list[Any]) -> Vector:
    if vector.values.dtype == object:
        allowed = set(literals)
        found = np.fromiter((v in allowed for v in vector.values), np.bool_, len(vector))
    else:
        found = np.zeros(len(vector), np.bool_)
        for literal in literals:
            found |= vector.values == literal
    return Vector(found, vector.valid)


def _choose(condition: Array, yes: Vector, no: Vector) -> Vector:
    """`yes` where the condition holds, else `no`; a literal null takes the other's type."""
    a, b = yes.values, no.values
    if a.dtype != b.dtype and object in (a.dtype, b.dtype):
        if yes.valid.any() and no.valid.any():
            raise InvalidError("the two values of a choice are text and a number", code="bad_expression")
        a, b = (a, np.full(len(b), "", object)) if a.dtype == object else (np.full(len(a), "", object), b)
    return Vector(np.where(condition, a, b), np.where(condition, yes.valid, no.valid))
