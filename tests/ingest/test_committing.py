"""What the log forgets is on the disk of the lake."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from flyball.ingest.committing import changes_table, quarantine_table
from flyball.ingest.service import IngestConfig
from flyball.kernel.errors import UnavailableError
from flyball.storage import event_log as event_log_module
from flyball.storage import lake as lake_module
from flyball.storage.event_log import SqliteEventLog
from flyball.storage.lake import DeltaLake
from tests.ingest.sources import PAYMENTS, MemoryApplier, make_ingest, payment

TABLES = ("Payments", quarantine_table("Payments"), changes_table("Payments"))


@pytest.mark.parametrize("restarted", [False, True], ids=["in the same process", "in the next one"])
@pytest.mark.parametrize("table", TABLES)
def test_the_log_is_not_trimmed_before_what_the_lake_committed_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, restarted: bool
) -> None:
    applier, happened = MemoryApplier(), list[str]()
    ingest = make_ingest(tmp_path, applier=applier)
    ingest.append("Payments", [payment(1), payment(2, amount="x"), payment(3, amount="y")])
    ingest.drop("Payments", ids=["Payments:1.1"])
    sync, trim = lake_module._sync_file, SqliteEventLog.trim

    def broken(path: Path) -> None:
        if path.is_relative_to(tmp_path / "lake" / table):
            raise OSError(5, "Input/output error")
        sync(path)

    def synced(path: Path) -> None:
        happened.append(str(path.relative_to(tmp_path / "lake")))
        sync(path)

    def trimmed(self: SqliteEventLog, source: str, *, through_lsn: int, through_batch: int) -> int:
        happened.append(f"trimmed {source}")
        return trim(self, source, through_lsn=through_lsn, through_batch=through_batch)

    monkeypatch.setattr(SqliteEventLog, "trim", trimmed)
    monkeypatch.setattr(lake_module, "_sync_file", broken)
    with pytest.raises(UnavailableError, match="Input/output error"):
        ingest.flush()
    assert happened == [], "the commit is made, and the log keeps what it holds"
    if restarted:
        ingest = make_ingest(tmp_path, applier=applier)
    monkeypatch.setattr(lake_module, "_sync_file", synced)
    ingest.flush()
    newest = DeltaLake(tmp_path / "lake").table_version(table)
    before = happened[: happened.index("trimmed Payments")]
    assert f"{table}/_delta_log/{newest:020}.json" in before
    assert any(path.startswith(f"{table}/") and path.endswith(".parquet") for path in before)
    assert (DeltaLake(tmp_path / "lake").count("Payments"), ingest.status()["sources"][0]["pending_batches"]) == (1, 0)


def test_the_files_of_a_load_are_one_commit_and_one_with_a_duplicate_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log_module, "BULK_ROWS", 2)
    config = IngestConfig(chunk_rows=2, commit_rows=8)
    ingest = make_ingest(tmp_path, config=config)
    ingest.append_file("Payments", _csv(tmp_path / "a.csv", range(1, 9)))
    ingest.flush()
    lake = DeltaLake(tmp_path / "lake")
    assert lake.table_version("Payments") <= 1, "the empty table, and the four files"
    assert lake.read("Payments")["id"].to_list() == [f"p{n}" for n in range(1, 9)]
    ingest.append_file("Payments", _csv(tmp_path / "b.csv", [10, 11, 12, 1, 13, 14]))  # another load's duplicate
    before = lake.table_version("Payments")
    ingest.flush()
    assert lake.table_version("Payments") - before == 3, "what is whole before it, itself, and what is whole after it"
    assert lake.read("Payments")["id"].to_list() == [f"p{n}" for n in (*range(1, 9), *range(10, 15))]


def _csv(path: Path, numbers: Iterable[int]) -> Path:
    names = [column.name for column in PAYMENTS.columns] + [PAYMENTS.event_time]
    rows = [[str(payment(n).get(name, "")) for name in names] for n in numbers]
    path.write_text("\n".join(",".join(row) for row in [names, *rows]))
    return path
