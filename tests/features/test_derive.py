"""Derived sources against brute force: the newest event that happened before and was known, over random streams."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import ColumnSpec, DerivedColumnSpec, DeriveSpec, LatestSpec, SourceSpec, ViewSpec
from flyball.features.derive import SourceDerivation
from flyball.features.join import LatestJoin
from flyball.kernel.errors import InvalidError

INFO = SourceSpec(
    name="Info",
    columns=(
        ColumnSpec(name="company", type="string", nullable=True),
        ColumnSpec(name="area", type="category", categories=("n", "s"), nullable=True),
        ColumnSpec(name="rate", type="decimal", scale=2, nullable=True),
        ColumnSpec(name="open", type="boolean", nullable=True),
    ),
    event_time="at",
)
TRIPS = SourceSpec(
    name="Trips",
    columns=(
        ColumnSpec(name="company", type="string", nullable=True),
        ColumnSpec(name="fare", type="decimal", scale=2),
        ColumnSpec(name="tips", type="decimal", scale=2, nullable=True),
    ),
    event_time="at",
)
VIEW = ViewSpec(
    name="Company",
    kind="latest",
    source="Info",
    entity=("company",),
    latest=(
        LatestSpec(name="area", column="area", type="category", categories=("n", "s")),
        LatestSpec(name="rate", column="rate", type="decimal", scale=2, default=0.5),
        LatestSpec(name="open", column="open", type="boolean"),
    ),
    where=["not", ["is_null", ["col", "Info", "rate"]]],
    ttl=12,
)
FARE, TIPS = ["col", "Trips", "fare"], ["col", "Trips", "tips"]
RATE = ["view", "Company", "rate", ["company"]]
DERIVED = msgspec.structs.replace(
    TRIPS,
    name="Big@00000000",
    columns=(
        *TRIPS.columns,
        ColumnSpec(name="share", type="float", nullable=True),
        ColumnSpec(name="area", type="category", categories=("n", "s"), nullable=True),
        ColumnSpec(name="rate", type="decimal", scale=2, nullable=True),
        ColumnSpec(name="due", type="float", nullable=True),
        ColumnSpec(name="fine", type="boolean", nullable=True),
        ColumnSpec(name="name", type="string", nullable=True),
    ),
    derive=DeriveSpec(
        source="Trips",
        where=["gt", FARE, ["lit", 2]],
        columns=(
            DerivedColumnSpec(name="share", expr=["div", TIPS, FARE]),
            DerivedColumnSpec(name="area", expr=["view", "Company", "area", ["company"]]),
            DerivedColumnSpec(name="rate", expr=RATE),
            DerivedColumnSpec(name="due", expr=["mul", FARE, RATE]),
            DerivedColumnSpec(name="fine", expr=["view", "Company", "open", ["company"]]),
            DerivedColumnSpec(
                name="name", expr=["coalesce", ["view", "Company", "area", ["company"]], ["col", "Trips", "company"]]
            ),
        ),
        views=(VIEW,),
    ),
)
SYSTEM = {"_event_time": pl.Int64(), "_known_at": pl.Int64(), "_lsn": pl.Int64(), "_key": pl.Binary()}
INFO_SCHEMA = {"company": pl.String(), "area": pl.String(), "rate": pl.Int64(), "open": pl.Boolean()} | SYSTEM
TRIP_SCHEMA = {"company": pl.String(), "fare": pl.Int64(), "tips": pl.Int64()} | SYSTEM
SOURCES = {"Info": INFO, "Trips": TRIPS}
Row = dict[str, Any]


def stream(chance: random.Random, n: int, make: Any) -> list[Row]:
    """Events known one after another, each somewhat after it happened or, at times, long after."""
    rows, known = [], 0
    for lsn in range(1, n + 1):
        known += chance.choice([0, 1, 3])
        late = chance.choice([0, 0, 1, 2, 30])
        system = {"_event_time": known - late, "_known_at": known, "_lsn": lsn, "_key": b"%016d" % lsn}
        rows.append(make(chance) | system)
    return rows


def info(chance: random.Random) -> Row:
    return {
        "company": chance.choice(["a", "b", "c", None]),
        "area": chance.choice(["n", "s", None]),
        "rate": chance.choice([None, 5, 125, 250]),
        "open": chance.choice([True, False, None]),
    }


def trip(chance: random.Random) -> Row:
    return {
        "company": chance.choice(["a", "b", "x", None]),
        "fare": chance.choice([100, 200, 201, 1999]),
        "tips": chance.choice([None, 0, 33]),
    }


def newest(events: list[Row], row: Row, *, current: Any = lambda event, known: True) -> Row | None:
    """What the view says, event by event."""
    seen = [
        e
        for e in events
        if e["company"] == row["company"] is not None
        and e["rate"] is not None
        and e["_event_time"] < row["_event_time"]
        and e["_known_at"] <= row["_known_at"]
        and current(e, row["_known_at"])
    ]
    best = max(seen, key=lambda e: (e["_event_time"], e["_lsn"]), default=None)
    return best if best is not None and best["_event_time"] >= row["_event_time"] - 12 else None


def expected(infos: list[Row], trips: list[Row], **options: Any) -> list[Row]:
    rows = []
    for row in trips:
        if row["fare"] <= 200:
            continue
        found = newest(infos, row, **options)
        rate = found["rate"] if found is not None else 50
        area = found["area"] if found is not None else None
        added = {
            "share": None if row["tips"] is None else (row["tips"] / 100) / (row["fare"] / 100),
            "area": area,
            "rate": rate,
            "due": row["fare"] / 100 * (rate / 100),
            "fine": found["open"] if found is not None else None,
            "name": area if area is not None else row["company"],
        }
        rows.append(row | added)
    return rows


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), infos=st.integers(0, 40), trips=st.integers(0, 40))
def test_derived_events_are_those_of_brute_force_in_any_cut(seed: int, infos: int, trips: int) -> None:
    chance = random.Random(seed)
    events, parents = stream(chance, infos, info), stream(chance, trips, trip)
    derivation, found, fed = SourceDerivation(DERIVED, SOURCES), [], 0
    at = 0
    while at < len(parents):
        part = parents[at : at + chance.randint(1, 9)]
        at += len(part)
        known = max(row["_known_at"] for row in part)
        there = max([i + 1 for i, e in enumerate(events) if e["_known_at"] <= known], default=0)
        while fed < there or (fed < len(events) and chance.random() < 0.3):  # what is known later may be there already
            more = events[fed : fed + chance.randint(1, 5)]
            derivation.feed("Info", pl.DataFrame(more, schema=INFO_SCHEMA))
            fed += len(more)
        found += derivation.derive(pl.DataFrame(part, schema=TRIP_SCHEMA)).to_dicts()
    want = expected(events, parents)
    for row in want:
        del row["_lsn"]
    close = pytest.approx([row.pop("due") for row in want], rel=1e-15)
    assert [row.pop("due") for row in found] == close
    assert found == want


def test_a_view_whose_source_takes_corrections_is_read_in_the_version_that_was_known() -> None:
    source = msgspec.structs.replace(INFO, corrections=True)
    join = LatestJoin(VIEW, source)
    base = {"company": "a", "area": "n", "open": True, "_event_time": 10}
    versions = [
        base | {"rate": 1, "_known_at": 10, "_lsn": 1, "_key": b"k", "_deleted": False},
        base | {"rate": 2, "_known_at": 12, "_lsn": 2, "_key": b"k", "_deleted": False},
        base | {"rate": 3, "_known_at": 14, "_lsn": 3, "_key": b"k", "_deleted": True},
    ]
    schema = INFO_SCHEMA | {"_deleted": pl.Boolean()}
    for version in versions:
        join.add(pl.DataFrame([version], schema=schema))
    from flyball.features.frames import vectors, words
    from flyball.features.keys import encode_keys

    rows = pl.DataFrame({"company": ["a"] * 4, "t": [20] * 4, "known": [11, 12, 13, 14]})
    keys = encode_keys([vectors(rows, ["company"])["company"]], [INFO.column("company")], 4)
    read = join.read(keys, words(rows, "t"), words(rows, "known"))
    assert read["rate"].to_list() == [1, 2, 2, None]


def test_a_correction_that_fails_the_condition_takes_the_derived_event_away() -> None:
    spec = msgspec.structs.replace(DERIVED, corrections=True)
    parent = msgspec.structs.replace(TRIPS, corrections=True)
    derivation = SourceDerivation(spec, {"Info": INFO, "Trips": parent})
    row = {"company": "a", "tips": 1, "_event_time": 5, "_known_at": 6, "_key": b"k"}
    rows = [row | {"fare": 500, "_lsn": 1, "_deleted": False}, row | {"fare": 100, "_lsn": 2, "_deleted": False}]
    rows += [row | {"fare": 900, "_lsn": 3, "_deleted": False}, row | {"fare": 900, "_lsn": 4, "_deleted": True}]
    derived = derivation.derive(pl.DataFrame(rows, schema=TRIP_SCHEMA | {"_deleted": pl.Boolean()}))
    assert derived["_deleted"].to_list() == [False, True, False, True]
    assert derived["_key"].to_list() == [b"k"] * 4


def test_a_derivation_from_what_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidError, match="is derived from Info, which is not there") as caught:
        SourceDerivation(DERIVED, {"Trips": TRIPS})
    assert caught.value.code == "bad_derivation"


def test_the_events_that_a_join_keeps_are_in_few_sorted_runs() -> None:
    join = LatestJoin(VIEW, INFO)
    chance = random.Random(3)
    for row in stream(chance, 300, info):
        join.add(pl.DataFrame([row], schema=INFO_SCHEMA))
    assert len(join._runs) <= 9
