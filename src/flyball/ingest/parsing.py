"""Values as they come → physical values, whole columns at a time, exactly or not at all.

Numbers are read from their decimal text: `12.45` with scale 2 is 1245 units, `12.4500000001` is refused, and a float is
taken iff it is the double nearest to a number with that many digits, so that `units / 10**scale` gives it back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from flyball.define.spec import ColumnSpec
from flyball.ingest.arrow import INLINE, TextChunk, text_chunks
from flyball.ingest.compiled import none_of, read_booleans, read_times, read_units
from flyball.ingest.rejection import Rule
from flyball.kernel.times import from_datetime

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Array = np.ndarray[Any, np.dtype[Any]]

PHYSICAL: dict[str, pl.DataType] = {
    "string": pl.String(),
    "category": pl.String(),
    "decimal": pl.Int64(),
    "float": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "timestamp": pl.Int64(),
}
DECIMAL_LIMIT = 10**18 - 1  # what a lake column of Decimal(18, scale) holds
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_MICROSECONDS = r"^\s*[+-]?[0-9]{12,}\s*$"
_TWELVE_DIGITS = 10**11  # the least number of so many
_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999  # the years 1 to 9999
_UNIT_SCALE = {"s": 6, "ms": 3, "us": 0}
_FEW = 32  # categories that are compared one after the other
_TRUE, _FALSE = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")


@dataclass(frozen=True, slots=True)
class Parsed:
    """`values`: physical, null where the value was null or could not be read; `faults`: rule → rows that broke it."""

    values: pl.Series
    faults: dict[Rule, Mask]


def parse(series: pl.Series, column: ColumnSpec) -> Parsed:
    """Read one column by its declared type."""
    kind = column.type
    if kind in ("string", "category"):
        return _text(series)
    if kind == "decimal":
        return units(series, column.scale, limit=DECIMAL_LIMIT)
    if kind == "integer":
        parsed = units(series, 0, limit=2**63 - 1)
        wrong = parsed.faults.pop(Rule.TOO_MANY_DIGITS, None)  # 5.0 is whole, 5.5 is of another type
        if wrong is not None:
            parsed.faults[Rule.WRONG_TYPE] = parsed.faults.get(Rule.WRONG_TYPE, np.zeros_like(wrong)) | wrong
        return parsed
    if kind == "float":
        return _floats(series)
    if kind == "boolean":
        return parse_booleans(series)
    return times(series, "us_or_iso")


def mask(series: pl.Series) -> Mask:
    """A boolean series as NumPy; null is false."""
    result: Mask = (series.fill_null(False) if series.null_count() else series).to_numpy()
    return result


def _refused(series: pl.Series, dtype: pl.DataType) -> Parsed:
    """A column whose whole type is wrong: every value that is not null breaks the rule."""
    return Parsed(
        pl.Series(series.name, [None], dtype=dtype).new_from_index(0, len(series)), _wrong(series.is_not_null())
    )


def _wrong(rows: pl.Series) -> dict[Rule, Mask]:
    return {Rule.WRONG_TYPE: mask(rows)} if rows.any() else {}


def _text(series: pl.Series) -> Parsed:
    if series.dtype == pl.String:
        return Parsed(series, {})
    if series.dtype in (pl.Categorical, pl.Enum, pl.Null):
        return Parsed(series.cast(pl.String), {})
    return _refused(series, pl.String())


def outside(series: pl.Series, categories: Sequence[str]) -> pl.Series:
    """Which texts are none of the categories; of a null text nothing is said."""
    texts = [category.encode() for category in categories]
    if len(texts) > _FEW or any(len(text) > INLINE for text in texts):
        return ~series.is_in(list(categories))
    views = b"".join(struct.pack(f"<I{INLINE}s", len(text), text) for text in texts)
    allowed, out = np.frombuffer(views, np.uint64).reshape(-1, 2), np.empty(len(series), np.bool_)
    first = 0
    with text_chunks(series) as chunks:
        for chunk in chunks:
            none_of(first, chunk.count, np.uint64(chunk.views), allowed, out)
            first += chunk.count
    found = pl.Series(series.name, out)
    return found & series.is_not_null() if series.null_count() else found


def units(series: pl.Series, scale: int, *, limit: int) -> Parsed:
    """Numbers in units of 10**-scale as `Int64`; text, integers, floats and decimals are read, nothing is rounded."""
    dtype = series.dtype
    if dtype == pl.Null:
        return Parsed(series.cast(pl.Int64), {})
    if dtype.is_integer():
        return _units_of_integers(series, scale, limit)
    if dtype.is_float():
        return _units_of_floats(series, scale, limit)
    if dtype.is_decimal():
        return _units_of_text(series.cast(pl.String), scale, limit)
    if dtype == pl.String:
        return _units_of_text(series, scale, limit)
    return _refused(series, pl.Int64())


def _units_of_integers(series: pl.Series, scale: int, limit: int) -> Parsed:
    values = series.cast(pl.Int64, strict=False)
    most = limit // 10**scale
    inside = ((values <= most) & (values >= -most)).fill_null(False)
    outside = series.is_not_null() & ~inside
    faults = {Rule.OUT_OF_RANGE: mask(outside)} if outside.any() else {}
    return Parsed(values.set(~inside, None) * 10**scale, faults)


def _units_of_floats(series: pl.Series, scale: int, limit: int) -> Parsed:
    numbers = series.fill_nan(None)
    own = numbers.to_numpy()
    double = own.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        rounded = np.rint(double * 10.0**scale)
        exact_below = 2.0**24 if series.dtype == pl.Float32 else 2.0**53
        outside = ~(np.abs(rounded) < min(exact_below, float(limit)))
        inexact = (rounded / 10.0**scale).astype(own.dtype) != own
    present = mask(numbers.is_not_null())
    infinite = present & ~np.isfinite(double)
    outside &= present & ~infinite
    inexact &= present & ~infinite & ~outside
    good = present & ~infinite & ~outside & ~inexact
    values = pl.Series(series.name, np.where(good, rounded, 0.0).astype(np.int64)).set(pl.Series(~good), None)
    faults = {Rule.WRONG_TYPE: infinite, Rule.OUT_OF_RANGE: outside, Rule.TOO_MANY_DIGITS: inexact}
    return Parsed(values, {rule: rows for rule, rows in faults.items() if rows.any()})


def _units_of_text(series: pl.Series, scale: int, limit: int) -> Parsed:
    found, done = _plain_units(series, scale, limit)
    if done.all():
        return Parsed(found, {})
    rest = pl.Series(~done)
    return _units_one_by_one(series.name, series.set(~rest, None).str.strip_chars(), found, rest, scale, limit)


def _plain_units(series: pl.Series, scale: int, limit: int, *, points: bool = True) -> tuple[pl.Series, Mask]:
    return _read_texts(
        series,
        np.zeros(len(series), np.int64),
        lambda first, chunk, values, done: read_units(
            first, chunk.count, np.uint64(chunk.views), chunk.buffers, scale, limit, points, values, done
        ),
    )


def _read_texts(
    series: pl.Series, values: Array, read: Callable[[int, TextChunk, Array, Mask], None]
) -> tuple[pl.Series, Mask]:
    """The values of the texts that machine code could read, null elsewhere; and which texts are done with, null ones
    among them. `read` is given the place of a chunk's first row, and fills `values` and what is done."""
    done = mask(series.is_null()).copy() if series.null_count() else np.zeros(len(series), np.bool_)
    first = 0
    with text_chunks(series) as chunks:
        for chunk in chunks:
            read(first, chunk, values, done)
            first += chunk.count
    found = pl.Series(series.name, values)
    missing = pl.Series(~done) | series.is_null() if series.null_count() else pl.Series(~done)
    return (found.set(missing, None) if missing.any() else found), done


def _units_one_by_one(name: str, text: pl.Series, value: pl.Series, rest: pl.Series, scale: int, limit: int) -> Parsed:
    """Exponents, `.5`, very long numbers, and what is no number at all."""
    places = rest.arg_true().to_list()
    is_number = mask(text.str.contains(_NUMBER))
    faults: dict[Rule, Mask] = {}
    found: list[int | None] = []
    for place in places:
        rule, number = (Rule.WRONG_TYPE, None) if not is_number[place] else _exact(text[place], scale, limit)
        found.append(number)
        if rule is not None:
            faults.setdefault(rule, np.zeros(len(text), dtype=np.bool_))[place] = True
    return Parsed(value.scatter(places, pl.Series(found, dtype=pl.Int64)).alias(name), faults)


def _exact(text: str, scale: int, limit: int) -> tuple[Rule | None, int | None]:
    number = Decimal(text)
    _, digits, exponent = number.as_tuple()
    if not number:
        return None, 0
    if not isinstance(exponent, int) or number.adjusted() + scale > 19:  # before 1e999999999 is written out
        return Rule.OUT_OF_RANGE, None
    shift = exponent + scale
    if len(digits) > 400 or -shift > len(digits):
        return Rule.TOO_MANY_DIGITS, None
    whole = int("".join(map(str, digits)))
    scaled, rest = (whole * 10**shift, 0) if shift >= 0 else divmod(whole, 10**-shift)
    if rest:
        return Rule.TOO_MANY_DIGITS, None
    return (Rule.OUT_OF_RANGE, None) if scaled > limit else (None, -scaled if number.is_signed() else scaled)


def _floats(series: pl.Series) -> Parsed:
    dtype = series.dtype
    if dtype == pl.String:
        values = _floats_of_text(series)
    elif dtype.is_numeric() or dtype == pl.Null:
        values = series.cast(pl.Float64)
        series = values.fill_nan(None) if dtype.is_float() else series
    else:
        return _refused(series, pl.Float64())
    finite = values.is_finite().fill_null(False)
    return Parsed(values.set(~finite, None).alias(series.name), _wrong(series.is_not_null() & ~finite))


def _floats_of_text(series: pl.Series) -> pl.Series:
    """The nearest doubles; what the plain cast does not take is looked at again, without the spaces around it."""
    values = series.cast(pl.Float64, strict=False)
    odd = series.is_not_null() & ~values.is_finite().fill_null(False)
    if not odd.any():
        return values
    text = series.filter(odd).str.strip_chars()
    again = text.set(~text.str.contains(_NUMBER).fill_null(True), None).cast(pl.Float64, strict=False)
    return values.scatter(odd.arg_true(), again)


def parse_booleans(series: pl.Series) -> Parsed:
    """True and false as themselves, as `true`, `True`, `TRUE`, `1` and their opposites."""
    if series.dtype in (pl.Boolean, pl.Null):
        return Parsed(series.cast(pl.Boolean), {})
    if series.dtype != pl.String and not series.dtype.is_integer():
        return _refused(series, pl.Boolean())
    text = series.cast(pl.String)
    found, done = _read_texts(
        text,
        np.zeros(len(text), np.bool_),
        lambda first, chunk, values, done: read_booleans(first, chunk.count, np.uint64(chunk.views), values, done),
    )
    if done.all():
        return Parsed(found, {})
    rest = np.flatnonzero(~done)
    text = text.gather(rest).str.strip_chars()
    true, false = text.is_in(_TRUE), text.is_in(_FALSE)
    wrong = np.zeros(len(series), np.bool_)
    wrong[rest] = mask(~(true | false))
    found = found.scatter(rest, true.set(~(true | false), None))
    return Parsed(found, {Rule.WRONG_TYPE: wrong} if wrong.any() else {})


def times(series: pl.Series, unit: str) -> Parsed:
    """Microseconds UTC from `s`, `ms` or `us` since 1970, `iso` text, or `us_or_iso`; datetimes are always read."""
    dtype = series.dtype
    if dtype == pl.Null:
        return Parsed(series.cast(pl.Int64), {})
    if dtype in (pl.Datetime, pl.Date):
        return _bounded_times(series, series.cast(pl.Datetime("us")).cast(pl.Int64))
    if unit == "us_or_iso" and dtype == pl.String:
        return _iso_or_microseconds(series)
    if unit == "iso":
        return _iso(series) if dtype == pl.String else _refused(series, pl.Int64())
    parsed = units(series, _UNIT_SCALE.get(unit, 0), limit=2**63 - 1)
    return Parsed(_bounded_times(series, parsed.values).values, _merge(parsed.faults, series, parsed.values))


def _merge(faults: dict[Rule, Mask], series: pl.Series, values: pl.Series) -> dict[Rule, Mask]:
    return faults | {
        rule: rows | faults.get(rule, np.zeros(len(series), dtype=np.bool_))
        for rule, rows in _bounded_times(series, values).faults.items()
    }


def _bounded_times(series: pl.Series, values: pl.Series) -> Parsed:
    outside = ((values < _EARLIEST) | (values > _LATEST)).fill_null(False)
    faults = {Rule.OUT_OF_RANGE: mask(outside)} if outside.any() else {}
    return Parsed(values.set(outside, None).alias(series.name), faults)


def _iso(series: pl.Series) -> Parsed:
    values, done = _read_texts(
        series,
        np.zeros(len(series), np.int64),
        lambda first, chunk, values, done: read_times(
            first, chunk.count, np.uint64(chunk.views), chunk.buffers, values, done
        ),
    )
    if done.all():
        return Parsed(values, {})
    rest = np.flatnonzero(~done).tolist()
    found = [_iso_time(text.strip()) for text in series.gather(rest)]
    values = values.scatter(rest, pl.Series(found, dtype=pl.Int64))
    values = _bounded_times(series, values).values
    return Parsed(values, _wrong(values.is_null() & series.is_not_null()))


def _iso_or_microseconds(series: pl.Series) -> Parsed:
    """Text as CSV has it: whole numbers of 12 digits and more are microseconds, since no ISO date looks like that."""
    plain = _microseconds(series)
    if plain is not None:
        return _bounded_times(series, plain)
    whole = series.str.contains(_MICROSECONDS).fill_null(False)
    if not whole.any():
        return _iso(series)
    numbers = times(series.set(~whole, None), "us")
    dates = _iso(series.set(whole, None))
    values = numbers.values.zip_with(whole, dates.values)
    none = np.zeros(len(series), dtype=np.bool_)
    rules = {*numbers.faults, *dates.faults}
    return Parsed(values, {r: numbers.faults.get(r, none) | dates.faults.get(r, none) for r in rules})


def _microseconds(series: pl.Series) -> pl.Series | None:
    """The numbers of a column of which each text plainly has 12 digits or more; None: only a closer look can tell."""
    start = series.head(16).drop_nulls()
    if start.is_empty() or not start[0].isdigit():
        return None
    found, done = _plain_units(series, 0, 2**63 - 1, points=False)
    small = ((found < _TWELVE_DIGITS) & (found > -_TWELVE_DIGITS)).any()
    return None if small or not done.all() else found


def _iso_time(text: str) -> int | None:
    try:
        return from_datetime(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None
