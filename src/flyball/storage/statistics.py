"""Delta's statistics of a data file: how many rows, and per column the nulls, the least and the greatest value.

Readers leave files out by them, so a bound is given only where it is exact in JSON: integers, finite floats, times,
short texts, and decimals of up to 15 digits.
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl

_LONGEST = 32  # characters of a text that is given whole
_DIGITS = 15


def statistics(frame: pl.DataFrame) -> str:
    """The statistics of a frame in the types of the lake, as JSON."""
    bounded = [name for name, dtype in frame.schema.items() if _has_bounds(dtype)]
    least, greatest = frame.select(pl.col(bounded).min()), frame.select(pl.col(bounded).max())
    bounds: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name in bounded:
        low, high = _spelled(least[name][0]), _spelled(greatest[name][0])
        if low is not None and high is not None:
            bounds[0][name], bounds[1][name] = low, high
    return json.dumps(
        {
            "numRecords": frame.height,
            "minValues": bounds[0],
            "maxValues": bounds[1],
            "nullCount": {name: frame[name].null_count() for name in frame.columns},
        },
        ensure_ascii=False,
    )


def _has_bounds(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or dtype.is_float() or dtype.is_decimal() or dtype == pl.Datetime or dtype == pl.String


def _spelled(value: Any) -> Any:
    """A bound in JSON; None: it cannot be given."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if value.year >= 1000 else None
    if isinstance(value, Decimal):
        return float(value) if len(value.as_tuple().digits) <= _DIGITS else None
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return None if isinstance(value, str) and len(value) > _LONGEST else value
