"""Bodies of pushes: the short way to columns judges as the long way does."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import ColumnSpec, SourceSpec
from flyball.ingest.body import ArrowBody, JsonBody, RowReader, json_rows
from flyball.ingest.contract import Checked, check
from flyball.ingest.receipts import fingerprint
from flyball.ingest.rows import from_dicts
from flyball.kernel.errors import InvalidError
from tests.ingest.sources import NOW, PAYMENTS, SECOND, TRIPS, payment

TIMED = SourceSpec(
    name="Timed",
    columns=(
        ColumnSpec(name="at", type="timestamp"),
        ColumnSpec(name="n", type="integer", gt=-5.0, le=10.0, nullable=True),
        ColumnSpec(name="d", type="decimal", scale=3, nullable=True),
        ColumnSpec(name="x", type="float", nullable=True),
    ),
    event_time="at",
    event_time_unit="ms",
)
MILLISECONDS = SourceSpec(
    name="Millis", columns=(ColumnSpec(name="n", type="integer"),), event_time="ts", event_time_unit="ms"
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**66), 2**66),
    st.integers(-3, 12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-2000, 2000, places=3).map(float),
    st.sampled_from(["chip", "online", "", "12.5", "1e3", "2023-11-14T22:12:20Z", "p1", "1234", "abc", "é" * 13]),
    st.lists(st.integers(), max_size=1),
)


def rows_of(spec: SourceSpec, good: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows that are mostly good: each may lack a column, have one more, or an odd value in one."""

    @st.composite
    def row(draw: st.DrawFn) -> dict[str, Any]:
        made = {name: draw(strategy) for name, strategy in good.items()}
        change = draw(st.integers(0, 12))
        name = draw(st.sampled_from(sorted(good)))
        if change == 0:
            made[name] = draw(ODD)
        elif change == 1:
            del made[name]
        elif change == 2 and draw(st.integers(0, 5)) == 0:
            made["more"] = 1
        return made

    return st.lists(row(), min_size=1, max_size=6)


AT = NOW // SECOND
PAYMENT_ROWS = rows_of(
    PAYMENTS,
    {
        "id": st.sampled_from(["p1", "p2", "p3", "p4"]),
        "card": st.sampled_from(["1234", "0000"]),
        "amount": st.one_of(st.integers(0, 1000), st.decimals(0, 1000, places=2).map(float), st.just("12.50")),
        "kind": st.sampled_from(["chip", "online", None]),
        "score": st.one_of(st.floats(-0.99, 0.99), st.none()),
        "items": st.one_of(st.integers(-9, 9), st.none()),
        "gift": st.one_of(st.booleans(), st.none()),
        "due": st.one_of(st.none(), st.just(NOW), st.just("2024-01-01T00:00:00Z")),
        "at": st.one_of(st.integers(AT - 90, AT + 6), st.just(AT - 30 * 86_400)),
    },
)
TIMED_ROWS = rows_of(
    TIMED,
    {
        "at": st.one_of(st.integers(NOW - 90, NOW), st.just("2023-11-14T22:12:20Z")),
        "n": st.one_of(st.integers(-4, 10), st.none()),
        "d": st.one_of(st.integers(-(2**54), 2**54), st.decimals(-9, 9, places=3).map(float), st.none()),
        "x": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-3, 3), st.none()),
    },
)
MILLIS_ROWS = rows_of(MILLISECONDS, {"n": st.integers(0, 3), "ts": st.integers(AT * 1000 - 90, AT * 1000 + 4_000)})


def same(short: Checked, long: Checked) -> None:
    assert short.frame.equals(long.frame)
    assert short.frame.schema == long.frame.schema
    assert short.places.tolist() == long.places.tolist()
    assert [row.to_data() for row in short.rejected] == [row.to_data() for row in long.rejected]
    assert (short.rejected_places, short.duplicate_places) == (long.rejected_places, long.duplicate_places)


@pytest.mark.parametrize(
    ("spec", "bodies"), [(PAYMENTS, PAYMENT_ROWS), (TIMED, TIMED_ROWS), (MILLISECONDS, MILLIS_ROWS)], ids=lambda v: ""
)
def test_typed_rows_are_judged_as_plain_objects_are(
    spec: SourceSpec, bodies: st.SearchStrategy[list[dict[str, Any]]]
) -> None:
    reader = RowReader(spec)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(bodies, min_size=1, max_size=3))
    def judged(pushes: list[list[dict[str, Any]]]) -> None:
        sent = [JsonBody(msgspec.json.encode(rows)) for rows in pushes]
        typed = [reader.read(body) for body in sent]
        kept = [(body, rows) for body, rows in zip(sent, typed, strict=True) if rows is not None]
        objects = [row for body, _ in kept for row in json_rows(body.data)]
        places = [0]
        for _, rows in kept:
            places.append(places[-1] + len(rows))
        columns = reader.columns(
            [row for _, rows in kept for row in rows], list(zip(places, [b for b, _ in kept], strict=False))
        )
        same(
            check(columns, spec, now=NOW, live=True),
            check(from_dicts(objects, spec), spec, now=NOW, live=True),
        )

    judged()


def test_what_is_plainly_good_takes_the_short_way() -> None:
    rows = [payment(n, kind="chip", score=0.5, items=3, gift=True, due=NOW) for n in range(3)]
    body = JsonBody(msgspec.json.encode({"rows": rows}))
    reader = RowReader(PAYMENTS)
    typed = reader.read(body)
    assert typed is not None
    assert reader.columns(typed, [(0, body)]).plain == {*(c.name for c in PAYMENTS.columns), "at"}


@pytest.mark.parametrize(
    "body", [b'[{"id": [1]}]', b'[{"nope": 1}]', b"[5]", b'{"id": "a"}', b"[", b"", b'{"rows": 5}']
)
def test_what_has_another_shape_is_left_to_the_long_way(body: bytes) -> None:
    assert RowReader(PAYMENTS).read(JsonBody(body)) is None


def test_the_wrappers_are_the_same_both_ways() -> None:
    reader = RowReader(TRIPS)
    for body in (b'{"events": []}', b'{"rows": []}', b" \n[]"):
        assert reader.read(JsonBody(body)) == json_rows(body) == []
    for body in (b'{"rows": [], "events": []}', b"{}", b'{"rows": null}'):
        assert reader.read(JsonBody(body)) is None
        assert len(json_rows(body)) == 1


def test_a_body_that_cannot_be_read_is_refused_with_its_reason() -> None:
    for data in (b"{", b"5", b"[" * 100_000):
        with pytest.raises(InvalidError) as caught:
            json_rows(data)
        assert caught.value.code == "bad_body"
    with pytest.raises(InvalidError, match="not an Arrow IPC stream"):
        ArrowBody(b"nonsense").frame()
    assert fingerprint(JsonBody(b"[]")) != fingerprint(JsonBody(b"[ ]"))
    assert isinstance(fingerprint(pl.DataFrame({"a": [1]})), str)
