"""The fields of a request as columns, read by the same rules of type as ingestion reads events.

Exactly or not at all: `12.45` with scale 2 is 1245 units, `12.453` is refused, and so is a category nobody declared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from flyball.define.spec import ColumnSpec
from flyball.features.vector import Vector, vector_of
from flyball.kernel.errors import FlyballError, InvalidError, did_you_mean
from flyball.kernel.times import parse_time

_LIMIT = 1 << 63
_BOOLEANS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "1": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "0": False,
}


def request_vectors(
    columns: Sequence[ColumnSpec], rows: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Vector], dict[int, FlyballError]]:
    """Physical vectors by column name, and the error of each row that has one (its values are null).

    An error names the field, the value (but never that of a pii or sensitive column) and what is expected. Fields that
    no column asks for are not looked at.
    """
    errors: dict[int, FlyballError] = {}
    vectors = {}
    for column in columns:
        values: list[Any] = []
        for i, row in enumerate(rows):
            try:
                values.append(physical(column, row.get(column.name)))
            except InvalidError as error:
                errors.setdefault(i, error)
                values.append(None)
        vectors[column.name] = vector_of(values, column.type)
    return vectors, errors


def physical(column: ColumnSpec, value: Any) -> Any:
    """The physical value of a JSON value: units for decimals, microseconds for timestamps, None for null.

    Raises:
        InvalidError: `missing_field`, `bad_field`.
    """
    if value is None:
        if column.nullable:
            return None
        raise InvalidError(
            f"the field {column.name!r} ({column.type}) is missing; it may not be null",
            code="missing_field",
            details={"field": column.name},
        )
    return _READ[column.type](column, value)


def _bad(column: ColumnSpec, value: Any, expected: str) -> InvalidError:
    shown = "the value that was sent" if column.pii or column.sensitive else f"{value!r:.60}"
    return InvalidError(
        f"the field {column.name!r} must be {expected}, not {shown}", code="bad_field", details={"field": column.name}
    )


def _text(column: ColumnSpec, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad(column, value, "text")
    return value


def _category(column: ColumnSpec, value: Any) -> str:
    if isinstance(value, str) and value in column.categories:
        return value
    hint = "" if column.pii or column.sensitive else f" ({did_you_mean(str(value), column.categories)})"
    raise _bad(column, value, f"one of {len(column.categories)} categories{hint}")


def _decimal(column: ColumnSpec, value: Any) -> int:
    return _units(column, value, column.scale, f"a number with up to {column.scale} digits after the point")


def _integer(column: ColumnSpec, value: Any) -> int:
    return _units(column, value, 0, "a whole number of at most 64 bits")


def _units(column: ColumnSpec, value: Any, scale: int, expected: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise _bad(column, value, expected)
    try:  # the shortest text of a float is the number that was meant
        units = Decimal(repr(value) if isinstance(value, float) else value).scaleb(scale)
        if units != units.to_integral_value() or not -_LIMIT <= units < _LIMIT:
            raise _bad(column, value, expected)
        return int(units)
    except (InvalidOperation, OverflowError):  # not a number, or infinite
        raise _bad(column, value, expected) from None


def _float(column: ColumnSpec, value: Any) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise _bad(column, value, "a finite number")


def _boolean(column: ColumnSpec, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _BOOLEANS:
        return _BOOLEANS[value]
    raise _bad(column, value, "true or false")


def _timestamp(column: ColumnSpec, value: Any) -> int:
    if not isinstance(value, bool) and isinstance(value, int | str | datetime):
        try:
            time = parse_time(value)
        except InvalidError:
            time = _LIMIT
        if -_LIMIT <= time < _LIMIT:
            return time
    raise _bad(column, value, "a time in ISO 8601, or microseconds since 1970")


_READ: dict[str, Callable[[ColumnSpec, Any], Any]] = {
    "string": _text,
    "category": _category,
    "decimal": _decimal,
    "float": _float,
    "integer": _integer,
    "boolean": _boolean,
    "timestamp": _timestamp,
}
