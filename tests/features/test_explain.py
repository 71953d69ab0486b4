from __future__ import annotations

from typing import Any

import msgspec
import polars as pl
import pytest

from flyball.define.spec import LatestSpec, SourceSpec, ViewSpec
from flyball.features.explain import HIDDEN, Moment, explain, partial, walk
from flyball.kernel.errors import NotFoundError
from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND
from tests.features.brute import Event
from tests.features.cases import SOURCE, aggregate, col, frame_of
from tests.features.slices import FrameSlices

NOON = 20_000 * DAY + 12 * HOUR
VIEW = ViewSpec(
    name="Card",
    kind="window",
    source="Payments",
    entity=("card",),
    aggregates=(
        aggregate("n_2d", "count", "2d"),
        aggregate("sum_2d", "sum", "2d", col("count")),
        aggregate("kind_2d", "last", "2d", col("kind")),
    ),
)
NEWEST = ViewSpec(
    name="Newest",
    kind="latest",
    source="Payments",
    entity=("card",),
    latest=(LatestSpec(name="count", column="count", type="integer"),),
    ttl=DAY,
)


def event(lsn: int, ago: int, *, late: int = 0, count: int | None = 1, card: str = "x") -> Event:
    values = dict.fromkeys((c.name for c in SOURCE.columns), None) | {"card": card, "count": count, "kind": "b"}
    return Event(lsn=lsn, t=NOON - ago, known=NOON - ago + late, values=values)


HISTORY = [
    event(0, 3 * DAY),
    event(1, 47 * HOUR, count=10),
    event(2, 26 * HOUR, count=20),
    event(3, 26 * HOUR - SECOND, count=30),
    event(4, 2 * MINUTE, count=40),
    event(5, 3 * MINUTE, late=10 * MINUTE, count=50),
    event(6, MINUTE, card="y"),
    event(7, 2 * MINUTE, count=60),  # a duplicate of LSN 4
    event(8, 0, count=70),
]
KEYS = [0, 1, 2, 3, 4, 5, 6, 4, 8]


def frame(deleted: tuple[int, ...] = ()) -> pl.DataFrame:
    return frame_of(HISTORY).with_columns(
        pl.Series("_key", [bytes([key]) for key in KEYS], dtype=pl.Binary),
        pl.Series("_deleted", [event.lsn in deleted for event in HISTORY], dtype=pl.Boolean),
    )


def explained(view: ViewSpec, feature: str, source: SourceSpec = SOURCE, **moment: Any) -> dict[str, Any]:
    history = FrameSlices({"Payments": frame()})
    return explain(view, source, feature, {"card": "x"}, Moment(**({"at": NOON} | moment)), history)


def test_a_window_is_its_interval_its_tiles_its_head_and_its_late_rows() -> None:
    found = explained(VIEW, "sum_2d")
    assert found["interval"] == {"start": NOON - 2 * DAY, "end": NOON, "window": "2d", "hop": "1h"}
    assert [(tile["hop"], tile["rows"], tile["value"]) for tile in found["tiles"]] == [
        ("1h", 1, 10.0),
        ("1h", 2, 50.0),
        ("1h", 1, 40.0),
    ]
    assert found["tiles"][0]["start"] == NOON - 47 * HOUR
    assert found["head"] == {"start": NOON, "end": NOON, "rows": []}
    whys = {row["lsn"]: row["why"] for row in found["late"]}
    assert whys == {5: "it was known 7m too late", 7: "a duplicate of LSN 4"}
    assert found["value"] == {"known": 100.0, "event": 150.0}


def test_rows_since_the_last_boundary_are_shown_one_by_one() -> None:
    found = explained(VIEW, "n_2d", at=NOON + SECOND)
    assert [row["lsn"] for row in found["head"]["rows"]] == [8]
    assert sum(tile["rows"] for tile in found["tiles"]) + 1 == found["value"]["known"] == 5.0


def test_as_a_prediction_saw_it() -> None:
    found = explained(VIEW, "sum_2d", lsn=3, known_through=NOON)
    assert found["value"] == {"served": 60.0, "event": 150.0}
    assert {row["lsn"]: row["why"] for row in found["late"]}[4] == "it came as LSN 4; the reply saw up to 3"


def test_a_latest_value_is_its_rows() -> None:
    found = explained(NEWEST, "count")
    assert found["operator"] == "latest"
    assert found["interval"]["start"] == NOON - DAY
    assert found["value"]["known"] == 40.0
    assert found["head"]["rows"][-1]["lsn"] == 4


def test_categories_are_text() -> None:
    assert explained(VIEW, "kind_2d")["value"] == {"known": "b", "event": "b"}


def test_corrections_and_deletions_say_what_took_their_place() -> None:
    source = msgspec.structs.replace(SOURCE, corrections=True, key=("id",))
    history = FrameSlices({"Payments": frame(deleted=(7,))})
    found = explain(VIEW, source, "sum_2d", {"card": "x"}, Moment(at=NOON), history)
    assert found["value"]["known"] == 60.0
    whys = {row["lsn"]: row["why"] for row in found["late"]}
    assert whys[4] == "deleted by LSN 7"
    assert whys[7] == "a deletion"


def test_values_of_pii_are_not_shown() -> None:
    columns = tuple(msgspec.structs.replace(c, pii=c.name in ("card", "count")) for c in SOURCE.columns)
    source = msgspec.structs.replace(SOURCE, columns=columns)
    found = explained(VIEW, "sum_2d", source)
    assert found["entity"] == {"card": HIDDEN}
    assert found["value"] == {"known": HIDDEN, "event": HIDDEN}
    assert {tile["value"] for tile in found["tiles"]} == {HIDDEN}
    assert explained(VIEW, "n_2d", source)["value"]["known"] == 4.0, "a count shows nobody's value"


def test_an_entity_without_events_has_the_default() -> None:
    found = explain(VIEW, SOURCE, "n_2d", {"card": "none"}, Moment(at=NOON), FrameSlices({"Payments": frame()}))
    assert (found["value"]["known"], found["tiles"], found["late"]) == (0.0, [], [])


def test_an_unknown_feature_is_named() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'sum_2d'") as caught:
        explained(VIEW, "sum2d")
    assert caught.value.code == "feature_not_found"


def test_an_interval_is_walked_up_and_down() -> None:
    assert walk(30, 130, [100, 10], 1) == [(30, 130, 10)], "no whole coarser tile lies inside"
    assert walk(30, 230, [100, 10], 1) == [(30, 100, 10), (100, 200, 100), (200, 230, 10)]
    assert walk(5, 5, [10], 0) == []


def test_partial_values_are_those_of_the_operator() -> None:
    rows = [{"_value": value} for value in (3.0, 1.0, 3.0)]
    ops = ["count", "sum", "mean", "min", "max", "first", "last", "distinct"]
    found = {op: partial(aggregate("f", op, "1h", col("score")), rows) for op in ops}
    assert found == {
        "count": 3,
        "sum": 7.0,
        "mean": pytest.approx(7 / 3),
        "min": 1.0,
        "max": 3.0,
        "first": 3.0,
        "last": 3.0,
        "distinct": 2,
    }
    second = msgspec.structs.replace(aggregate("f", "nth_last", "1h", col("score")), nth=2)
    assert partial(second, rows) == 1.0
    assert partial(aggregate("f", "std", "1h", col("score")), rows) == pytest.approx(1.1547005)
