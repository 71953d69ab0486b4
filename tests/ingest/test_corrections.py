"""Corrections and deletions: later events of a key are versions of it, in the order in which they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pytest

from flyball.define.spec import ColumnSpec, KnownSpec, RuleSpec, SourceSpec
from flyball.ingest.contract import check
from flyball.ingest.frames import SYSTEM_COLUMNS, physical_schema
from flyball.ingest.rejection import DELETED
from flyball.ingest.rows import from_dicts
from flyball.ingest.service import Ingest
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import InvalidError
from flyball.storage.lake import DeltaLake
from tests.ingest.sources import HOUR, NOW, PAYMENTS, SECOND, make_ingest, payment

AT = NOW // SECOND
ORDERS = msgspec.structs.replace(PAYMENTS, corrections=True)


def core(folder: Path, spec: SourceSpec = ORDERS, **more: Any) -> Ingest:
    return make_ingest(folder, sources=[spec], **more)


def gone(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"p{number}", "_deleted": True, **more}


def versions(ingest: Ingest) -> list[tuple[Any, ...]]:
    ingest.apply()
    return ingest.events("Payments").select("id", "amount", DELETED, "_lsn").rows()


def test_all_versions_of_a_key_are_kept_from_the_log_and_from_the_lake(tmp_path: Path) -> None:
    ingest = core(tmp_path)
    receipt = ingest.append("Payments", [payment(1, amount=1), payment(2), payment(1, amount=2), gone(1)])
    assert (receipt.accepted, receipt.duplicates, receipt.quarantined) == (4, 0, 0)
    ingest.append("Payments", [payment(1, amount=3)])
    expected = [
        ("p1", 100, False, 1),
        ("p2", 1245, False, 2),
        ("p1", 200, False, 3),
        ("p1", None, True, 4),
        ("p1", 300, False, 5),
    ]
    assert versions(ingest) == expected
    assert ingest.flush()["Payments"].rows == 5
    assert versions(core(tmp_path)) == expected, "after a restart, from the lake"
    table = DeltaLake(tmp_path / "lake").scan("Payments").collect()
    assert table[DELETED].to_list() == [False, False, False, True, False]


def test_a_deletion_needs_nothing_but_the_key_and_is_dated_by_its_commit(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = core(tmp_path, clock=clock)
    ingest.append("Payments", [payment(1)])
    clock.advance_to(NOW + HOUR)
    ingest.append("Payments", [gone(1), gone(1, at=AT - 5), gone(1, amount="what", card=5, kind="x", at=None)])
    ingest.apply()
    events = ingest.events("Payments")
    assert events["_event_time"].to_list()[1:] == [NOW + HOUR, NOW - 5 * SECOND, NOW + HOUR]
    assert events["_known_at"].to_list()[1:] == [NOW + HOUR] * 3
    assert events["_key"].n_unique() == 1
    for name in ("card", "amount", "kind", "score"):
        assert events[name].to_list()[1:] == [None] * 3, name


@pytest.mark.parametrize(
    ("row", "rule", "column"),
    [
        ({"_deleted": True}, "missing_column", "id"),
        ({"_deleted": True, "id": None}, "null", "id"),
        ({"_deleted": True, "id": "p" * 13}, "max_length", "id"),
        ({"_deleted": "maybe", "id": "p1"}, "wrong_type", "_deleted"),
        ({"_deleted": [1], "id": "p1"}, "wrong_type", "_deleted"),
        ({"_deleted": True, "id": "p1", "at": "now"}, "bad_event_time", "at"),
        ({"_deleted": False, "id": "p1"}, "missing_column", "card"),
        ({"_deleted": None, "id": "p1"}, "missing_column", "card"),
        ({"_deleted": True, "id": "p1", "at": AT + 600}, "ahead_of_clock", "at"),
    ],
)
def test_a_deletion_that_is_wrong_is_quarantined(row: dict[str, Any], rule: str, column: str) -> None:
    checked = check(from_dicts([row, payment(9)], ORDERS), ORDERS, now=NOW, live=True)
    (rejected,) = checked.rejected
    assert (str(rejected.rule), rejected.column) == (rule, column)
    if column == DELETED:
        assert "send true or false" in rejected.message


def test_a_source_without_corrections_refuses_deletions_and_says_how_to_take_them(tmp_path: Path) -> None:
    ingest = core(tmp_path, PAYMENTS)
    receipt = ingest.append("Payments", [gone(1), payment(2) | {"_deleted": False}, payment(3)])
    assert receipt.reasons == {"no_corrections": 2}
    assert "corrections=True" in receipt.examples[0]["message"]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(msgspec.json.encode(gone(1)))
    assert ingest.append_file("Payments", file).reasons == {"no_corrections": 1}, "a file's is not ignored"
    for rows in (pl.DataFrame([payment(1) | {"_deleted": True}]), pa.table({"id": ["p1"], "_deleted": [True]})):
        with pytest.raises(InvalidError) as caught:
            ingest.append("Payments", rows)
        assert caught.value.code == "no_corrections"


def test_files_and_tables_carry_deletions(tmp_path: Path) -> None:
    ingest = core(tmp_path)
    head = "id,card,amount,kind,score,items,gift,due,at,_deleted\n"
    old = AT - 90_000
    (tmp_path / "a.csv").write_text(f"{head}p1,1234,5,,,,,,{old},\np1,,,,,,,,{old},true\np2,1234,6,,,,,,{old},false\n")
    csv = ingest.append_file("Payments", tmp_path / "a.csv")
    assert (csv.accepted, csv.ignored) == (3, ())
    frame = pl.read_csv(tmp_path / "a.csv", infer_schema=False).with_columns(pl.col("_deleted") == "true")
    frame.write_parquet(tmp_path / "a.parquet")
    assert ingest.append_file("Payments", tmp_path / "a.parquet").accepted == 3
    lines = [payment(1, at=old), gone(1, at=old), gone(2)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    jsonl = ingest.append_file("Payments", tmp_path / "a.jsonl")
    assert (jsonl.accepted, jsonl.reasons) == (2, {"bad_event_time": 1}), "history has no time of its own commit"
    assert ingest.append("Payments", frame.with_columns(at=pl.lit(AT))).accepted == 3
    rows = versions(ingest)
    assert [row[2] for row in rows] == [False, True, False, False, True, False, False, True, False, True, False]
    known = ingest.events("Payments")["_known_at"].to_list()
    assert known[1] == old * SECOND + HOUR


def test_a_deletion_of_history_is_known_at_its_own_column(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(ORDERS, known=KnownSpec(kind="column", column="seen", unit="s"))
    checked = check(from_dicts([gone(1, seen=AT - 9), gone(2)], spec), spec, now=NOW, live=False)
    assert checked.frame.select("_event_time", "_known_at").rows() == [((AT - 9) * SECOND,) * 2]
    assert [str(row.rule) for row in checked.rejected] == ["bad_event_time"]


def test_rules_do_not_judge_deletions(tmp_path: Path) -> None:
    rules = (
        RuleSpec(name="small", kind="check", expr=["lt", ["col", "Payments", "amount"], ["lit", 10]]),
        RuleSpec(name="one", kind="unique", columns=("id",)),
    )
    ingest = core(tmp_path, msgspec.structs.replace(ORDERS, rules=rules))
    receipt = ingest.append("Payments", [payment(1, amount=5), gone(1), gone(1), payment(1, amount=6), payment(2)])
    assert receipt.accepted == 3
    assert receipt.reasons == {"one": 1, "small": 1}


def test_a_physical_frame_says_which_rows_delete() -> None:
    assert list(physical_schema(ORDERS))[-5:] == [*SYSTEM_COLUMNS, DELETED]
    assert DELETED not in physical_schema(PAYMENTS)


def test_asked_columns_come_with_the_systems_own(tmp_path: Path) -> None:
    ingest = core(tmp_path)
    ingest.append("Payments", [payment(1)])
    ingest.apply()
    assert ingest.events("Payments", ["id"]).columns == ["id", *SYSTEM_COLUMNS, DELETED]


def test_versions_of_a_source_that_left_the_plan_come_to_the_lake_all(tmp_path: Path) -> None:
    ingest = core(tmp_path)
    ingest.append("Payments", [payment(1), payment(1, amount=2), gone(1)])
    again = make_ingest(tmp_path, sources=[])
    again.flush()
    assert DeltaLake(tmp_path / "lake").read("Payments")[DELETED].to_list() == [False, False, True]


def test_a_column_may_join_a_source_with_corrections(tmp_path: Path) -> None:
    core(tmp_path).append("Payments", [payment(1), gone(1)])
    wider = (*ORDERS.columns, ColumnSpec(name="shop", type="string", nullable=True))
    ingest = core(tmp_path, msgspec.structs.replace(ORDERS, columns=wider))
    ingest.append("Payments", [payment(1, shop="s")])
    ingest.flush()
    assert ingest.events("Payments")["shop"].to_list() == [None, None, "s"]
