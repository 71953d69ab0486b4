"""The event log on SQLite."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from flyball.kernel.errors import ConflictError, ExhaustedError
from flyball.storage.event_log import SqliteEventLog
from tests.storage.event_log_checks import CHECKS, Open, batch, read_all


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
def test_the_sqlite_log_is_an_event_log(check: Callable[[Open], None], tmp_path: Path) -> None:
    check(lambda: SqliteEventLog(tmp_path))


def test_a_full_disk_is_said_and_nothing_is_lost_or_half_stored(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path)
    log.append([batch(0, 10, key="before")], now=1)
    pages = log._writer.execute("PRAGMA page_count").fetchone()[0]
    log._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(ExhaustedError) as caught:
        log.append([batch(10, 2, source="T"), batch(10, 5_000, key="during")], now=2)
    assert caught.value.code == "disk_full"
    assert log.last_lsn("T") == 0
    log._writer.execute("PRAGMA max_page_count = 1000000")
    assert log.answer("S", "during") is None
    log.append([batch(10, 5_000, key="during")], now=3)
    assert read_all(SqliteEventLog(tmp_path), limit=10_000)["_lsn"].to_list() == list(range(1, 5_011))


def test_a_full_disk_during_a_bulk_load_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SqliteEventLog(tmp_path)

    def full(self: pl.DataFrame, *args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(ExhaustedError, match="nothing is lost"):
        log.append([batch(0, 30_000, bulk=True)], now=1)
    assert list((tmp_path / "bulk").iterdir()) == []
    assert log.last_lsn("S") == 0


def test_bulk_files_that_no_transaction_names_are_removed_at_the_start(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path)
    log.append([batch(0, 30_000, bulk=True)], now=1)
    (tmp_path / "bulk" / "bulk_orphan.parquet").write_bytes(b"x")
    again = SqliteEventLog(tmp_path)
    assert len(list((tmp_path / "bulk").iterdir())) == 1
    assert read_all(again, limit=100_000).height == 30_000


def test_a_log_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    SqliteEventLog(tmp_path).close()
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        connection.execute("UPDATE format SET version = 99")
    connection.close()
    with pytest.raises(ConflictError, match="version 99") as caught:
        SqliteEventLog(tmp_path)
    assert caught.value.code == "newer_format"


def test_each_payload_begins_with_its_format_version_and_key_id(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path)
    log.append([batch(0, 1), batch(1, 30_000, bulk=True)], now=1)
    heads = [row[0] for row in log._reader.execute("SELECT substr(payload, 1, 8) FROM batches ORDER BY batch")]
    assert heads == [b"FBEV\x02\x00\x00\x01", b"FBEV\x02\x00\x00\x02"]
    with log._transaction():
        log._writer.execute(
            "UPDATE batches SET payload = CAST(x'46424556030000' || substr(payload, 8) AS BLOB) WHERE batch = 1"
        )
    with pytest.raises(ConflictError, match="format version 3"):
        log.read("S", after=0, limit=1)
