"""The quarantine: rows stay as they came, and are taken once when the contract accepts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball.define.spec import ColumnSpec, KnownSpec, SourceSpec
from flyball.ingest.quarantine import place_of
from flyball.ingest.service import Ingest
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import ConflictError, InvalidError, NotFoundError
from flyball.storage.event_log import SqliteEventLog
from flyball.storage.lake import DeltaLake
from tests.ingest.sources import DAY, HOUR, NOW, PAYMENTS, SECOND, make_ingest, payment

AT = NOW // SECOND


def mended(**columns: dict[str, Any]) -> SourceSpec:
    return msgspec.structs.replace(
        PAYMENTS,
        columns=tuple(msgspec.structs.replace(c, **columns.get(c.name, {})) for c in PAYMENTS.columns),
    )


def mend(ingest: Ingest, spec: SourceSpec) -> None:
    ingest.load_plan({"epoch": 2, "digest": "e", "sources": [spec], "views": []})


WIDER = mended(amount={"ge": -100.0}, kind={"categories": (*PAYMENTS.column("kind").categories, "barter")})


def states(ingest: Ingest) -> dict[str, str]:
    return {row["id"]: row["state"] for row in ingest.quarantine("Payments")["rows"]}


def status(ingest: Ingest) -> dict[str, Any]:
    return next(s for s in ingest.status()["sources"] if s["name"] == "Payments")


@pytest.mark.parametrize("flushed", [False, True], ids=["in the log", "in the lake"])
def test_rows_are_taken_once_when_the_contract_was_mended(tmp_path: Path, flushed: bool) -> None:
    clock = ManualClock(NOW)
    ingest = make_ingest(tmp_path, clock=clock)
    ingest.append("Payments", [payment(1), payment(2, amount=-5), payment(3, kind="barter"), payment(4, amount=-500)])
    if flushed:
        ingest.flush()
    assert ingest.retry("Payments")["accepted"] == 0, "nothing was mended"
    mend(ingest, WIDER)
    clock.advance_to(clock.now() + HOUR)
    done = ingest.retry("Payments")
    assert done == {
        "source": "Payments",
        "retried": 3,
        "accepted": 2,
        "duplicates": 0,
        "superseded": 0,
        "quarantined": 1,
    }
    assert ingest.retry("Payments")["accepted"] == 0
    again = make_ingest(tmp_path, clock=clock, sources=[WIDER])
    assert again.retry("Payments")["retried"] == 1
    again.flush()
    events = again.events("Payments")
    assert events["id"].to_list() == ["p1", "p2", "p3"]
    assert events["_known_at"].to_list() == [NOW, NOW + HOUR, NOW + HOUR], "live rows are known when they are taken"
    assert states(again) == {"Payments:1.1": "retried", "Payments:1.2": "retried", "Payments:1.3": "open"}
    assert (status(again)["quarantined"], status(again)["quarantine_open"]) == (3, 1)
    row = again.quarantined("Payments:1.1")
    assert (row["lsn"], row["state"], row["row"]["card"], row["live"]) == (2, "retried", "[pii]", True)


def test_a_row_that_fails_again_has_the_reason_of_now(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1, amount=-5, kind="barter")])
    mend(ingest, mended(amount={"ge": -100.0}))
    assert ingest.retry("Payments", rule="ge")["quarantined"] == 1
    (row,) = ingest.quarantine("Payments", rule="unknown_category")["rows"]
    assert (row["state"], row["column"], row["value"]) == ("open", "kind", "barter")
    assert ingest.retry("Payments", rule="ge")["retried"] == 0, "the rule of now is what is asked for"


def test_history_is_retried_as_history_with_its_own_times(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    old = (NOW - 400 * DAY) // SECOND
    file = tmp_path / "h.csv"
    file.write_text(
        f"id,card,amount,kind,score,items,gift,due,at,note\np1,1234,-5.00,,,,,,{old},x\np2,1234,5,,,,\np3,1234,-6,,,,,,{old},y\n"
    )
    receipt = ingest.append_file("Payments", file)
    assert receipt.reasons == {"ge": 2, "field_count": 1}
    ingest.flush()
    mend(ingest, WIDER)
    done = ingest.retry("Payments")
    assert (done["retried"], done["accepted"], done["quarantined"]) == (3, 2, 1), "a line that is no row stays"
    ingest.apply()
    events = ingest.events("Payments")
    assert events["_known_at"].to_list() == [old * SECOND + HOUR] * 2
    assert events["kind"].to_list() == [None, None], "an empty cell is null, as it was in the file"
    assert states(ingest)["Payments:1.2"] == "open"
    mend(ingest, msgspec.structs.replace(WIDER, known=KnownSpec()))
    ingest.append("Payments", [payment(8, amount=-900)])
    assert ingest.retry("Payments", ids=["Payments:3.1"])["quarantined"] == 1, "live rows need no history"


def test_a_row_with_a_column_that_nobody_knew_is_taken_when_it_is_declared(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1, shop="a")])
    assert ingest.retry("Payments")["accepted"] == 0
    mend(ingest, msgspec.structs.replace(
        PAYMENTS, columns=(*PAYMENTS.columns, ColumnSpec(name="shop", type="string", nullable=True))
    ))  # fmt: skip
    assert ingest.retry("Payments")["accepted"] == 1
    ingest.apply()
    assert ingest.events("Payments")["shop"].to_list() == ["a"]


def test_a_key_that_came_meanwhile_is_not_taken_twice(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1, amount=-5), payment(1, amount=-6)])
    ingest.append("Payments", [payment(1, amount=7)])
    mend(ingest, WIDER)
    assert ingest.retry("Payments") == {
        "source": "Payments", "retried": 2, "accepted": 1, "duplicates": 1, "superseded": 0, "quarantined": 0,
    }  # fmt: skip
    ingest.flush()
    assert ingest.events("Payments")["amount"].to_list() == [700]


def test_a_dropped_row_is_not_retried_any_more(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1, amount=-5), payment(2, amount=-6), payment(3, amount="x")])
    assert ingest.drop("Payments", ids=["Payments:1.2"])["dropped"] == 1
    assert ingest.drop("Payments", rule="wrong_type")["dropped"] == 1
    mend(ingest, WIDER)
    assert ingest.retry("Payments")["accepted"] == 1
    with pytest.raises(ConflictError, match=r"Payments:1\.2 is dropped already"):
        ingest.retry("Payments", ids=["Payments:1.2"])
    assert status(ingest)["quarantine_open"] == 0
    assert states(ingest) == {"Payments:1.1": "retried", "Payments:1.2": "dropped", "Payments:1.3": "dropped"}
    listed = ingest.quarantine("Payments", state="open")
    assert (listed["rows"], listed["total"], listed["open"]) == ([], 3, 0)


def test_an_id_that_is_none_is_refused(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1, amount=-5)])
    for id in ("1.1", "Payments:0.1", "Payments:1", "Payments:1.1 ", "Payments:1.1/..", "Payments:" + "9" * 30 + ".1"):
        with pytest.raises(InvalidError) as invalid:
            ingest.quarantined(id)
        assert invalid.value.code == "bad_quarantine_id"
    with pytest.raises(NotFoundError) as caught:
        ingest.quarantined("Payments:1.2")
    assert caught.value.code == "quarantined_not_found"
    with pytest.raises(InvalidError):
        ingest.retry("Payments", ids=["Trips:1.1"])
    assert place_of("Payments:12.3") == ("Payments", 12, 3)


def test_the_lake_tells_what_became_of_each_row(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1, amount=-5), payment(2, amount=-500)])
    ingest.flush()
    mend(ingest, WIDER)
    ingest.retry("Payments")
    ingest.flush()
    ingest.drop("Payments", ids=["Payments:1.2"])
    ingest.flush()
    lake = DeltaLake(tmp_path / "lake")
    rows = lake.scan("Payments__quarantine").collect()
    assert rows["id"].to_list() == ["Payments:1.1", "Payments:1.2"]
    changes = lake.scan("Payments__quarantine_changes").collect()
    newest = changes.sort("_number").unique("id", keep="last").sort("id")
    assert newest.select("id", "state", "lsn").rows() == [
        ("Payments:1.1", "retried", 1),
        ("Payments:1.2", "dropped", None),
    ]


class DyingError(Exception):
    """What a test lets a process die of."""


@pytest.mark.parametrize("dies_at", range(1, 12))
def test_whenever_a_retry_dies_each_row_is_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """The process dies before its n-th write to the log, or just after the one before; then all is done again."""
    monkeypatch.setattr("flyball.ingest.quarantine.RETRY_ROWS", 2)
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(n, amount=-5 if n % 3 else -500) for n in range(9)])
    ingest.flush()
    mend(ingest, WIDER)
    writes = 0
    real = {name: getattr(SqliteEventLog, name) for name in ("append", "resolve", "trim")}

    def dying(name: str) -> Any:
        def write(self: SqliteEventLog, *args: Any, **kwargs: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == dies_at:
                raise DyingError
            return real[name](self, *args, **kwargs)

        return write

    for name in real:
        monkeypatch.setattr(SqliteEventLog, name, dying(name))
    try:
        ingest.retry("Payments")
        ingest.flush()
    except DyingError:
        pass
    for name, method in real.items():
        monkeypatch.setattr(SqliteEventLog, name, method)
    again = make_ingest(tmp_path, sources=[WIDER])
    again.retry("Payments")
    again.flush()
    assert sorted(DeltaLake(tmp_path / "lake").read("Payments", ["id"])["id"]) == [f"p{n}" for n in (1, 2, 4, 5, 7, 8)]
    assert status(again)["quarantine_open"] == 3
    assert again.retry("Payments")["accepted"] == 0


def test_a_retry_of_many_rows_keeps_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.ingest.quarantine.RETRY_ROWS", 7)
    ingest = make_ingest(tmp_path)
    for start in range(0, 40, 10):
        ingest.append("Payments", [payment(n, amount=-1) for n in range(start, start + 10)])
    mend(ingest, WIDER)
    assert ingest.retry("Payments")["accepted"] == 40
    ingest.apply()
    assert ingest.events("Payments")["id"].to_list() == [f"p{n}" for n in range(40)]
