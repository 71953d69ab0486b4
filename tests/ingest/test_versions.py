"""A quarantined version of an event does not take the place of one that came after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball.define.spec import SourceSpec
from flyball.ingest.rejection import DELETED
from flyball.ingest.service import Ingest
from flyball.kernel.clock import ManualClock
from flyball.storage.event_log import SqliteEventLog
from tests.ingest.sources import DAY, HOUR, NOW, PAYMENTS, SECOND, make_ingest, payment

AT = NOW // SECOND
OLD = (NOW - 40 * DAY) // SECOND
ORDERS = msgspec.structs.replace(PAYMENTS, corrections=True)
GONE = {"id": "p1", "_deleted": True}
BAD = payment(1, amount=-5)


def mended(spec: SourceSpec = ORDERS, **amount: Any) -> SourceSpec:
    columns = (msgspec.structs.replace(c, **amount) if c.name == "amount" else c for c in spec.columns)
    return msgspec.structs.replace(spec, columns=tuple(columns))


def mend(ingest: Ingest, **amount: Any) -> None:
    spec = mended(**amount or {"ge": -100.0})
    ingest.load_plan({"epoch": 2, "digest": "e", "sources": [spec], "views": []})


def core(folder: Path, **more: Any) -> Ingest:
    return make_ingest(folder, sources=[ORDERS], **more)


def retried(ingest: Ingest, **asked: Any) -> tuple[int, int, int]:
    done = ingest.retry("Payments", **asked)
    assert done["retried"] == sum(done[name] for name in ("accepted", "duplicates", "superseded", "quarantined"))
    return done["accepted"], done["superseded"], done["quarantined"]


def newest(ingest: Ingest) -> dict[str, Any]:
    """The amount of the newest version of each key; None: it was deleted."""
    ingest.apply()
    events = ingest.events("Payments").sort("_known_at", "_lsn").unique("_key", keep="last", maintain_order=True)
    return {row["id"]: None if row[DELETED] else row["amount"] for row in events.iter_rows(named=True)}


@pytest.fixture(params=[False, True], ids=["in the log", "in the lake"])
def settle(request: pytest.FixtureRequest) -> Callable[[Ingest], Any]:
    return lambda ingest: ingest.flush() if request.param else ingest.apply()


@pytest.mark.parametrize(("later", "left"), [(payment(1, amount=7), 700), (GONE, None)], ids=["corrected", "deleted"])
def test_a_retried_row_does_not_bring_back_what_was_corrected_or_deleted_since(
    tmp_path: Path, settle: Callable[[Ingest], Any], later: dict[str, Any], left: int | None
) -> None:
    clock = ManualClock(NOW)
    ingest = core(tmp_path, clock=clock)
    ingest.append("Payments", [payment(1, amount=1), BAD, payment(2, amount=-6)])
    ingest.append("Payments", [later])
    settle(ingest)
    mend(ingest)
    clock.advance_to(NOW + HOUR)
    assert retried(ingest) == (1, 1, 0)
    assert newest(ingest) == {"p1": left, "p2": -600}
    states = {row["id"]: (row["state"], row["lsn"]) for row in ingest.quarantine("Payments")["rows"]}
    assert states == {"Payments:1.1": ("superseded", None), "Payments:1.2": ("retried", 3)}
    assert ingest.quarantine("Payments", state="superseded")["open"] == 0
    assert retried(ingest) == (0, 0, 0), "it is done with"


def test_a_retried_row_takes_the_place_of_what_came_before_it(tmp_path: Path, settle: Callable[[Ingest], Any]) -> None:
    ingest = core(tmp_path)
    ingest.append("Payments", [payment(1, amount=1)])
    ingest.append("Payments", [payment(2), payment(2, amount=-6), payment(3, amount=-7), BAD, payment(3)])
    settle(ingest)
    mend(ingest)
    assert retried(ingest) == (2, 1, 0), "the place within a push counts too"
    assert newest(ingest) == {"p1": -500, "p2": -600, "p3": 1245}


def test_a_quarantined_deletion_does_not_delete_what_came_after_it(
    tmp_path: Path, settle: Callable[[Ingest], Any]
) -> None:
    ingest = core(tmp_path)
    ahead = GONE | {"at": AT + 7_200}
    ingest.append("Payments", [payment(1, amount=1), ahead, ahead | {"id": "p2"}])
    ingest.append("Payments", [payment(1, amount=2)])
    settle(ingest)
    again = core(tmp_path, clock=ManualClock(NOW + 2 * HOUR))
    again.apply()
    assert retried(again) == (1, 1, 0)
    assert newest(again) == {"p1": 200, "p2": None}


def test_quarantined_versions_keep_their_order_in_whatever_order_they_are_retried(
    tmp_path: Path, settle: Callable[[Ingest], Any]
) -> None:
    clock = ManualClock(NOW)
    ingest = core(tmp_path, clock=clock)
    for number in (1, 2):
        ingest.append("Payments", [payment(number, amount=-1)])
        ingest.append("Payments", [payment(number, amount=-2)])
    mend(ingest)
    outcomes = []
    for id in ("Payments:1.1", "Payments:2.1", "Payments:4.1", "Payments:3.1"):
        clock.advance_to(clock.now() + HOUR)
        outcomes.append(retried(ingest, ids=[id]))
        settle(ingest)
    assert outcomes == [(1, 0, 0), (1, 0, 0), (1, 0, 0), (0, 1, 0)]
    assert newest(ingest) == {"p1": -200, "p2": -200}


def test_versions_of_one_retry_are_taken_in_the_order_in_which_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyball.ingest.quarantine.RETRY_ROWS", 2)
    ingest = core(tmp_path)
    for amount in range(-5, 0):
        ingest.append("Payments", [payment(1, amount=amount)])
    mend(ingest)
    assert retried(ingest) == (5, 0, 0)
    assert newest(ingest) == {"p1": -100}


def test_a_row_that_still_breaks_the_contract_stays_open(tmp_path: Path) -> None:
    ingest = core(tmp_path)
    ingest.append("Payments", [payment(1, amount=-500), BAD])
    ingest.append("Payments", [payment(1, amount=7)])
    mend(ingest)
    assert retried(ingest) == (0, 1, 1)
    mend(ingest, ge=-1_000.0)
    assert retried(ingest) == (0, 1, 0)
    assert newest(ingest) == {"p1": 700}


def test_history_goes_in_before_versions_known_later_and_not_over_one_known_with_it(
    tmp_path: Path, settle: Callable[[Ingest], Any]
) -> None:
    ingest = core(tmp_path)
    later = [payment(1, amount=-1, at=OLD), payment(2, amount=-2, at=OLD), payment(3, amount=3, at=OLD)]
    later.append(payment(3, amount=-3, at=OLD))
    ingest.append("Payments", later, live=False)
    ingest.append("Payments", [payment(1, amount=10, at=OLD + 60), payment(2, amount=20, at=OLD)], live=False)
    settle(ingest)
    mend(ingest)
    assert retried(ingest) == (2, 1, 0)
    assert newest(ingest) == {"p1": 1_000, "p2": 2_000, "p3": -300}
    known = ingest.events("Payments").sort("_known_at", "_lsn").select("amount", "_known_at").rows()
    assert [amount for amount, at in known if at == OLD * SECOND + HOUR] == [300, 2_000, -100, -300]


def test_many_events_are_looked_through_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.ingest.versions.STEP", 3)
    ingest = core(tmp_path)
    ingest.append("Payments", [BAD, *(payment(n) for n in range(2, 6))])
    ingest.append("Payments", [payment(9, amount=-9), *(payment(n) for n in range(6, 9)), payment(1, amount=7)])
    ingest.flush()
    for n in range(10, 14):
        ingest.append("Payments", [payment(n), payment(20 + n)])
    ingest.append("Payments", [payment(9, amount=9)])
    mend(ingest)
    assert retried(ingest) == (0, 2, 0)
    assert newest(ingest)["p1"] == 700
    assert newest(ingest)["p9"] == 900


def test_a_version_that_comes_while_the_lake_is_read_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest = core(tmp_path)
    ingest.append("Payments", [BAD])
    mend(ingest)
    real, pushed = SqliteEventLog.arrivals, []

    def arrivals(self: SqliteEventLog, source: str, batches: Any) -> Any:
        pushed.append(ingest.append("Payments", [payment(1, amount=7)]))
        return real(self, source, batches)

    monkeypatch.setattr(SqliteEventLog, "arrivals", arrivals)
    assert retried(ingest) == (0, 1, 0)
    assert newest(ingest) == {"p1": 700}


def test_a_row_of_which_nobody_noted_when_it_came_takes_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a log that an earlier version of Flyball wrote."""
    monkeypatch.setattr("flyball.ingest.intake._good_before", lambda checked: ())
    ingest = core(tmp_path)
    ingest.append("Payments", [payment(1, amount=1), BAD, payment(2, amount=-6)])
    mend(ingest)
    assert retried(ingest) == (1, 1, 0)
    assert newest(ingest) == {"p1": 100, "p2": -600}
