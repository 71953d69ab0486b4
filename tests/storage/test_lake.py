"""The lake on Delta."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from flyball.kernel.errors import ExhaustedError, NotFoundError, UnavailableError
from flyball.storage import lake as lake_module
from flyball.storage.lake import DeltaLake
from tests.storage.lake_checks import CHECKS, Open, rows


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
def test_the_delta_lake_is_a_lake(check: Callable[[Open], None], tmp_path: Path) -> None:
    check(lambda: DeltaLake(tmp_path))


def test_others_read_friendly_types(tmp_path: Path) -> None:
    DeltaLake(tmp_path).append("S", rows(1), app_id="S", version=1)
    fields = {field.name: str(field.type) for field in DeltaTable(str(tmp_path / "S")).schema().fields}
    assert fields["fare"] == 'PrimitiveType("decimal(18,2)")'
    assert fields["_event_time"] == 'PrimitiveType("timestamp")'


def test_many_small_files_become_one_and_the_versions_survive(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path, compact_at=5)
    for lsn in range(1, 13):
        lake.append("S", rows(lsn), app_id="S", version=lsn)
    assert lake.files("S") < 5
    assert lake.read("S")["_lsn"].to_list() == list(range(1, 13))
    again = DeltaLake(tmp_path)
    assert (again.version("S", "S"), again.count("S")) == (12, 12)
    assert not again.append("S", rows(12), app_id="S", version=12)


def test_versions_survive_a_checkpoint_of_the_table(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    lake.append("S", rows(1), app_id="S", version=1)
    for version in range(1, 4):
        lake.append("S", rows(version + 1), app_id="other", version=version)
    DeltaTable(str(tmp_path / "S")).create_checkpoint()
    assert DeltaLake(tmp_path).version("S", "S") == 1


def test_a_full_disk_is_said_and_the_append_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = DeltaLake(tmp_path)
    with monkeypatch.context() as patched:

        def full(*args: object, **more: object) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(lake_module, "write_deltalake", full)
        with pytest.raises(ExhaustedError, match="still in the event log") as caught:
            lake.append("S", rows(1), app_id="S", version=1)
    assert caught.value.code == "disk_full"
    assert lake.append("S", rows(1), app_id="S", version=1)


def test_a_table_cannot_lie_outside_the_lake(tmp_path: Path) -> None:
    for name in ("../S", "", ".hidden", "a/b"):
        with pytest.raises(NotFoundError):
            DeltaLake(tmp_path).append(name, pl.DataFrame({"a": [1]}), app_id="a", version=1)


def test_the_lake_lists_its_tables(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path / "lake")
    assert lake.tables() == []
    lake.append("B", rows(1), app_id="a", version=1)
    lake.append("A", rows(1), app_id="a", version=1)
    assert lake.tables() == ["A", "B"]


def test_a_commit_whose_writer_died_before_it_was_on_disk_is_synced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = DeltaLake(tmp_path)
    lake.append("S", rows(1), app_id="S", version=1)

    def dies(path: Path) -> None:
        raise OSError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(lake_module, "_sync_file", dies)
        with pytest.raises(UnavailableError):
            lake.append("S", rows(2), app_id="S", version=2)
    synced: list[str] = []
    monkeypatch.setattr(lake_module, "_sync_file", lambda path: synced.append(path.name))
    for again in (lake, DeltaLake(tmp_path)):
        synced.clear()
        assert not again.append("S", rows(2), app_id="S", version=2)
        assert f"{1:020}.json" in synced
        assert any(name.endswith(".parquet") for name in synced)


def test_a_table_that_grows_by_small_commits_stays_cheap_to_open_and_to_read(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path, compact_at=8)
    commits, each = 150, 20
    for number in range(commits):
        first = number * each + 1
        lake.append("S", rows(*range(first, first + each)), app_id="S", version=first + each - 1)
    lake.append("Compacted", lake.scan("S").collect(), app_id="S", version=1)
    size = {name: sum(sizes(tmp_path / name)) for name in ("S", "Compacted")}
    assert lake.files("S") <= 10
    assert size["S"] <= 2 * size["Compacted"]
    narrow = pl.DataFrame(DeltaTable(str(tmp_path / "S")).get_add_actions(flatten=True))
    touched = narrow.filter((pl.col("min._lsn") <= 1_510) & (pl.col("max._lsn") >= 1_500))
    assert touched.height <= 2, "the ranges of the files do not overlap"
    log = tmp_path / "S" / "_delta_log"
    newest = json.loads((log / "_last_checkpoint").read_text())["version"]
    assert lake.table_version("S") - newest < lake_module.CHECKPOINT_EVERY
    assert (log / f"{newest:020}.checkpoint.parquet").exists()
    fresh = DeltaLake(tmp_path)
    assert (fresh.count("S"), fresh.version("S", "S")) == (commits * each, commits * each)
    assert fresh.read("S")["_lsn"].to_list() == list(range(1, commits * each + 1))


def test_files_that_were_merged_stay_for_a_day_and_go_then_by_themselves(tmp_path: Path) -> None:
    now = [0.0]
    lake = DeltaLake(tmp_path, compact_at=4, monotonic=lambda: now[0])
    for number in range(1, 7):
        lake.append("S", rows(number), app_id="S", version=number)
    pinned, there = lake.table_version("S"), len(sizes_on_disk(tmp_path / "S"))
    assert there == 7
    for number in range(7, 10):
        lake.append("S", rows(number), app_id="S", version=number)
    assert len(pl.scan_delta(DeltaTable(str(tmp_path / "S"), version=pinned)).collect()) == 6
    eager = DeltaLake(tmp_path, compact_at=4, keep_hours=0, monotonic=lambda: now[0])
    eager.append("S", rows(10), app_id="S", version=10)
    assert len(sizes_on_disk(tmp_path / "S")) == eager.files("S"), "the first append of a process looks"
    for number in range(11, 16):
        eager.append("S", rows(number), app_id="S", version=number)
    assert len(sizes_on_disk(tmp_path / "S")) > eager.files("S")
    now[0] += lake_module.VACUUM_SECONDS
    eager.append("S", rows(16), app_id="S", version=16)
    assert len(sizes_on_disk(tmp_path / "S")) == eager.files("S"), "and another one once in an hour"
    assert DeltaLake(tmp_path).read("S")["_lsn"].to_list() == list(range(1, 17))


def sizes(table: Path) -> list[int]:
    return list(DeltaTable(str(table)).get_add_actions(flatten=True).column("size_bytes").to_pylist())


def sizes_on_disk(table: Path) -> list[int]:
    return [path.stat().st_size for path in table.glob("*.parquet")]
