"""Predictions and labels, read from tables in a real lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from flyball.define.spec import ColumnSpec, SourceSpec
from flyball.kernel.clock import ManualClock
from flyball.kernel.times import SECOND
from flyball.loop.collect import Collector
from flyball.loop.records import TABLE, frame
from flyball.registry import versions
from flyball.serving.log import PredictionReader, PredictionWriter
from flyball.storage.lake import DeltaLake
from flyball.storage.metadata.database import open_database
from flyball.storage.metadata.migrations import migrate
from flyball.storage.metadata.unit import SqlMetadata
from flyball.storage.predictions import LakeLabels, LakePredictions, LakeServed, evaluate_events
from tests.loop.fakes import record

TRIPS = SourceSpec(
    name="Trips",
    columns=(ColumnSpec(name="fare", type="decimal", scale=2), ColumnSpec(name="tips", type="decimal", scale=2)),
    event_time="at",
)


def at(n: int, **changes: Any) -> dict[str, Any]:
    return record(n, at=n * SECOND, output={"prediction": True, "score": n / 10}, **changes)


def test_predictions_of_a_service_and_a_time_are_read_with_their_scores(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    reader = LakePredictions(lake)
    assert reader.between("tip", 0, 9).is_empty()
    assert reader.find("pred_1") is None
    rows = [at(1), at(2, service="other"), at(3, rung="default"), at(4, error={"code": "x"}, rung="error"), at(5)]
    lake.append(TABLE, frame(rows), app_id="c", version=1)
    found = reader.between("tip", 1 * SECOND, 6 * SECOND)
    assert found.select("id", "at", "score").rows() == [("pred_1", SECOND, 0.1), ("pred_5", 5 * SECOND, 0.5)]
    assert reader.between("tip", 1 * SECOND, 5 * SECOND)["id"].to_list() == ["pred_1"]
    one = reader.find("pred_4")
    assert one is not None
    assert (one["at"], one["error"], one["key"]) == (4 * SECOND, {"code": "x"}, {"id": "4"})


def test_what_a_models_versions_answered_is_read_with_their_manifests(tmp_path: Path) -> None:
    sealed = versions.write({"model": "tip", "rows": "Trips"}, {}, tmp_path / "new")
    versions.install(tmp_path / "new", tmp_path / "versions")
    lake = DeltaLake(tmp_path / "lake")
    reader = LakeServed(lake, tmp_path / "versions", {"tip/1": sealed.digest, "tip/2": "0" * 64})
    assert reader.served("tip").is_empty()
    rows = [at(2, version="tip/2"), at(1), at(3, version="tips/1"), at(4, rung="default"), at(5, features=None)]
    lake.append(TABLE, frame(rows), app_id="c", version=1)
    found = reader.served("tip")
    assert found["version"].to_list() == ["tip/1", "tip/2"]
    assert found.schema == LakeServed(DeltaLake(tmp_path / "empty"), tmp_path, {}).served("tip").schema
    manifest = reader.manifest("tip/1")
    assert manifest is not None
    assert manifest["rows"] == "Trips"
    assert reader.manifest("tip/2") is None  # its directory is gone
    assert reader.manifest("tip/3") is None


def test_scores_of_classes_and_of_regressions_are_read(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    classes = {"prediction": "b", "score": 0.7, "scores": {"a": 0.3, "b": 0.7}}
    lake.append(TABLE, frame([record(1, output=classes)]), app_id="c", version=1)
    lake.append(TABLE, frame([record(2, service="eta", output={"prediction": 12.5})]), app_id="c", version=2)
    reader = LakePredictions(lake)
    assert reader.between("tip", 0, SECOND)["score"].to_list() == [[0.3, 0.7]]
    assert reader.between("eta", 0, SECOND)["score"].to_list() == [12.5]


def test_labels_are_read_physical_and_evaluated(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    reader = LakeLabels(lake)
    assert reader.events("Trips", ["fare"], 0, 9).is_empty()
    assert reader.feedback(0).is_empty()
    time = pl.Datetime("us", "UTC")
    trips = pl.DataFrame(
        {"fare": [1000, 1000, None], "tips": [300, 100, 5], "_event_time": [1, 2, 3], "_known_at": [1, 2, 3]}
    ).with_columns(
        pl.col("fare", "tips").cast(pl.Decimal(18, 2)) / 100,
        pl.col("_event_time", "_known_at").cast(time),
        _lsn=pl.Series([1, 2, 3]),
    )
    lake.append("Trips", trips.cast({"fare": pl.Decimal(18, 2), "tips": pl.Decimal(18, 2)}), app_id="i", version=1)
    events = reader.events("Trips", ["fare", "tips"], 1, 4)
    assert events["fare"].to_list() == [1000, 1000, None]
    above = ["gt", ["col", "Trips", "tips"], ["mul", ["lit", 0.2], ["col", "Trips", "fare"]]]
    assert evaluate_events(above, TRIPS, events) == [True, False, None]
    feedback = pl.DataFrame({"prediction_id": ["p_1"], "label": [1.0], "_event_time": [5], "_lsn": [1]})
    lake.append("flyball_feedback", feedback.cast({"_event_time": time}), app_id="i", version=1)
    assert reader.feedback(5).rows() == [("p_1", 1.0)]
    assert reader.feedback(6).is_empty()


def test_a_workers_log_reaches_the_lake_through_a_torn_tail_and_a_restart(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "metadata.sqlite")
    migrate(engine)
    lake, folder = DeltaLake(tmp_path / "lake"), tmp_path / "predictions"
    collector = Collector(SqlMetadata(engine), PredictionReader(folder), lake, ManualClock(1))
    writer = PredictionWriter(folder / "0")
    writer.write([at(1), at(2)])
    assert collector.tick().rows == 2
    writer.write([at(3)])
    with (folder / "0" / "00000001.log").open("ab") as file:
        file.write(b"\x40\x00\x00\x00half")  # SIGKILL in the middle of a record
    assert collector.tick().rows == 1
    writer.close()
    again = PredictionWriter(folder / "0")
    again.write([at(4)])
    done = collector.tick()
    assert (done.rows, done.removed) == (1, 1)
    again.close()
    assert sorted(lake.read(TABLE, ["id"])["id"].to_list()) == [f"pred_{n}" for n in (1, 2, 3, 4)]
