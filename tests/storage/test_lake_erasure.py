"""Rows of the lake that are erased leave no file, no log entry and no statistic behind."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from flyball.storage.lake import DeltaLake
from flyball.storage.lake_erasure import LakeErasure
from tests.scenarios.test_erasure import holds

MARKER = "MARKER-77"


def filled(folder: Path) -> DeltaLake:
    lake = DeltaLake(folder, compact_at=3)
    for version in range(1, 5):
        frame = pl.DataFrame({"card": [MARKER, f"c{version}"], "_lsn": [version * 2 - 1, version * 2]})
        lake.append("Payments", frame, app_id="Payments", version=version * 2)
    return lake


def test_what_is_erased_is_in_no_file_and_what_stays_is_read_as_before(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    erasure = LakeErasure(lake)
    rows = erasure.matching("Payments", "card", lambda values: values == MARKER)
    assert rows["_lsn"].to_list() == [1, 3, 5, 7]
    erasure.erase("Payments", "_lsn", rows["_lsn"].to_list())
    erasure.erase("Payments", "_lsn", rows["_lsn"].to_list())
    assert holds(tmp_path, MARKER) == []
    assert lake.read("Payments")["_lsn"].to_list() == [2, 4, 6, 8]
    assert lake.version("Payments", "Payments") == 8
    assert not lake.append("Payments", rows, app_id="Payments", version=8)  # it knows what was committed
    assert lake.append("Payments", pl.DataFrame({"card": ["d"], "_lsn": [9]}), app_id="Payments", version=9)
    assert DeltaLake(tmp_path).read("Payments")["_lsn"].to_list() == [2, 4, 6, 8, 9]


def test_a_crash_before_the_files_went_is_made_good_by_erasing_nothing(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    lake._require("Payments").delete("_lsn IN (1, 3, 5, 7)")
    assert holds(tmp_path, MARKER)
    LakeErasure(lake).erase("Payments", "_lsn", [])
    assert holds(tmp_path, MARKER) == []


def test_columns_are_blanked_and_tables_that_are_not_there_are_passed_by(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    erasure = LakeErasure(lake, alone=False)
    erasure.erase("nothing", "_lsn", [1])
    erasure.blank("nothing", "id", ["a"], {"inputs": "'{}'"})
    assert erasure.find("nothing", ["inputs"], lambda row: True) == []
    frame = pl.DataFrame(
        {"id": ["it's", "b"], "version": ["m/1", "m/1"], "inputs": [f'{{"card": "{MARKER}"}}', '{"card": "c"}']}
    )
    lake.append("predictions", frame, app_id="c", version=1)
    found = erasure.find("predictions", ["inputs"], lambda row: row["inputs"]["card"] == MARKER)
    assert found == ["it's"]
    erasure.blank("predictions", "id", found, {"inputs": "'{}'"})
    assert sorted(lake.read("predictions")["inputs"].to_list()) == ['{"card": "c"}', "{}"]
    assert holds(tmp_path, MARKER) == []
