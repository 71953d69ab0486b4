"""Expressions as DuckDB SQL, operator by operator, with the meaning that `define.expression` gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flyball.define.expression import OPERATORS
from flyball.define.spec import ExprData, SourceSpec
from flyball.kernel.errors import InvalidError, did_you_mean
from flyball.kernel.times import DAY, HOUR

MACROS = """\
CREATE OR REPLACE TEMP MACRO finite(x) AS CASE WHEN isfinite(x) THEN x + 0.0::DOUBLE END;
CREATE OR REPLACE TEMP MACRO hop_floor(t, h) AS t - ((t % h) + h) % h;
CREATE OR REPLACE TEMP MACRO and_of(a, b) AS CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN a AND b END;
CREATE OR REPLACE TEMP MACRO or_of(a, b) AS CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN a OR b END;
CREATE OR REPLACE TEMP MACRO smaller(a, b) AS CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN least(a, b) END;
CREATE OR REPLACE TEMP MACRO larger(a, b) AS CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN greatest(a, b) END;
CREATE OR REPLACE TEMP MACRO ln_of(x) AS CASE WHEN x > 0 THEN ln(x) END;
CREATE OR REPLACE TEMP MACRO ln_1p(x) AS
    CASE WHEN x > -1 THEN CASE WHEN 1 + x = 1 THEN x ELSE ln(1 + x) * (x / ((1 + x) - 1)) END END;
CREATE OR REPLACE TEMP MACRO root_of(x) AS CASE WHEN x >= 0 THEN sqrt(x) END;
CREATE OR REPLACE TEMP MACRO quotient(a, b) AS CASE WHEN b <> 0 THEN finite(a / b) END;

"""
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "ne": "<>"}
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}
_NUMBERS: dict[str, str] = {
    "neg": "-({0})",
    "abs": "abs({0})",
    "log": "ln_of({0})",
    "log1p": "finite(ln_1p({0}))",
    "exp": "finite(exp({0}))",
    "sqrt": "root_of({0})",
    "floor": "floor({0})",
    "div": "quotient({0}, {1})",
    "minimum": "smaller({0}, {1})",
    "maximum": "larger({0}, {1})",
}
_LOGIC = {"and": "and_of({0}, {1})", "or": "or_of({0}, {1})", "not": "NOT ({0})"}


def name(identifier: str) -> str:
    """A quoted name."""
    return '"' + identifier.replace('"', '""') + '"'


def text(value: str) -> str:
    """A quoted string."""
    return "'" + value.replace("'", "''") + "'"


def literal(value: Any) -> str:
    """A value as it stands in a query; floats to the last bit."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{text(repr(value))}::DOUBLE"
    return text(str(value))


def expression(expr: ExprData, source: SourceSpec, *, table: str = "") -> str:
    """An expression over a source's columns and the event's time."""
    op = expr[0]
    prefix = f"{table}." if table else ""
    if op == "lit":
        return literal(expr[1])
    if op == "time":
        return f"{prefix}_e"
    if op == "col":
        return _column(expr[2], source, prefix)

    def part(argument: ExprData) -> str:
        return expression(argument, source, table=table)

    special = _SPECIAL.get(op)
    if special is not None:
        return special([part(argument) for argument in expr[1:]])
    arguments = [part(argument) for argument in expr[1:]]
    if op in _COMPARE:
        return f"(({arguments[0]}) {_COMPARE[op]} ({arguments[1]}))"
    if op in _LOGIC:
        return _LOGIC[op].format(*(f"({argument})::BOOLEAN" for argument in arguments))
    numbers = [f"({argument})::DOUBLE" for argument in arguments]
    if op in _ARITHMETIC:
        return f"finite({numbers[0]} {_ARITHMETIC[op]} {numbers[1]})"
    if op in _NUMBERS:
        return _NUMBERS[op].format(*numbers)
    raise InvalidError(f"{op!r} is not an operator; {did_you_mean(str(op), OPERATORS)}", code="bad_expression")


def _column(column: str, source: SourceSpec, prefix: str) -> str:
    spec, shown = source.column(column), prefix + name(column)
    if spec.type == "decimal":
        return f"(({shown} * {10**spec.scale})::BIGINT::DOUBLE / {10**spec.scale}::DOUBLE)"
    return f"epoch_us({shown})" if spec.type == "timestamp" else shown


def _coalesce(arguments: list[str]) -> str:
    return f"coalesce({', '.join(arguments)})"


def _where(arguments: list[str]) -> str:
    condition, yes, no = arguments
    return f"CASE WHEN ({condition}) IS NULL THEN NULL WHEN ({condition})::BOOLEAN THEN {yes} ELSE {no} END"


def _one_of(arguments: list[str]) -> str:
    return f"(({arguments[0]}) IN ({', '.join(arguments[1:])}))"


def _hour(arguments: list[str]) -> str:
    moment = f"({arguments[0]})::BIGINT"
    return f"(({moment} - hop_floor({moment}, {DAY})) // {HOUR})::DOUBLE"


def _weekday(arguments: list[str]) -> str:  # 1970-01-01 was a Thursday
    moment = f"({arguments[0]})::BIGINT"
    return f"(((hop_floor({moment}, {DAY}) // {DAY} + 3) % 7 + 7) % 7)::DOUBLE"


_SPECIAL: dict[str, Callable[[list[str]], str]] = {
    "is_null": lambda arguments: f"(({arguments[0]}) IS NULL)",
    "coalesce": _coalesce,
    "where": _where,
    "in": _one_of,
    "hour": _hour,
    "weekday": _weekday,
}
