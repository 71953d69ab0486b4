"""Retention: what is too old leaves the lake, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from deltalake import DeltaTable

from flyball.define.spec import KnownSpec
from flyball.ingest.pump import Pump, PumpConfig
from flyball.ingest.retention import QUARANTINE_KEPT, Retention, expiries
from flyball.ingest.service import Ingest
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import UnavailableError
from flyball.storage.event_log import SqliteEventLog
from flyball.storage.lake import DeltaLake
from tests.ingest import test_derive as derive
from tests.ingest.sources import DAY, HOUR, NOW, PAYMENTS, SECOND, TRIPS, MemoryApplier, make_ingest, payment

KEPT = msgspec.structs.replace(PAYMENTS, retention=2 * DAY)


def opened(folder: Path, clock: ManualClock, applier: MemoryApplier | None = None) -> Ingest:
    return make_ingest(folder, clock=clock, sources=(KEPT, TRIPS), applier=applier)


def push(ingest: Ingest, clock: ManualClock, number: int) -> None:
    """One good payment and one bad one, of now."""
    at = clock.now() // SECOND
    ingest.append("Payments", [payment(number, at=at), payment(-number, at=at, amount="x")])
    ingest.flush(["Payments"])


def ids(folder: Path) -> list[str]:
    return list(DeltaLake(folder / "lake").read("Payments")["id"])


def test_rows_leave_by_event_time_in_steps_and_their_quarantine_by_when_they_were_refused(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = opened(tmp_path, clock)
    for number in range(1, 7):
        push(ingest, clock, number)
        clock.advance_to(clock.now() + 12 * HOUR)
    assert ingest.retain() == 4, "events and refusals of 72 and 60 hours ago; those of exactly 48 hours ago stay"
    assert ids(tmp_path) == ["p3", "p4", "p5", "p6"]
    assert DeltaLake(tmp_path / "lake").count("Payments__quarantine") == 4
    assert ingest.retain() == 0
    clock.advance_to(clock.now() + HOUR)
    assert ingest.retain() == 0, "less than a twentieth of the retention: the table is not written anew for that"
    clock.advance_to(clock.now() + 2 * HOUR)
    assert ingest.retain() == 2
    assert ids(tmp_path) == ["p4", "p5", "p6"]


def test_a_version_that_was_pinned_is_read_until_it_is_vacuumed(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = opened(tmp_path, clock)
    push(ingest, clock, 1)
    pinned = ingest.flush(["Payments"])["Payments"].version
    clock.advance_to(NOW + 5 * DAY)
    push(ingest, clock, 2)
    assert ingest.retain() == 2
    assert DeltaLake(tmp_path / "lake").vacuum("Payments") == 0, "younger than the hours that files are kept"
    path = str(tmp_path / "lake" / "Payments")
    assert pl.scan_delta(DeltaTable(path, version=pinned)).select("id").collect()["id"].to_list() == ["p1"]
    assert DeltaLake(tmp_path / "lake", keep_hours=0).vacuum("Payments") == 1
    assert ids(tmp_path) == ["p2"]


def test_what_was_deleted_does_not_come_back_and_lsns_go_on(tmp_path: Path) -> None:
    clock, applier = ManualClock(NOW), MemoryApplier()
    ingest = opened(tmp_path, clock, applier)
    push(ingest, clock, 1)
    clock.advance_to(NOW + 5 * DAY)
    push(ingest, clock, 2)
    ingest.retain()
    again = opened(tmp_path, clock, MemoryApplier())  # the online state is lost too
    assert again.flush(["Payments"])["Payments"].lsn == 2
    assert again.events("Payments")["id"].to_list() == ["p2"]
    push(again, clock, 3)
    assert ids(tmp_path) == ["p2", "p3"]
    assert again.retain() == 0


def test_a_deletion_that_did_not_happen_is_made_by_the_next_step(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = opened(tmp_path, clock)
    push(ingest, clock, 1)
    clock.advance_to(NOW + 5 * DAY)
    assert opened(tmp_path, clock).retain() == 2, "by another process: nothing but the table says what is due"


def test_one_step_touches_a_bounded_number_of_files(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path, compact_at=1000)
    for number in range(20):
        at = pl.Series([number * SECOND]).cast(pl.Datetime("us", "UTC"))
        lake.append("T", pl.DataFrame({"at": at, "_lsn": [number]}), app_id="T", version=number + 1)
    assert lake.delete_before("T", "at", 19 * SECOND) == 16
    assert lake.delete_before("T", "at", 19 * SECOND) == 3
    assert lake.delete_before("T", "at", 19 * SECOND) == 0
    assert lake.read("T")["at"].to_list() == [19 * SECOND]
    assert (lake.oldest("T", "at"), lake.oldest("T", "nope"), lake.oldest("nobody", "at")) == (19 * SECOND, None, None)


def test_quarantine_of_what_is_kept_for_ever_has_a_default(tmp_path: Path) -> None:
    found = {expiry.table: expiry.kept for expiry in expiries({"Payments": 2 * DAY, "Trips": None})}
    assert found == {"Payments": 2 * DAY, "Payments__quarantine": 2 * DAY, "Trips__quarantine": QUARANTINE_KEPT}


def test_the_pump_looks_now_and_then_and_goes_on_while_there_is_more(tmp_path: Path) -> None:
    clock, at = ManualClock(NOW), [0.0]
    ingest = opened(tmp_path, clock)
    pump = Pump(ingest, config=PumpConfig(retain_seconds=100, flush_seconds=1e9), monotonic=lambda: at[0])
    push(ingest, clock, 1)
    pump.step()
    clock.advance_to(NOW + 5 * DAY)
    pump.step()
    assert ids(tmp_path) == ["p1"]
    at[0] = 101.0
    pump.step()
    assert ids(tmp_path) == []


# --- what derived sources have yet to read

DERIVED = (
    msgspec.structs.replace(derive.INFO, retention=2 * DAY),
    msgspec.structs.replace(derive.TRIPS, retention=2 * DAY),
    msgspec.structs.replace(derive.BIG, retention=300 * DAY),
)


def trips(ingest: Ingest, clock: ManualClock, count: int, *, live: bool = True) -> None:
    rows = [{"id": n, "company": "a", "fare": 9, "at": clock.now() - SECOND} for n in range(count)]
    ingest.append("Info", [{"company": "a", "rate": 0.5, "at": clock.now() - 2 * SECOND}])
    ingest.append("Trips", rows, live=live)


def waits(ingest: Ingest) -> dict[str, list[str]]:
    return {s["name"]: s["retention_waits_for"] for s in ingest.status()["sources"] if s["retention_waits_for"]}


def test_rows_stay_until_what_is_derived_from_them_has_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(NOW)
    ingest = derive.open_ingest(tmp_path, clock, plan=DERIVED, step=50)

    def fail(frame: Any) -> Any:
        raise UnavailableError("not now", code="broken")

    monkeypatch.setattr(ingest._derivations._running["Big@1"].derivation, "derive", fail)
    trips(ingest, clock, 20)
    ingest.flush()
    clock.advance_to(NOW + 9 * DAY)
    assert ingest.retain() == 0
    assert waits(ingest) == {"Info": ["Big@1"], "Trips": ["Big@1"]}, "and what its views are over"
    monkeypatch.undo()
    assert ingest.retain() == 21, "it is brought up first"
    assert waits(ingest) == {}
    assert ingest.events("Big@1").select("id", "rate").rows() == [(n, 50) for n in range(20)]
    derive.close(ingest)


def test_rows_that_are_not_known_yet_and_those_of_a_definition_that_is_being_built_stay(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    patient = msgspec.structs.replace(DERIVED[1], known=KnownSpec(kind="delay", delay=10 * DAY))
    plan = (DERIVED[0], patient, DERIVED[2])
    ingest = derive.open_ingest(tmp_path, clock, plan=plan, step=50)
    trips(ingest, clock, 10, live=False)
    ingest.flush()
    clock.advance_to(NOW + 9 * DAY)
    assert (ingest.retain(), waits(ingest)) == (0, {"Info": ["Big@1"], "Trips": ["Big@1"]})
    derive.close(ingest)
    clock.advance_to(NOW + 10 * DAY)
    ingest = derive.open_ingest(tmp_path, clock, plan=(*plan, derive.derived("Big@2", 1)), step=4)
    assert (ingest.retain(), waits(ingest)) == (0, {"Info": ["Big@1", "Big@2"], "Trips": ["Big@1", "Big@2"]})
    derive.settle(ingest)
    assert (ingest.retain(), waits(ingest)) == (11, {})
    assert [len(ingest.events(name)) for name in ("Big@1", "Big@2")] == [10, 10]
    derive.close(ingest)


def test_a_source_that_is_pushed_to_all_the_time_is_kept_no_longer(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = derive.open_ingest(tmp_path, clock, plan=DERIVED, step=50)
    trips(ingest, clock, 5)
    ingest.flush()
    clock.advance_to(NOW + 9 * DAY)
    ingest.append("Trips", [{"id": 99, "company": "a", "fare": 9, "at": clock.now() - SECOND}])  # not derived yet
    assert (ingest.retain(), waits(ingest)) == (6, {})
    derive.close(ingest)


# --- sources that left


def without_payments(folder: Path, clock: ManualClock, *, keep_hours: int = 168) -> Ingest:
    ingest = Ingest(
        log=SqliteEventLog(folder / "log"),
        lake=DeltaLake(folder / "lake", keep_hours=keep_hours),
        applier=MemoryApplier(),
        clock=clock,
        retention_notes=folder / "retention.json",
    )
    ingest.load_plan({"epoch": 2, "sources": [TRIPS], "views": []})
    return ingest


def test_rows_of_a_source_that_left_the_project_go_by_what_it_last_declared(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = without_payments(tmp_path, clock)
    for kept in (300 * DAY, 2 * DAY):
        plan = [msgspec.structs.replace(KEPT, retention=kept), TRIPS]
        ingest.load_plan({"epoch": 1, "sources": plan, "views": []})
    push(ingest, clock, 1)
    ingest.load_plan({"epoch": 2, "sources": [TRIPS], "views": []})
    assert ingest.retain() == 0
    clock.advance_to(NOW + 5 * DAY)
    assert ingest.retain() == 2, "the event and the refusal"
    again = without_payments(tmp_path, clock, keep_hours=0)
    assert again.retain() == 0
    assert not list((tmp_path / "lake" / "Payments").glob("*.parquet")), "nobody appends, so it is vacuumed here"


def test_a_new_process_knows_what_left_and_waits_for_a_plan_to_say_so(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = without_payments(tmp_path, clock)
    ingest.load_plan({"epoch": 1, "sources": [KEPT, TRIPS], "views": []})
    push(ingest, clock, 1)
    clock.advance_to(NOW + 5 * DAY)
    retention = Retention(DeltaLake(tmp_path / "lake"), clock, notes=tmp_path / "retention.json")
    assert retention.step([], lambda name: 0) == 0, "what is derived is not known yet"
    assert without_payments(tmp_path, clock).retain() == 2


def test_a_source_that_came_back_keeps_its_rows_as_it_says_now(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = without_payments(tmp_path, clock)
    for sources in ([KEPT, TRIPS], [TRIPS], [PAYMENTS, TRIPS]):
        ingest.load_plan({"sources": sources, "views": []})
    push(ingest, clock, 1)
    clock.advance_to(NOW + 5 * DAY)
    assert ingest.retain() == 0
    ingest.load_plan({"sources": [TRIPS], "views": []})
    assert ingest.retain() == 0, "and so it does when it leaves again"
