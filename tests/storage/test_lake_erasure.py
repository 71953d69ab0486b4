"""Rows of the lake that are erased leave no file, no log entry and no statistic behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import polars as pl
import pytest

from flyball.kernel.errors import UnavailableError
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


def test_the_process_after_an_erasure_appends_and_erases(tmp_path: Path) -> None:
    LakeErasure(filled(tmp_path)).erase("Payments", "_lsn", [1, 3])
    again = DeltaLake(tmp_path)
    assert again.append("Payments", pl.DataFrame({"card": ["d"], "_lsn": [9]}), app_id="Payments", version=9)
    LakeErasure(DeltaLake(tmp_path)).erase("Payments", "_lsn", [5])
    again = DeltaLake(tmp_path)
    assert not again.append("Payments", pl.DataFrame({"card": ["d"], "_lsn": [9]}), app_id="Payments", version=9)
    LakeErasure(again).erase("Payments", "_lsn", [7])
    assert again.read("Payments")["_lsn"].to_list() == [2, 4, 6, 8, 9]


def test_a_process_that_stayed_goes_on_after_another_one_wrote_merged_and_erased(tmp_path: Path) -> None:
    stayed = filled(tmp_path)
    LakeErasure(stayed).erase("Payments", "_lsn", [1])
    other = DeltaLake(tmp_path, compact_at=2, keep_hours=0)
    for lsn in range(9, 15):
        other.append("Payments", pl.DataFrame({"card": ["d"], "_lsn": [lsn]}), app_id="Payments", version=lsn)
        other.vacuum("Payments")
    row = pl.DataFrame({"card": ["e"], "_lsn": [15]})
    assert stayed.append("Payments", row, app_id="Payments", version=15), "files of commits since were merged and went"
    LakeErasure(DeltaLake(tmp_path)).erase("Payments", "_lsn", [3])
    LakeErasure(stayed).erase("Payments", "_lsn", [5])
    assert stayed.read("Payments")["_lsn"].to_list() == [2, 4, 6, 7, *range(8, 16)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of descriptors")
def test_the_checkpoint_is_on_the_disk_before_the_commits_that_it_stands_for_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, happened = filled(tmp_path), list[str]()
    fsync, unlink = os.fsync, Path.unlink

    def synced(fd: int) -> None:
        happened.append(f"synced {Path(f'/proc/self/fd/{fd}').readlink().name}")
        fsync(fd)

    def removed(path: Path, missing_ok: bool = False) -> None:
        happened.append(f"removed {path.name}")
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", synced)
        patched.setattr(Path, "unlink", removed)
        LakeErasure(lake).erase("Payments", "_lsn", [1])
    newest = lake.table_version("Payments")
    first = happened.index(f"removed {0:020}.json")
    for name in (f"{newest:020}.checkpoint.parquet", "_last_checkpoint", "_delta_log"):
        assert f"synced {name}" in happened[:first]
    assert happened.index(f"synced {newest:020}.json") < first


def test_an_erasure_goes_on_after_one_whose_commit_never_reached_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = filled(tmp_path)

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        with pytest.raises(UnavailableError):
            lake.append("Payments", pl.DataFrame({"card": [MARKER], "_lsn": [9]}), app_id="Payments", version=9)
        with pytest.raises(OSError, match="Input/output error"):
            LakeErasure(lake).erase("Payments", "_lsn", [1, 3, 5, 7, 9])
    LakeErasure(lake).erase("Payments", "_lsn", [])
    assert holds(tmp_path, MARKER) == []
    assert DeltaLake(tmp_path).read("Payments")["_lsn"].to_list() == [2, 4, 6, 8]


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
