"""The fields of a request against the columns that a version takes: each row is checked and made plain.

A checked row holds every declared column: text, `float`, `int`, `bool`, microseconds for timestamps, None for null.
Messages name fields, never values of pii columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flyball.define.spec import ColumnSpec
from flyball.kernel.errors import InvalidError, did_you_mean
from flyball.kernel.times import parse_time

Row = dict[str, Any]
Read = Callable[[ColumnSpec, Any], Any]


def check_row(
    columns: Sequence[ColumnSpec],
    row: Mapping[str, Any],
    *,
    keep: Collection[str] = (),
    ignore: Collection[str] = (),
) -> Row:
    """The row made plain. `keep` names plain fields that may stand beside the columns, `ignore` those that are dropped.

    Raises InvalidError: `missing_field`, `unknown_field`, `bad_field`.
    """
    checked: Row = {}
    for column in columns:
        value = row.get(column.name)
        if value is None:
            if not column.nullable:
                raise InvalidError(
                    f"the field {column.name!r} ({column.type}) is missing; it may not be null",
                    code="missing_field",
                    details={"field": column.name},
                )
            checked[column.name] = None
        else:
            checked[column.name] = _READ[column.type](column, value)
    for name in row:
        if name not in checked:
            _take_extra(checked, columns, name, row[name], keep, ignore)
    return checked


def _take_extra(
    checked: Row,
    columns: Sequence[ColumnSpec],
    name: str,
    value: Any,
    keep: Collection[str],
    ignore: Collection[str],
) -> None:
    if name in keep:
        if isinstance(value, list | dict):
            raise InvalidError(f"the field {name!r} must be a plain value", code="bad_field", details={"field": name})
        checked[name] = value
    elif name not in ignore:
        known = {column.name for column in columns} | set(keep)
        raise InvalidError(
            f"the request has no field {name!r}: {did_you_mean(name, known)}",
            code="unknown_field",
            details={"field": name},
        )


def _bad(column: ColumnSpec, value: Any, wanted: str) -> InvalidError:
    shown = "a value" if column.pii or column.sensitive else f"{value!r:.60}"
    return InvalidError(
        f"the field {column.name!r} must be {wanted}, not {shown}", code="bad_field", details={"field": column.name}
    )


def _text(column: ColumnSpec, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad(column, value, "text")
    return value


def _category(column: ColumnSpec, value: Any) -> str:
    if not isinstance(value, str) or (column.categories and value not in column.categories):
        raise _bad(column, value, "one of " + ", ".join(repr(c) for c in column.categories[:20]))
    return value


def _number(column: ColumnSpec, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _bad(column, value, "a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise _bad(column, value, "a number") from None
    if not math.isfinite(number):
        raise _bad(column, value, "a finite number, or null")
    return number


def _integer(column: ColumnSpec, value: Any) -> int:
    number = _number(column, value)
    if number != int(number) or abs(number) >= 2**63:
        raise _bad(column, value, "a whole number of at most 64 bits")
    return value if isinstance(value, int) else int(number)


def _boolean(column: ColumnSpec, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _bad(column, value, "true or false")
    return value


def _timestamp(column: ColumnSpec, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _bad(column, value, "a time in ISO 8601, or microseconds since 1970")
    try:
        return parse_time(value)
    except InvalidError:
        raise _bad(column, value, "a time in ISO 8601, or microseconds since 1970") from None


_READ: dict[str, Read] = {
    "string": _text,
    "category": _category,
    "decimal": _number,
    "float": _number,
    "integer": _integer,
    "boolean": _boolean,
    "timestamp": _timestamp,
}
