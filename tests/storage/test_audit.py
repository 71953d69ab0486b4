from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from flyball.define.spec import ColumnSpec, SourceSpec
from flyball.features.ports import AuditEntry, AuditPeriod, AuditState
from flyball.ingest.frames import physical_schema, to_lake
from flyball.storage.history import LakeHistory
from flyball.storage.lake import DeltaLake
from flyball.storage.metadata.database import open_database
from flyball.storage.metadata.migrations import migrate
from flyball.storage.metadata.unit import SqlMetadata

SOURCE = SourceSpec(
    name="Payments",
    event_time="time",
    key=("id",),
    columns=(
        ColumnSpec(name="id", type="integer"),
        ColumnSpec(name="card", type="string", nullable=True),
        ColumnSpec(name="amount", type="decimal", scale=2),
        ColumnSpec(name="time", type="timestamp"),
    ),
)


@pytest.fixture
def metadata(tmp_path: Path) -> SqlMetadata:
    engine = open_database(tmp_path / "metadata.sqlite")
    migrate(engine)
    return SqlMetadata(engine)


def entry(n: int, **changes: Any) -> AuditEntry:
    values: dict[str, Any] = {"id": f"p{n}", "service": "s", "version": "m/1", "at": n, "place": n / 10, "record": {}}
    return AuditEntry(**(values | changes))


def test_the_queue_gives_the_oldest_first_and_takes_each_prediction_once(metadata: SqlMetadata) -> None:
    with metadata.write() as unit:
        for n in (3, 1, 2, 1):
            unit.audit.enqueue(entry(n))
        unit.audit.enqueue(entry(9, service="other"))
    with metadata.read() as unit:
        assert unit.audit.waiting("s") == 3
        assert [e.id for e in unit.audit.oldest("s", before=3, limit=10)] == ["p1", "p2"]
        assert [e.id for e in unit.audit.oldest("s", before=9, limit=1)] == ["p1"]
    with metadata.write() as unit:
        unit.audit.dequeue(["p1", "gone"])
        assert unit.audit.drop_from("s", 0.3) == 1
        assert [e.id for e in unit.audit.oldest("s", before=9, limit=9)] == ["p2"]
        assert unit.audit.waiting("other") == 1


def test_what_is_forgotten_stands_in_no_byte_of_the_files(metadata: SqlMetadata, tmp_path: Path) -> None:
    def held() -> bool:
        return any(b"MARKER" in path.read_bytes() for path in tmp_path.iterdir())

    def example(n: int, shop: str) -> dict[str, Any]:
        return {"prediction": f"p{n}", "version": "m/1", "entity": {"shop": shop}}

    with metadata.write() as unit:
        for n, shop in enumerate(("MARKER", "s", "MARKER")):
            unit.audit.enqueue(entry(n, record={"key": {"id": n}, "inputs": {"shop": shop}}))
        unit.audit.put_state(AuditState(service="s", audited=2, examples=(example(7, "MARKER"), example(8, "s"))))
    with metadata.write() as unit:
        unit.audit.dequeue(["p2"])
    seen = []

    def hit(row: dict[str, Any]) -> bool:
        seen.append(row["id"])
        return "MARKER" in {**row["key"], **row.get("inputs", {})}.values()

    with metadata.write() as unit:
        unit.audit.forget(hit)
    assert seen == ["p0", "p1", "p7", "p8"]
    assert held()
    assert metadata.scrub()
    assert not held()
    with metadata.read() as unit:
        assert [e.id for e in unit.audit.oldest("s", before=9, limit=9)] == ["p1"]
        state = unit.audit.state("s")
    assert ([e["prediction"] for e in state.examples], state.audited) == (["p8"], 2)


def test_a_reader_keeps_the_files_from_being_scrubbed(metadata: SqlMetadata, tmp_path: Path) -> None:
    with metadata.write() as unit:
        unit.audit.enqueue(entry(1))
    with metadata.read() as unit:
        assert unit.audit.waiting("s") == 1
        other = SqlMetadata(open_database(tmp_path / "metadata.sqlite"))
        with other._engine.connect() as connection:  # which does not wait, once it is back in the pool
            connection.connection.cursor().execute("PRAGMA busy_timeout=0")
        assert not other.scrub()
    assert other.scrub()


def test_counts_of_a_period_are_added_up(metadata: SqlMetadata) -> None:
    def period(**more: Any) -> AuditPeriod:
        values: dict[str, Any] = {"service": "s", "version": "m/1", "feature": "f", "start": 5}
        return AuditPeriod(**(values | more))

    with metadata.write() as unit:
        unit.audit.add_period(period(compared=10, causes={"ttl": 1}))
        unit.audit.add_period(period(compared=5, causes={"ttl": 1, "unknown": 2}, skipped={"pii": 1}))
        unit.audit.add_period(period(version="m/2", start=9, compared=1))
    with metadata.read() as unit:
        first, second = unit.audit.periods("s")
        assert first == period(compared=15, causes={"ttl": 2, "unknown": 2}, skipped={"pii": 1})
        assert first.mismatched == 4
        assert unit.audit.periods("s", version="m/2") == [second]
        assert unit.audit.periods("s", since=6) == [second]


def test_the_state_of_a_service_is_kept(metadata: SqlMetadata) -> None:
    state = AuditState(service="s", share=0.25, audited=7, at=3, examples=({"at": 1},), effect_rows=1, effect_total=0.5)
    with metadata.write() as unit:
        assert unit.audit.state("s") == AuditState(service="s")
        unit.audit.put_state(state)
        unit.audit.put_state(state)
        assert unit.audit.state("s") == state


def rows(count: int, first: int = 1) -> pl.DataFrame:
    numbers = range(first, first + count)
    return pl.DataFrame(
        {
            "id": list(numbers),
            "card": [None if n % 3 == 0 else f"c{n % 3}" for n in numbers],
            "amount": [n * 100 + 1 for n in numbers],
            "time": [n * 10 for n in numbers],
            "_event_time": [n * 10 for n in numbers],
            "_known_at": [n * 10 + 5 for n in numbers],
            "_lsn": list(numbers),
            "_key": [bytes([n]) for n in numbers],
        },
        schema=physical_schema(SOURCE),
    )


def lake_of(folder: Path, frame: pl.DataFrame) -> DeltaLake:
    lake = DeltaLake(folder)
    types = {column.name: (column.type, column.scale) for column in SOURCE.columns}
    lake.append("Payments", to_lake(frame, types), app_id="Payments", version=1)
    return lake


def test_a_slice_is_physical_and_has_only_what_is_asked_for(tmp_path: Path) -> None:
    history = LakeHistory(lake_of(tmp_path, rows(9)), lambda: 0)
    found = history.slice(SOURCE, ["amount"], since=20, before=80, where={"card": ["c1", "pii:other"]})
    assert found.columns == ["amount", "_event_time", "_known_at", "_lsn", "_key"]
    assert found["_lsn"].to_list() == [4, 7]
    assert found["amount"].to_list() == [401, 701]
    assert found.schema["_event_time"] == pl.Int64
    by_units = history.slice(SOURCE, ["id"], since=None, before=None, where={"amount": [301], "time": [30]})
    assert by_units["id"].to_list() == [3]
    by_key = history.slice(SOURCE, ["id"], since=None, before=None, where={"_key": [bytes([2]), bytes([5])]})
    assert by_key["id"].to_list() == [2, 5]


def test_a_table_that_is_not_there_and_a_column_that_came_later_are_empty(tmp_path: Path) -> None:
    history = LakeHistory(DeltaLake(tmp_path / "none"), lambda: 0)
    found = history.slice(SOURCE, ["card", "amount"], since=0, before=9, where={"card": ["c1"]})
    assert found.is_empty()
    assert found.schema["amount"] == pl.Int64
    assert history.kept_from(SOURCE) is None
    more = msgspec.structs.replace(
        SOURCE, columns=(*SOURCE.columns, ColumnSpec(name="new", type="float", nullable=True)), corrections=True
    )
    there = LakeHistory(lake_of(tmp_path / "lake", rows(2)), lambda: 0)
    found = there.slice(more, ["new"], since=None, before=None, where={})
    assert found["new"].to_list() == [None, None]
    assert found["_deleted"].to_list() == [None, None]


def test_rows_are_gone_by_retention_or_where_the_first_ones_are_missing(tmp_path: Path) -> None:
    history = LakeHistory(lake_of(tmp_path, rows(5, first=4)), lambda: 1_000)
    assert history.kept_from(SOURCE) == 40
    assert history.kept_from(msgspec.structs.replace(SOURCE, retention=300)) == 700
    assert LakeHistory(lake_of(tmp_path / "all", rows(5)), lambda: 0).kept_from(SOURCE) is None
