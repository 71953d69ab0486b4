"""A contract as a project lives with it: rules, a quarantine that is retried after a fix, a source with corrections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import flyball as fb
from flyball.kernel.errors import ConflictError, InvalidError
from flyball.kernel.times import SECOND, parse_time
from flyball.testing import TestPlatform, platform

NOW = parse_time("2026-02-01T00:00:00Z")
CATEGORIES = ("cash", "card")


def declared(*, kinds: tuple[str, ...] = CATEGORIES, **body: Any) -> Any:
    """The source as one writes it, with a body that the test chooses."""
    fare, tips = fb.Decimal(2, ge=0), fb.Decimal(2, ge=0, nullable=True)
    columns = {
        "id": fb.String(), "fare": fare, "tips": tips, "paid": fb.Category(*kinds),
        "tips_at_most_fare": fb.check(tips <= fare), "busy": fb.volume(max=3, action="reject_batch"), **body,
    }  # fmt: skip
    make: Any = type(fb.Source)
    return make("Rides", (fb.Source,), columns, event_time=fb.epoch("at"), key="id", corrections=True)


def project(source: Any) -> fb.Project:
    return fb.Project("rides", sources=[source])


def ride(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "fare": 10, "tips": 1, "paid": "cash", "at": NOW // SECOND, **fields}


@pytest.fixture
def running() -> Iterator[TestPlatform]:
    with platform(project(declared()), at=NOW) as opened:
        yield opened


def source(running: TestPlatform) -> Any:
    return next(s for s in running.status()["sources"] if s["name"] == "Rides")


def test_rows_that_a_mended_contract_accepts_are_taken_once(running: TestPlatform) -> None:
    receipt = running.push("Rides", [ride(1), ride(2, tips=11), ride(3, paid="barter")])
    assert (receipt["accepted"], receipt["reasons"]) == (1, {"tips_at_most_fare": 1, "unknown_category": 1})
    running.apply(project(declared(kinds=(*CATEGORIES, "barter"))))
    assert running.retry("Rides")["accepted"] == 1
    assert running.retry("Rides")["accepted"] == 0
    assert {row["id"]: row["state"] for row in running.quarantine("Rides")} == {
        "Rides:1.1": "open",
        "Rides:1.2": "retried",
    }
    assert source(running)["quarantine_open"] == 1


def test_a_batch_beyond_its_volume_is_refused_and_shown(running: TestPlatform) -> None:
    with pytest.raises(InvalidError, match="4 came"):
        running.push("Rides", [ride(n) for n in range(4)])
    assert source(running)["refused"] == {"busy": 1}
    assert source(running)["rows"] == 0


def test_corrections_and_deletions_come_through_the_real_log_and_online_state(running: TestPlatform) -> None:
    running.push("Rides", [ride(1), ride(1, fare=20), {"id": "r1", "_deleted": True}])
    running.push("Rides", [ride(1, fare=30)])
    running._ingest.flush()
    events = running._ingest.events("Rides")
    assert events["fare"].to_list() == [1000, 2000, None, 3000]
    assert events["_deleted"].to_list() == [False, False, True, False]


def test_a_change_that_events_do_not_allow_is_refused_by_the_plan(running: TestPlatform) -> None:
    running.push("Rides", [ride(1)])
    finer, sure = fb.Decimal(3), fb.Decimal(2, ge=0)
    for body, says in (
        ({"fare": finer, "tips_at_most_fare": fb.check(finer >= 0)}, "fare was a decimal(2) and is a decimal(3)"),
        ({"town": fb.String()}, "add it with nullable=True"),
        ({"tips": sure, "tips_at_most_fare": fb.check(sure >= 0)}, "keep nullable=True"),
    ):
        with pytest.raises(ConflictError) as caught:
            running.apply(project(declared(**body)))
        assert caught.value.code == "change_refused"
        assert says in caught.value.message
    running.apply(project(declared(town=fb.String(nullable=True))))
    running.push("Rides", [ride(2, town="Ulm")])
    assert running._ingest.events("Rides")["town"].to_list() == [None, "Ulm"]
