"""Each rule of the contract, and that nothing vanishes."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import ColumnSpec, KnownSpec, SourceSpec
from flyball.ingest.contract import Checked, check
from flyball.ingest.frames import numbered, physical_schema
from flyball.ingest.keys import event_keys
from flyball.ingest.rows import from_dicts, from_frame
from flyball.kernel.errors import InvalidError
from tests.ingest.sources import DAY, HOUR, LIVE_ONLY, NOW, PAYMENTS, SECOND, payment

AT = NOW // SECOND


def judged(*rows: Any, spec: SourceSpec = PAYMENTS, live: bool = True) -> Checked:
    return check(from_dicts(rows, spec), spec, now=NOW, live=live)


@pytest.mark.parametrize(
    ("changes", "rule", "column", "value", "message"),
    [
        ({"amout": 5}, "unknown_column", "amout", "[pii]", "has no column 'amout'; did you mean 'amount'?"),
        ({"amount": ...}, "missing_column", "amount", None, "amount is absent and source Payments needs it"),
        ({"amount": None}, "null", "amount", None, "amount is null and source Payments needs it"),
        ({"amount": "a lot"}, "wrong_type", "amount", "a lot", "amount is 'a lot'; send a number such as 12.45"),
        ({"amount": [1]}, "wrong_type", "amount", "[1]", "send a number"),
        ({"amount": True}, "wrong_type", "amount", "True", "send a number"),
        ({"amount": 12.4500000001}, "too_many_digits", "amount", "12.4500000001", "2 digits after the point"),
        ({"amount": "1e30"}, "out_of_range", "amount", "1e30", "between ±9999999999999999.99"),
        ({"amount": -0.01}, "ge", "amount", "-0.01", "must be at least 0.0"),
        ({"amount": "1000.01"}, "le", "amount", "1000.01", "must be at most 1000.0"),
        ({"score": -1}, "gt", "score", "-1", "must be more than -1.0"),
        ({"score": 1.0}, "lt", "score", "1.0", "must be less than 1.0"),
        ({"items": 5.5}, "wrong_type", "items", "5.5", "send a whole number"),
        ({"items": 10**400}, "out_of_range", "items", None, "between -2^63 and 2^63 - 1"),
        ({"gift": "maybe"}, "wrong_type", "gift", "maybe", "send true or false"),
        ({"due": "tomorrow"}, "wrong_type", "due", "tomorrow", "send an ISO 8601 time"),
        ({"kind": "Chip"}, "unknown_category", "kind", "Chip", "not one of 'chip', 'online'; did you mean 'chip'?"),
        ({"kind": 7}, "wrong_type", "kind", "7", "send text"),
        ({"id": "p" * 13}, "max_length", "id", "p" * 13, "may have 12 characters"),
        ({"id": 7}, "wrong_type", "id", "7", "send text, in quotes"),
        ({"card": "12345"}, "pattern", "card", "[pii]", "card is [pii]; the whole text must match"),
        ({"at": ...}, "bad_event_time", "at", None, "at is the event time and is null; send seconds since"),
        ({"at": "noon"}, "bad_event_time", "at", "noon", "send seconds since 1970-01-01 UTC"),
        ({"at": AT + 6}, "ahead_of_clock", "at", str(AT + 6), "ahead of the clock at 2023-11-14T22:13:20Z"),
        ({"at": AT - 8 * 86_400 - 1}, "too_late", "at", str(AT - 8 * 86_400 - 1), "load it as history"),
    ],
)
def test_a_row_is_quarantined_with_the_reason(
    changes: dict[str, Any], rule: str, column: str, value: str | None, message: str
) -> None:
    row = payment(1, **changes)
    checked = judged(payment(0), row, payment(2))
    assert checked.frame["id"].to_list() == ["p0", "p2"]
    (rejected,) = checked.rejected
    assert (rejected.rule, rejected.column, rejected.position) == (rule, column, 2)
    assert value is None or rejected.value == value
    assert message in rejected.message
    assert rejected.row == row


def test_events_within_the_skew_and_the_horizon_are_taken() -> None:
    checked = judged(payment(1, at=AT + 5), payment(2, at=AT - 8 * 86_400))
    assert checked.frame.height == 2
    assert judged(payment(1, at=AT - 9_000 * 86_400), live=False).frame.height == 1, "history may be old"
    assert judged(payment(1, at=AT + 6), live=False).rejected[0].rule == "ahead_of_clock"


def test_what_is_no_object_is_quarantined_too() -> None:
    checked = judged(5, payment(1), "text", None)
    assert [r.rule for r in checked.rejected] == ["not_an_object"] * 3
    assert checked.rejected[0].row == {"": 5}
    assert "not int" in checked.rejected[0].message


def test_a_pii_value_is_in_no_message() -> None:
    marker = "4111-secret-marker"
    rows = [payment(1, card=marker), payment(2, crad=marker), payment(3, card=[marker]), marker]
    for rejected in judged(*rows).rejected:
        assert marker not in rejected.message
        assert marker not in str(rejected.value)


def test_an_unknown_column_is_shown_where_nothing_is_pii() -> None:
    (rejected,) = judged({"page": "a", "pgae": "b", "at": AT}, spec=LIVE_ONLY).rejected
    assert rejected.column == "pgae"
    assert "did you mean 'page'?" in rejected.message


def test_a_good_row_becomes_physical() -> None:
    row = payment(1, kind="chip", score=0.5, items=3, gift=True, due="2023-11-15T00:00:00Z")
    frame = numbered(judged(row).frame, 7, known_at=NOW)
    assert dict(frame.schema) == physical_schema(PAYMENTS)
    values = frame.drop("_key").row(0, named=True)
    assert values == {
        "id": "p1",
        "card": "1234",
        "amount": 1245,
        "kind": "chip",
        "score": 0.5,
        "items": 3,
        "gift": True,
        "due": 1_700_006_400_000_000,
        "_event_time": NOW - 60 * SECOND,
        "_known_at": NOW,
        "_lsn": 7,
    }


def test_an_empty_frame_has_the_same_types() -> None:
    frame = numbered(judged(5).frame, 1, known_at=NOW)
    assert dict(frame.schema) == physical_schema(PAYMENTS)


def test_history_is_known_by_the_sources_declaration() -> None:
    delayed = judged(payment(1), live=False).frame
    assert (delayed["_known_at"] - delayed["_event_time"]).to_list() == [HOUR]
    spec = SourceSpec(
        name="S",
        columns=(ColumnSpec(name="a", type="integer"),),
        event_time="at",
        event_time_unit="s",
        known=KnownSpec(kind="column", column="loaded", unit="iso"),
    )
    rows = [{"a": 1, "at": AT, "loaded": "2023-11-14T22:13:20Z"}, {"a": 2, "at": AT, "loaded": None}]
    checked = judged(*rows, spec=spec, live=False)
    assert checked.frame["_known_at"].to_list() == [NOW]
    assert checked.rejected[0].rule == "bad_known_at"
    assert "send an ISO 8601 time" in checked.rejected[0].message


def test_a_declared_event_time_is_read_as_text_and_as_microseconds() -> None:
    spec = SourceSpec(
        name="S",
        columns=(ColumnSpec(name="a", type="integer"), ColumnSpec(name="at", type="timestamp")),
        event_time="at",
        event_time_unit="iso",
    )
    for at in (NOW, "2023-11-14T22:13:20Z"):
        frame = judged({"a": 1, "at": at}, spec=spec).frame
        assert frame["_event_time"].to_list() == [NOW]
        assert frame["at"].to_list() == [NOW]


def test_of_two_rows_with_one_key_the_first_is_kept() -> None:
    checked = judged(payment(1, amount="bad"), payment(1, amount=1), payment(2), payment(1, amount=2))
    assert checked.frame["amount"].to_list() == [100, 1245]
    assert checked.duplicate_places == (3,)
    assert len(checked.rejected) == 1


def test_a_row_is_its_own_key_where_the_source_has_none() -> None:
    spec = SourceSpec(
        name="S",
        columns=(ColumnSpec(name="b", type="string", nullable=True), ColumnSpec(name="a", type="float", nullable=True)),
        event_time="at",
        event_time_unit="s",
    )
    rows = [{"a": 0.0, "b": "x", "at": AT}, {"a": -0.0, "b": "x", "at": AT}, {"a": 0.0, "b": "x", "at": AT - 1}]
    rows += [{"a": None, "b": "x", "at": AT}, {"a": 0.0, "b": None, "at": AT}]
    checked = judged(*rows, spec=spec)
    assert checked.duplicate_places == (1,)
    wider = SourceSpec(
        name="S",
        columns=(spec.column("a"), ColumnSpec(name="new", type="integer", nullable=True), spec.column("b")),
        event_time="at",
        event_time_unit="s",
    )
    again = judged(*rows, spec=wider)
    assert again.frame["_key"][0] == checked.frame["_key"][0], "neither order nor a new nullable column changes a key"


def test_keys_do_not_run_into_each_other() -> None:
    spec = SourceSpec(
        name="S",
        columns=tuple(ColumnSpec(name=n, type="string", nullable=True) for n in "ab"),
        event_time="at",
        key=("a", "b"),
    )
    pairs = [("x", "y"), ("xy", ""), ("", "xy"), (None, "~"), ("~", None), ("1:x", ""), (None, None), ("s0:;", "s0:;")]
    frame = pl.DataFrame(pairs, schema=["a", "b"], orient="row").with_columns(_event_time=pl.lit(1))
    assert event_keys(frame, spec).n_unique() == len(pairs)


def test_a_table_without_a_declared_column_is_refused_whole() -> None:
    frame = pl.DataFrame({"id": ["a"], "card": ["1234"], "amout": [1.0], "at": [AT]})
    with pytest.raises(
        InvalidError, match=r"column 'amount' .* \(and 5 more: kind, .*; did you mean 'amout'"
    ) as caught:
        from_frame(frame, PAYMENTS)
    assert caught.value.code == "missing_column"
    assert caught.value.details["columns"] == ["id", "card", "amout", "at"]


def test_bounds_of_a_decimal_are_exact() -> None:
    spec = SourceSpec(
        name="S", columns=(ColumnSpec(name="a", type="decimal", scale=1, gt=0.15, lt=0.35),), event_time="at"
    )
    rows = [{"a": f"0.{i}", "at": NOW} for i in range(6)]
    assert judged(*rows, spec=spec).frame["a"].to_list() == [2, 3]


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2000),
    st.floats(-2, 2000),
    st.sampled_from(["chip", "1234", "12.45", ""]),
    st.just([1]),
    st.integers(AT - 20 * 86_400, AT + 60),
)
_ROWS = st.one_of(
    st.builds(payment, st.integers(0, 9)),
    st.builds(
        lambda number, changes: payment(number, **changes),
        st.integers(0, 9),
        st.dictionaries(st.sampled_from([c.name for c in PAYMENTS.columns] + ["at", "odd"]), _VALUES, max_size=3),
    ),
    st.integers(),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(_ROWS, max_size=12), st.booleans())
def test_every_row_is_accepted_or_quarantined_or_a_duplicate_and_order_is_kept(rows: list[Any], live: bool) -> None:
    checked = judged(*rows, live=live)
    places = [*checked.places.tolist(), *checked.rejected_places, *checked.duplicate_places]
    assert sorted(places) == list(range(len(rows)))
    assert checked.places.tolist() == sorted(checked.places.tolist())
    assert checked.frame["id"].to_list() == [rows[place]["id"] for place in checked.places]
    assert [r.row for r in checked.rejected] == [
        rows[p] if isinstance(rows[p], dict) else {"": rows[p]} for p in checked.rejected_places
    ]
    for row in rows:  # and each is judged alone as it is judged among others, but for duplicates
        alone = judged(row, live=live)
        assert alone.frame.height + len(alone.rejected) == 1
    assert sum(len(judged(row, live=live).rejected) for row in rows) == len(checked.rejected)


def test_lateness_is_the_sources_own() -> None:
    spec = SourceSpec(name="S", columns=(), event_time="at", lateness=30 * DAY)
    assert judged({"at": NOW - 37 * DAY}, {"at": NOW - 37 * DAY - 1}, spec=spec).places.tolist() == [0]
