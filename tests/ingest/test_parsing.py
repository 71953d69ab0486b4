"""Values are read exactly or refused."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import ColumnSpec, ColumnType
from flyball.ingest.parsing import DECIMAL_LIMIT, Parsed, mask, outside, parse, times, units
from flyball.ingest.rejection import Rule


def read(values: list[Any], kind: ColumnType, *, scale: int = 0, dtype: Any = None) -> Parsed:
    return parse(pl.Series("x", values, dtype=dtype, strict=True), ColumnSpec(name="x", type=kind, scale=scale))


def faulty(parsed: Parsed) -> dict[str, list[int]]:
    return {rule.value: np.flatnonzero(rows).tolist() for rule, rows in parsed.faults.items()}


def test_a_decimal_is_read_from_its_text_and_never_rounded() -> None:
    texts = ["12.45", "12.4500", "12.4500000001", "-0.07", "+7", " 5 ", ".5", "5.", "1e2", "1245e-2", None]
    parsed = read(texts, "decimal", scale=2)
    assert parsed.values.to_list() == [1245, 1245, None, -7, 700, 500, 50, 500, 10_000, 1245, None]
    assert faulty(parsed) == {"too_many_digits": [2]}


@pytest.mark.parametrize("text", ["", "abc", "NaN", "inf", "1,000", "12_000", "-", "1.2.3", "٣", "0x10", "$5", "1 2"])
def test_what_is_no_number_is_of_the_wrong_type(text: str) -> None:
    kinds: tuple[ColumnType, ...] = ("decimal", "integer", "float")
    for kind in kinds:
        assert faulty(read([text], kind, scale=2)) == {"wrong_type": [0]}


def test_huge_and_tiny_exponents_are_refused_without_being_written_out() -> None:
    parsed = read(
        ["1e999999999", "1e-999999999", "0e999999999", "9" * 5000, "0." + "0" * 5000 + "1"], "decimal", scale=2
    )
    assert faulty(parsed) == {"out_of_range": [0, 3], "too_many_digits": [1, 4]}
    assert parsed.values[2] == 0


def test_a_decimal_fits_the_column_of_the_lake() -> None:
    parsed = read(["9999999999999999.99", "-9999999999999999.99", "10000000000000000.00"], "decimal", scale=2)
    assert parsed.values.to_list() == [DECIMAL_LIMIT, -DECIMAL_LIMIT, None]
    assert faulty(parsed) == {"out_of_range": [2]}


def test_a_float_is_a_decimal_where_it_is_the_nearest_to_one() -> None:
    parsed = read([12.45, 12.4500000001, 0.1 + 0.2, 1e20, float("inf"), float("nan"), None], "decimal", scale=2)
    assert parsed.values.to_list() == [1245, None, None, None, None, None, None]
    assert faulty(parsed) == {"wrong_type": [4], "out_of_range": [3], "too_many_digits": [1, 2]}
    assert read([12.45, 0.07], "decimal", scale=2, dtype=pl.Float32).values.to_list() == [1245, 7]


@settings(max_examples=60, deadline=None)
@given(st.integers(-(10**14), 10**14), st.integers(0, 6))
def test_every_spelling_of_a_decimal_gives_the_same_units(number: int, scale: int) -> None:
    text = format(Decimal(number).scaleb(-scale), "f")
    spellings = [text, text + ("0" if "." in text else ".0"), f"{number}e-{scale}", f" {text}"]
    assert units(pl.Series(spellings), scale, limit=DECIMAL_LIMIT).values.to_list() == [number] * 4
    assert units(pl.Series([float(text)]), scale, limit=DECIMAL_LIMIT).values.to_list() == [number]
    exact = pl.Series([text]).cast(pl.Decimal(30, scale))
    assert units(exact, scale, limit=DECIMAL_LIMIT).values.to_list() == [number]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789.eE+- ", max_size=12), st.integers(0, 4))
def test_text_is_read_as_python_reads_it_or_refused(text: str, scale: int) -> None:
    parsed = units(pl.Series("x", [text], dtype=pl.String), scale, limit=DECIMAL_LIMIT)
    stripped = text.strip()
    try:
        expected = Decimal(stripped) if stripped else None
    except ArithmeticError:
        expected = None
    if parsed.values[0] is not None:
        assert expected == Decimal(parsed.values[0]).scaleb(-scale)
        assert parsed.faults == {}
    else:
        assert len(parsed.faults) == 1
        assert (Rule.WRONG_TYPE in parsed.faults) == (expected is None)


_ALMOST = st.builds(
    lambda number, place, odd: number[: place % (len(number) + 1)] + odd + number[place % (len(number) + 1) :],
    st.from_regex(r"[0-9]{1,18}", fullmatch=True),
    st.integers(0, 18),
    st.sampled_from(["", ".", "..", "/", ":", "\x00", "\x10", "p", "é", "-", "\u00b2"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_ALMOST, min_size=1, max_size=30), st.integers(0, 4), st.integers(0, 5))
def test_numbers_of_every_length_are_told_from_what_nearly_is_one(texts: list[str], scale: int, skipped: int) -> None:
    series = pl.Series("x", [*["skip"] * skipped, *texts], dtype=pl.String)[skipped:]  # in a slice of a column
    parsed = units(series, scale, limit=DECIMAL_LIMIT)
    for place, (text, found) in enumerate(zip(texts, parsed.values.to_list(), strict=True)):
        if re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)", text) is None:
            assert parsed.faults[Rule.WRONG_TYPE][place]
        else:
            number = Decimal(text).scaleb(scale)
            fits = number == number.to_integral_value() and abs(number) <= DECIMAL_LIMIT
            assert found == (int(number) if fits else None)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(alphabet="abé\x00", max_size=14), max_size=40, unique=True),
    st.lists(st.one_of(st.none(), st.text(alphabet="abé\x00", max_size=14)), max_size=20),
    st.data(),
)
def test_what_is_none_of_the_categories(categories: list[str], texts: list[str | None], data: st.DataObject) -> None:
    texts += data.draw(st.lists(st.sampled_from(categories), max_size=20)) if categories else []
    found = outside(pl.Series(texts, dtype=pl.String), categories)
    assert mask(found).tolist() == [text is not None and text not in categories for text in texts]


def test_integers_take_whole_numbers_only() -> None:
    parsed = read(["5", "5.0", "5.5", "9223372036854775807", "9223372036854775808"], "integer")
    assert parsed.values.to_list() == [5, 5, None, 2**63 - 1, None]
    assert faulty(parsed) == {"wrong_type": [2], "out_of_range": [4]}
    assert faulty(read([2**63, 1], "integer", dtype=pl.UInt64)) == {"out_of_range": [0]}
    assert read([5.0, None], "integer").values.to_list() == [5, None]


def test_floats_are_finite_and_nan_is_null() -> None:
    parsed = read([1.5, float("nan"), float("inf"), None], "float")
    assert parsed.values.to_list() == [1.5, None, None, None]
    assert faulty(parsed) == {"wrong_type": [2]}
    assert read(["0.1", "1e400"], "float").values.to_list() == [0.1, None]


def test_a_number_is_not_text_and_text_is_no_truth() -> None:
    assert faulty(read([5, None], "string")) == {"wrong_type": [0]}
    assert faulty(read([True], "decimal", scale=2)) == {"wrong_type": [0]}
    parsed = read(["true", "FALSE", "0", "yes", None], "boolean")
    assert parsed.values.to_list() == [True, False, False, None, None]
    assert faulty(parsed) == {"wrong_type": [3]}


_TRUTHS = {"true": True, "True": True, "TRUE": True, "1": True}
_TRUTHS |= {"false": False, "False": False, "FALSE": False, "0": False}
_NEARLY = ["tRue", "truex", "fals", "falsE", "FALSe", "2", "11", "t", "", "true, but not quite", "falsefalsefalse"]


@given(
    st.lists(st.one_of(st.none(), st.sampled_from([*_TRUTHS, *_NEARLY]), st.text(max_size=6)), max_size=20), st.data()
)
def test_truths_are_read_in_their_spellings_alone(texts: list[str | None], data: st.DataObject) -> None:
    padded = [text if text is None else data.draw(st.sampled_from(["", " "])) + text for text in texts]
    parsed = read(padded, "boolean", dtype=pl.String)
    bare = pl.Series(padded, dtype=pl.String).str.strip_chars().to_list()
    assert parsed.values.dtype == pl.Boolean
    assert parsed.values.to_list() == [_TRUTHS.get(text) if text is not None else None for text in bare]
    wrong = [i for i, text in enumerate(bare) if text is not None and text not in _TRUTHS]
    assert faulty(parsed) == ({"wrong_type": wrong} if wrong else {})


def test_categories_may_come_as_such() -> None:
    assert read(["a", None], "category", dtype=pl.Categorical).values.to_list() == ["a", None]


def test_times_are_microseconds_in_utc() -> None:
    texts = ["2014-05-16T19:45:00Z", "2014-05-16 19:45", "2014-05-16T21:45:00.5+02:00", "2014-05-16", "16.5.2014", None]
    at = 1_400_269_500_000_000
    parsed = read(texts, "timestamp")
    assert parsed.values.to_list() == [at, at, at + 500_000, at - 71_100_000_000, None, None]
    assert faulty(parsed) == {"wrong_type": [4]}
    assert times(pl.Series(["1400269500", "1400269500.5"]), "s").values.to_list() == [at, at + 500_000]
    assert times(pl.Series([1_400_269_500_000]), "ms").values.to_list() == [at]
    assert times(pl.Series([at]), "us").values.to_list() == [at]
    naive = pl.Series([at * 1000]).cast(pl.Datetime("ns"))
    assert times(naive, "s").values.to_list() == [at]
    assert times(naive.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"), "iso").values.to_list() == [at]


def test_microseconds_may_stand_as_text_among_dates_as_in_a_csv_file() -> None:
    at = 1_400_269_500_000_000
    texts = [
        str(at),
        "2014-05-16T19:45:00Z",
        f" {at + 1} ",
        "20140516",
        "2014",
        "much",
        "9" * 18,
        "-210866803200000",
        None,
    ]
    parsed = read(texts, "timestamp")
    assert parsed.values.to_list() == [at, at, at + 1, at - 71_100_000_000, None, None, None, -210866803200000, None]
    assert faulty(parsed) == {"wrong_type": [4, 5], "out_of_range": [6]}


def test_a_time_that_is_no_date_is_out_of_range() -> None:
    assert list(times(pl.Series([10**18]), "us").faults) == [Rule.OUT_OF_RANGE]
    assert list(times(pl.Series([5]), "iso").faults) == [Rule.WRONG_TYPE]
