"""Columns of which every value is plainly good: of the JSON type that its declaration expects, and within its rules.

A short way to the same answer as `parsing` and `contract` come to, for the many pushes that have nothing wrong: a few
operations on a whole column. Where it is not sure, it says nothing, and the long way judges.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from flyball.define.spec import ColumnSpec
from flyball.ingest.contract import bound
from flyball.ingest.parsing import DECIMAL_LIMIT

_NONE = type(None)
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # the years 1 to 9999
_SCALES = {"": 0, "us_or_iso": 0, "us": 0, "ms": 3, "s": 6}
_EXACT = 2**53  # whole numbers below are exact as doubles
_LARGEST = 2**63 - 1


def plain(name: str, values: list[Any], kinds: set[type], column: ColumnSpec | None, unit: str) -> pl.Series | None:
    """The physical values of a column, or None where only the long way can tell.

    Args:
        values: as JSON has them: text, numbers, booleans, None. `kinds`: their types.
        column: None: a time that is read and not declared.
        unit: how a time is read; empty: the column is none.
    """
    if _NONE in kinds and (column is None or not column.nullable):
        return None
    kinds = kinds - {_NONE}
    if unit or (column is not None and column.type == "timestamp"):
        found = _times(name, values, kinds, unit)
    elif column is None:
        return None
    else:
        found = _READ[column.type](name, values, kinds, column)
    return found if found is None or column is None or _within(found, column) else None


def _series(name: str, values: list[Any], dtype: pl.DataType) -> pl.Series | None:
    try:
        return pl.Series(name, values, dtype=dtype, strict=True)
    except (OverflowError, TypeError, pl.exceptions.PolarsError):
        return None


def _text(name: str, values: list[Any], kinds: set[type], column: ColumnSpec) -> pl.Series | None:
    if not kinds <= {str}:
        return None
    present = values if not column.nullable else [value for value in values if value is not None]
    if column.type == "category" and column.categories and not set(present) <= set(column.categories):
        return None
    if column.max_length is not None and max(map(len, present), default=0) > column.max_length:
        return None
    if column.pattern and not all(map(_pattern(column.pattern), set(present))):
        return None
    return _series(name, values, pl.String())


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).fullmatch


def _floats(name: str, values: list[Any], kinds: set[type], column: ColumnSpec) -> pl.Series | None:
    if not kinds <= {float}:
        return None
    series = _series(name, values, pl.Float64())
    return series if series is not None and np.isfinite(_filled(series)).all() else None


def _integers(name: str, values: list[Any], kinds: set[type], column: ColumnSpec) -> pl.Series | None:
    if not kinds <= {int}:
        return None
    series = _series(name, values, pl.Int64())
    return series if series is not None and _between(series, -_LARGEST, _LARGEST) else None


def _booleans(name: str, values: list[Any], kinds: set[type], column: ColumnSpec) -> pl.Series | None:
    return _series(name, values, pl.Boolean()) if kinds <= {bool} else None


def _decimals(name: str, values: list[Any], kinds: set[type], column: ColumnSpec) -> pl.Series | None:
    """Units of doubles that are the nearest to a number with so many digits, and of whole numbers."""
    if not kinds <= {float, int}:
        return None
    power = 10**column.scale
    if float not in kinds:
        whole = _series(name, values, pl.Int64())
        most = DECIMAL_LIMIT // power
        return whole * power if whole is not None and _between(whole, -most, most) else None
    most = min(_EXACT, DECIMAL_LIMIT)
    if int in kinds:
        if any(type(v) is int and not -most < v * power < most for v in values):
            return None
        values = [float(v) if type(v) is int else v for v in values]
    series = _series(name, values, pl.Float64())
    if series is None:
        return None
    numbers = _filled(series)
    with np.errstate(invalid="ignore", over="ignore"):
        units = np.rint(numbers * float(power))
        good = (np.abs(units) < most) & (units / float(power) == numbers)
    if not good.all():
        return None
    found = pl.Series(name, units.astype(np.int64))
    return found.set(series.is_null(), None) if series.null_count() else found


def _times(name: str, values: list[Any], kinds: set[type], unit: str) -> pl.Series | None:
    """Times as whole numbers; text is left to the long way."""
    scale = _SCALES.get(unit)
    if scale is None or not kinds <= {int}:
        return None
    series = _series(name, values, pl.Int64())
    power = 10**scale
    if series is None or not _between(series, -(-_FIRST // power), _LAST // power):
        return None
    return series * power if scale else series


def _filled(series: pl.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    """As NumPy, nulls as 0."""
    return (series.fill_null(0.0) if series.null_count() else series).to_numpy()


def _between(series: pl.Series, low: int, high: int) -> bool:
    least, most = _range(series)
    return least is None or (low <= least and most <= high)


def _range(series: pl.Series) -> tuple[Any, Any]:
    """The least and the largest value; None: there is none."""
    if series.null_count() or not len(series):
        return series.min(), series.max()
    numbers = series.to_numpy()  # which does not let go of the interpreter, as Polars does
    return numbers.min().item(), numbers.max().item()


def _within(series: pl.Series, column: ColumnSpec) -> bool:
    """Whether a column of numbers keeps its bounds, in physical units."""
    if column.ge is None and column.gt is None and column.le is None and column.lt is None:
        return True
    least, most = _range(series)
    if least is None:
        return True
    ge, gt, le, lt = (bound(column, which) for which in ("ge", "gt", "le", "lt"))
    broken = (
        (ge is not None and least < ge)
        or (gt is not None and least <= gt)
        or (le is not None and most > le)
        or (lt is not None and most >= lt)
    )
    return not broken


_READ: dict[str, Callable[[str, list[Any], set[type], ColumnSpec], pl.Series | None]] = {
    "string": _text,
    "category": _text,
    "float": _floats,
    "integer": _integers,
    "boolean": _booleans,
    "decimal": _decimals,
}
