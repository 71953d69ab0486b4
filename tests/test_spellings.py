"""What a request may bring is what an event may: one table of spellings, read by both."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import ColumnSpec, SourceSpec
from flyball.features.request import physical
from flyball.ingest.contract import check
from flyball.ingest.rows import from_dicts
from flyball.kernel.errors import InvalidError

COLUMNS = {
    "money": ColumnSpec(name="x", type="decimal", scale=2),
    "fine": ColumnSpec(name="x", type="decimal", scale=15),
    "whole": ColumnSpec(name="x", type="integer"),
    "some": ColumnSpec(name="x", type="integer", nullable=True),
    "real": ColumnSpec(name="x", type="float"),
    "maybe": ColumnSpec(name="x", type="float", nullable=True),
    "truth": ColumnSpec(name="x", type="boolean"),
    "time": ColumnSpec(name="x", type="timestamp"),
    "text": ColumnSpec(name="x", type="string"),
    "kind": ColumnSpec(name="x", type="category", categories=("cash", "card")),
}
NUMBERS = """0 -0 +7 007 1_000 1,000 12.45 12.450 12.453 .5 5. . 1e3 1E-2 1e-3 1e999 1e999999999 -1e-999999999
    0x10 ٣ NaN nan inf -Infinity 9999999999999999.99 10000000000000000 -9999999999999999.99 9223372036854775807
    9223372036854775808 -9223372036854775808 -9223372036854775807 999.999999999999999 1000 - + e5 1e 1e5.5 --1 1.2.3
    999999999999999999 1000000000000000000 0.000000000000001 0.0000000000000001 0e999999999"""
TIMES = """2014-05-16T19:45:00Z 2014-05-16T19:45:00 2014-05-16 20140516 2014-05-16T19:45 2014-05-16T19:45:00.1Z
    2014-05-16T19:45:00.123456789Z 2014-05-16T19:45:00+01:30 2014-05-16T19:45:00+0130 2014-05-16T19:45:00+01
    2014-5-6T1:2:3Z 2014-05-16T19:45:60Z 2014-05-16T24:00:00Z 2014-05-16T19:45:00z +2014-05-16T19:45:00Z
    0000-05-16T19:45:00Z -2014-05-16T19:45:00Z 12014-05-16T19:45:00Z 2014-05-16T19:45:00.Z 2014-05-16T19:45:00,5Z
    2014-05-16T19:45:00-25:00 2014-05-16T19:45:00-00:00 2014-02-30T19:45:00Z 0001-01-01T00:00:00Z
    0001-01-01T00:00:00+01:00 9999-12-31T23:59:59.999999Z 9999-12-31T23:59:59-01:00 2014-W20-5 yesterday 1400269500
    1400269500000 201405161945 1400269500000000 +1400269500000000 -62135596800000000 -62135596800000001
    253402300799999999 253402300800000000 9223372036854775808 2500-01-01T00:00:00.000001Z"""
TRUTHS = "true True TRUE 1 false False FALSE 0 tRUE yes t 01 2 null"
OTHERS: list[Any] = [
    None, True, False, 0, 1, 2, -1, 7, 10**15, 10**16, 10**18, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63, -(2**63),
    2**64, 10**400, 1400269500000000, 0.0, -0.0, 0.1, 12.45, 12.453, 0.1 + 0.2, 1.005, 5.0, 5.5, 1e15, 1e16, 1e17,
    1e300, 5e-324, float(2**53), float(2**53 - 1), math.nan, math.inf, -math.inf, 1400269500000000.0, [1], {"a": 1}, [],
    "", " ", "cash", "card", "crad", " cash", "Cash", " 12.45 ", "\t5\n", "\u00a05", "5\u200b", " true ",
    " 2014-05-16T19:45:00Z ", "2014-05-16T 19:45:00Z", "2014-05-16 19:45:00", " 1400269500000000 ", "1 2",
    datetime(2014, 5, 16, 19, 45, tzinfo=UTC), datetime.fromisoformat("2014-05-16T19:45:00"),
]  # fmt: skip
TABLE = [*NUMBERS.split(), *TIMES.split(), *TRUTHS.split(), *OTHERS]
REFUSED = "refused"


def by_request(column: ColumnSpec, value: Any) -> Any:
    try:
        return physical(column, value)
    except InvalidError:
        return REFUSED


def by_contract(column: ColumnSpec, value: Any) -> Any:
    spec = SourceSpec(name="S", columns=(column,), event_time="at", event_time_unit="s")
    checked = check(from_dicts([{"x": value, "at": 5}], spec), spec, now=10_000_000, live=True)
    return checked.frame["x"][0] if checked.frame.height else REFUSED


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_request_takes_exactly_what_the_contract_takes(name: str) -> None:
    column = COLUMNS[name]
    for value in TABLE:
        asked, sent = by_request(column, value), by_contract(column, value)
        assert same(asked, sent), f"{value!r} as {column.type}: a request reads {asked!r}, an event {sent!r}"


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(COLUMNS)),
    st.one_of(
        st.text(alphabet="0123456789+-.eE_ TZ:ainf\u0663", max_size=26),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
        st.integers(-(10**8), 10**8).map(lambda n: n / 100),
        st.booleans(),
        st.datetimes().map(datetime.isoformat),
    ),
)
def test_whatever_comes_both_read_it_alike(name: str, value: Any) -> None:
    column = COLUMNS[name]
    asked, sent = by_request(column, value), by_contract(column, value)
    assert same(asked, sent), f"{value!r} as {column.type}: a request reads {asked!r}, an event {sent!r}"
