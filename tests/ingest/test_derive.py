"""Derived sources in the core: exactly once, in any cut, across crashes, as brute force over the log says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import (
    ColumnSpec,
    DerivedColumnSpec,
    DeriveSpec,
    KnownSpec,
    LatestSpec,
    SourceSpec,
    ViewSpec,
)
from flyball.features.derive import SourceDeriver
from flyball.ingest.service import Ingest, IngestConfig
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import InvalidError, UnavailableError
from flyball.kernel.times import SECOND
from flyball.storage.event_log import SqliteEventLog
from flyball.storage.lake import DeltaLake
from tests.ingest.sources import NOW, MemoryApplier

INFO = SourceSpec(
    name="Info",
    columns=(ColumnSpec(name="company", type="string"), ColumnSpec(name="rate", type="decimal", scale=2)),
    event_time="at",
    known=KnownSpec(kind="delay", delay=SECOND),
)
TRIPS = SourceSpec(
    name="Trips",
    columns=(
        ColumnSpec(name="id", type="integer"),
        ColumnSpec(name="company", type="string"),
        ColumnSpec(name="fare", type="integer"),
    ),
    event_time="at",
    key=("id",),
    known=KnownSpec(kind="delay", delay=SECOND),
)
COMPANY = ViewSpec(
    name="Company",
    kind="latest",
    source="Info",
    entity=("company",),
    latest=(LatestSpec(name="rate", column="rate", type="decimal", scale=2),),
)
RATE = ["view", "Company", "rate", ["company"]]


def derived(
    name: str, least: int, *, source: str = "Trips", view: ViewSpec = COMPANY, column: str = "rate"
) -> SourceSpec:
    parent = TRIPS if source == "Trips" else BIG
    return msgspec.structs.replace(
        parent,
        name=name,
        columns=(*parent.columns, ColumnSpec(name=column, type="decimal", scale=2, nullable=True)),
        derive=DeriveSpec(
            source=source,
            where=["gt", ["col", source, "fare"], ["lit", least]],
            columns=(DerivedColumnSpec(name=column, expr=["view", view.name, "rate", ["company"]]),),
            views=(view,),
        ),
    )


BIG = derived("Big@1", 3)
OVER_BIG = msgspec.structs.replace(COMPANY, name="OfBig", source="Big@1")  # the newest big trip's rate, of a company
BIGGER = derived("Bigger@1", 6, source="Big@1", view=OVER_BIG, column="before")
PLAN = (INFO, TRIPS, BIG, BIGGER)


class Cut(BaseException):
    """A process that ends here."""


class BreakingLog(SqliteEventLog):
    chance: random.Random | None = None

    def append(self, batches: Any, *, now: int, refused: Any = ()) -> Any:
        moment = self.chance.choice(["", "", "before", "inside", "after"]) if self.chance else ""
        if moment == "before":
            raise Cut
        self.break_inside = moment == "inside"
        answer = super().append(batches, now=now, refused=refused)
        if moment == "after":
            raise Cut
        return answer

    break_inside = False

    def _insert(self, batch: Any, payload: bytes, *, now: int) -> Any:
        answer = super()._insert(batch, payload, now=now)
        if self.break_inside:
            raise Cut
        return answer


def open_ingest(
    folder: Path, clock: ManualClock, *, plan: tuple[SourceSpec, ...] = PLAN, step: int = 3, chance: Any = None
) -> Ingest:
    log = BreakingLog(folder / "log")
    ingest = Ingest(
        log=log,
        lake=DeltaLake(folder / "lake"),
        applier=MemoryApplier(),
        clock=clock,
        config=IngestConfig(derive_rows=step, apply_rows=4, commit_rows=7),
        deriver=SourceDeriver(),
    )
    ingest.load_plan({"epoch": 1, "digest": "d", "sources": list(plan), "views": []})
    log.chance = chance
    return ingest


def settle(ingest: Ingest) -> None:
    while ingest.apply():
        pass


def close(ingest: Ingest) -> None:
    ingest._log.close()  # type: ignore[attr-defined]


def trip(id_: int, clock: ManualClock, chance: random.Random) -> dict[str, Any]:
    at = clock.now() - chance.choice([0, 1, 2, 9]) * SECOND
    return {"id": id_, "company": chance.choice("ab"), "fare": chance.randint(0, 9), "at": at}


def fact(clock: ManualClock, chance: random.Random) -> dict[str, Any]:
    at = clock.now() - chance.choice([0, 1, 2, 9]) * SECOND
    return {"company": chance.choice("ab"), "rate": chance.randint(0, 99) / 100, "at": at}


def expected(parents: list[dict[str, Any]], infos: list[dict[str, Any]], least: int, column: str) -> list[Any]:
    """Event by event: of those that happened before and were known, the newest."""
    rows = []
    for row in parents:
        seen = [
            i
            for i in infos
            if i["company"] == row["company"]
            and i["_event_time"] < row["_event_time"]
            and i["_known_at"] <= row["_known_at"]
        ]
        newest = max(seen, key=lambda i: (i["_event_time"], i["_lsn"]), default=None)
        if row["fare"] > least:
            kept = {name: value for name, value in row.items() if name != "_lsn"}
            rows.append(kept | {column: newest["rate"] if newest else None})
    return rows


def without_lsn(ingest: Ingest, source: str) -> list[dict[str, Any]]:
    return ingest.events(source).drop("_lsn").to_dicts()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_derived_events_are_those_of_brute_force_whatever_is_cut_off(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chance, folder = random.Random(seed), tmp_path_factory.mktemp("derive")
    clock = ManualClock(NOW)
    ingest = open_ingest(folder, clock, chance=chance)
    for _ in range(chance.randint(5, 25)):
        clock.advance_to(clock.now() + chance.choice([1, SECOND, 3 * SECOND]))
        try:
            what = chance.random()
            if what < 0.1:  # history, of which some is known only later
                rows = [trip(chance.randrange(40), clock, chance) for _ in range(chance.randint(1, 8))]
                ingest.append("Trips", rows, live=False)
            elif what < 0.4:
                ingest.append("Trips", [trip(chance.randrange(40), clock, chance) for _ in range(chance.randint(1, 8))])
            elif what < 0.7:
                ingest.append("Info", [fact(clock, chance) for _ in range(chance.randint(1, 4))])
            elif what < 0.9:
                ingest.apply()
            else:
                ingest.flush()
        except Cut:
            close(ingest)
            ingest = open_ingest(folder, clock, step=chance.randint(1, 9), chance=chance)
    close(ingest)
    ingest = open_ingest(folder, clock)
    settle(ingest)
    clock.advance_to(clock.now() + SECOND)
    settle(ingest)
    trips, infos = ingest.events("Trips").to_dicts(), ingest.events("Info").to_dicts()
    assert by_id(without_lsn(ingest, "Big@1")) == by_id(expected(trips, infos, 3, "rate"))
    big = ingest.events("Big@1").to_dicts()
    assert by_id(without_lsn(ingest, "Bigger@1")) == by_id(expected(big, big, 6, "before"))
    status = {s["name"]: s for s in ingest.status()["sources"]}
    assert status["Big@1"]["derive"]["behind"] == status["Big@1"]["derive"]["late"] == 0
    assert status["Big@1"]["rows"] == ingest._log.last_lsn("Big@1")
    close(ingest)


def by_id(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: int(row["id"]))


def filled(folder: Path, clock: ManualClock, trips: int = 20) -> Ingest:
    chance, ingest = random.Random(1), open_ingest(folder, clock)
    for number in range(trips):
        clock.advance_to(clock.now() + SECOND)
        ingest.append("Info", [fact(clock, chance)])
        ingest.append("Trips", [trip(number, clock, chance)])
    return ingest


def test_a_new_definition_is_built_from_the_lake_in_steps_across_restarts_beside_the_old_one(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = filled(tmp_path, clock)
    settle(ingest)
    ingest.flush()  # the log is trimmed: what is built again comes from the lake
    old = without_lsn(ingest, "Big@1")
    anew = derived("Big@2", 1)
    for _ in range(3):
        close(ingest)
        ingest = open_ingest(tmp_path, clock, plan=(*PLAN, anew))
        ingest.apply()
        with pytest.raises(UnavailableError, match="Big@2 is still being derived") as caught:
            ingest.flush(["Big@2"])
        assert caught.value.code == "not_derived_yet"
    assert without_lsn(ingest, "Big@1") == old
    settle(ingest)
    assert ingest.flush(["Big@2"])["Big@2"].lsn == ingest._log.last_lsn("Big@2")
    assert without_lsn(ingest, "Big@2") == expected(
        ingest.events("Trips").to_dicts(), ingest.events("Info").to_dicts(), 1, "rate"
    )
    close(ingest)


def test_of_events_with_one_key_the_first_is_derived_from(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = open_ingest(tmp_path, clock, plan=(INFO, TRIPS, BIG))
    at = NOW - SECOND
    for fare in (1, 9):  # the first fails the condition, so its duplicate, which would not, counts for nothing
        ingest.append("Trips", [{"id": 1, "company": "a", "fare": fare, "at": at}])
    settle(ingest)
    assert ingest.events("Big@1").is_empty()
    close(ingest)


def test_nobody_pushes_into_a_derived_source(tmp_path: Path) -> None:
    ingest = open_ingest(tmp_path, ManualClock(NOW))
    for name in ("Big@1", "Big"):
        with pytest.raises(InvalidError, match="source Big is derived from Trips") as caught:
            ingest.append(name, [{"id": 1}])
        assert caught.value.code == "derived_source"
        with pytest.raises(InvalidError, match="takes no events of its own"):
            ingest.append_file(name, tmp_path / "x.csv")
    close(ingest)


def test_history_of_an_input_that_comes_too_late_is_counted(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = open_ingest(tmp_path, clock, plan=(INFO, TRIPS, BIG))
    ingest.append("Trips", [{"id": 1, "company": "a", "fare": 9, "at": NOW - SECOND}])
    settle(ingest)
    ingest.append("Info", [{"company": "a", "rate": 0.5, "at": NOW - 9 * SECOND}], live=False)
    close(ingest)
    ingest = open_ingest(tmp_path, clock, plan=(INFO, TRIPS, BIG))
    ingest.append("Trips", [{"id": 2, "company": "a", "fare": 9, "at": NOW - SECOND}])
    settle(ingest)
    assert ingest.events("Big@1")["rate"].to_list() == [None, 50]
    (state,) = (s["derive"] for s in ingest.status()["sources"] if s["derive"])
    assert (state["late"], state["lsn"], state["inputs"]) == (1, 2, {"Info": 1})
    close(ingest)


def test_history_that_is_not_known_yet_waits_and_holds_up_nothing(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = open_ingest(tmp_path, clock, plan=(INFO, TRIPS, BIG))
    ingest.append("Trips", [{"id": 1, "company": "a", "fare": 9, "at": NOW - 1}], live=False)  # known in a second
    ingest.append("Trips", [{"id": 2, "company": "a", "fare": 9, "at": NOW - 1}])
    settle(ingest)
    assert ingest.events("Big@1")["id"].to_list() == [2]
    (state,) = (s["derive"] for s in ingest.status()["sources"] if s["derive"])
    assert (state["held"], state["behind"]) == (1, 0)
    clock.advance_to(NOW + SECOND // 2)
    ingest.append("Info", [{"company": "a", "rate": 0.5, "at": NOW - 9 * SECOND}])
    settle(ingest)
    clock.advance_to(NOW + SECOND)
    close(ingest)
    ingest = open_ingest(tmp_path, clock, plan=(INFO, TRIPS, BIG))
    settle(ingest)
    assert ingest.events("Big@1").select("id", "rate").rows() == [(2, None), (1, 50)]
    close(ingest)


def test_a_plan_whose_derivation_cannot_be_is_refused(tmp_path: Path) -> None:
    itself = msgspec.structs.replace(BIG, derive=msgspec.structs.replace(BIG.derive, source="Big@1"))  # type: ignore[type-var]
    ingest = open_ingest(tmp_path, ManualClock(NOW), plan=(INFO, TRIPS))
    for plan, reason in (((TRIPS, BIG), "from Info, which is not in the plan"), ((INFO, itself), "from itself")):
        with pytest.raises(InvalidError, match=reason) as caught:
            ingest.load_plan({"sources": list(plan)})
        assert caught.value.code == "bad_plan"
    close(ingest)


def test_a_derivation_that_fails_is_said_and_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock(NOW)
    ingest = filled(tmp_path, clock, 3)
    broken = ingest._derivations._running["Big@1"].derivation

    def fail(frame: Any) -> Any:
        raise InvalidError("no such thing", code="broken")

    monkeypatch.setattr(broken, "derive", fail)
    settle(ingest)
    state = next(s["derive"] for s in ingest.status()["sources"] if s["name"] == "Big@1")
    assert (state["error"], state["code"], state["behind"]) == ("no such thing", "broken", 3)
    monkeypatch.setattr(broken, "derive", lambda frame: frame["no such column"])
    settle(ingest)
    state = next(s["derive"] for s in ingest.status()["sources"] if s["name"] == "Big@1")
    assert state["code"] == "internal"
    assert ingest._log.last_lsn("Trips") == ingest._applier.applied_lsn("Trips") == 3
    monkeypatch.undo()
    settle(ingest)
    assert next(s["derive"]["behind"] for s in ingest.status()["sources"] if s["name"] == "Big@1") == 0
    close(ingest)
