"""The fields of a request as columns, read as ingestion reads events: the same spellings, to the same values.

Exactly or not at all: `12.45` with scale 2 is 1245 units, `12.453` is refused, and so is a category nobody declared.
The two rooms do not know each other, so the rules of type stand twice; `tests/test_spellings.py` runs both over one
table, and over what Hypothesis finds. Bounds and patterns of a column are the contract's alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

from flyball.define.spec import ColumnSpec
from flyball.features.vector import Vector, vector_of
from flyball.kernel.errors import FlyballError, InvalidError, did_you_mean
from flyball.kernel.times import from_datetime

DECIMAL_LIMIT = 10**18 - 1  # what a lake column of Decimal(18, scale) holds
INTEGER_LIMIT = (1 << 63) - 1
_EXACT = 1 << 53  # from here on a double does not tell whole numbers apart
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MICROSECONDS = re.compile(r"[+-]?[0-9]{12,}")  # no ISO date looks like that
_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999  # the years 1 to 9999
_NAN_IS_MISSING = ("decimal", "integer", "float", "timestamp")
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
    if value is None or (value != value and column.type in _NAN_IS_MISSING):
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
    units = units_of(value, column.scale, limit=DECIMAL_LIMIT)
    if units is None:
        most = Decimal(DECIMAL_LIMIT).scaleb(-column.scale)
        raise _bad(column, value, f"a number with up to {column.scale} digits after the point, between ±{most}")
    return units


def _integer(column: ColumnSpec, value: Any) -> int:
    units = units_of(value, 0, limit=INTEGER_LIMIT)
    if units is None:
        raise _bad(column, value, "a whole number of at most 64 bits")
    return units


def units_of(value: Any, scale: int, *, limit: int) -> int | None:
    """A number in units of 10**-scale, exactly; None where it is none, has more digits, or is beyond `limit` units.

    A float is taken iff it is the double nearest to a number with that many digits, and below 2**53 units.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        units = value * 10**scale
        return units if abs(units) <= limit else None
    if isinstance(value, float):
        rounded = round(value * 10.0**scale) if abs(value) < _EXACT else _EXACT
        return rounded if abs(rounded) < min(_EXACT, limit) and rounded / 10.0**scale == value else None
    if isinstance(value, Decimal) and value.is_finite():
        return _units_of_number(value, scale, limit)
    if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip()):
        return _units_of_number(Decimal(text), scale, limit)
    return None


def _units_of_number(number: Decimal, scale: int, limit: int) -> int | None:
    _, digits, exponent = number.as_tuple()
    if not number:
        return 0
    if not isinstance(exponent, int) or number.adjusted() + scale > 19 or len(digits) > 400:
        return None  # before 1e999999999 is written out
    shift = exponent + scale
    if -shift > len(digits):
        return None
    whole = int("".join(map(str, digits)))
    scaled, rest = (whole * 10**shift, 0) if shift >= 0 else divmod(whole, 10**-shift)
    return None if rest or scaled > limit else -scaled if number.is_signed() else scaled


def _float(column: ColumnSpec, value: Any) -> float:
    readable = isinstance(value, int | float) and not isinstance(value, bool)
    if readable or (isinstance(value, str) and _NUMBER.fullmatch(value.strip())):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _bad(column, value, "a finite number")


def _boolean(column: ColumnSpec, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int) and str(value).strip() in _BOOLEANS:
        return _BOOLEANS[str(value).strip()]
    raise _bad(column, value, "true or false")


def _timestamp(column: ColumnSpec, value: Any) -> int:
    time: int | None = None
    if isinstance(value, datetime):
        time = from_datetime(value)
    elif isinstance(value, str) and not _MICROSECONDS.fullmatch(value.strip()):
        with suppress(ValueError, OverflowError):
            time = from_datetime(datetime.fromisoformat(value.strip()))
    else:
        time = units_of(value, 0, limit=INTEGER_LIMIT)
    if time is None or not _EARLIEST <= time <= _LATEST:
        raise _bad(column, value, "a time in ISO 8601, or microseconds since 1970, between the years 1 and 9999")
    return time


_READ: dict[str, Callable[[ColumnSpec, Any], Any]] = {
    "string": _text,
    "category": _category,
    "decimal": _decimal,
    "float": _float,
    "integer": _integer,
    "boolean": _boolean,
    "timestamp": _timestamp,
}
