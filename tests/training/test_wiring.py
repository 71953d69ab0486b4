"""Runs against the real rooms beside training: served runtimes, the tree kernel, metrics, the lake."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flyball import trainer
from flyball.define.spec import ModelSpec, ProjectSpec
from flyball.kernel.errors import FlyballError
from flyball.kernel.files import read_document
from flyball.registry.versions import FORMAT
from flyball.training.ports import RunSpec
from tests.registry.models import pipeline
from tests.registry.test_graphs import linear
from tests.training.conftest import PROJECT, TRIPS, Rows, make_rows
from tests.training.project import fake_rooms, prepare

pytest.importorskip("flyball.engines.runtimes")
pytest.importorskip("flyball.serving.trees")
pytest.importorskip("flyball.define.metrics")


def run(tmp_path: Path, function: Any) -> dict[str, Any]:
    """A run whose rooms are the real ones, but for the rows."""
    from flyball.define.metrics import metrics_of
    from flyball.engines.runtimes.onnx import score_matrix
    from flyball.serving.trees import predict_text

    spec, run_dir = prepare(tmp_path, bundle="")
    rows = make_rows(300)

    def training_rows(spec: RunSpec, model: ModelSpec, project: ProjectSpec) -> Rows:
        return rows

    using = dataclasses.replace(
        fake_rooms(spec, run_dir),
        training_rows=training_rows,
        metrics=metrics_of,
        scorer=trainer._open_version,
        trees=predict_text,
        onnx=lambda data, matrix: score_matrix(data, matrix, spec.model.task),
    )
    result = trainer.run_inline(spec, run_dir, function=function, using=using)
    return result | {"manifest": read_document(run_dir / "version" / "manifest.json", FORMAT)}


def test_lightgbm_is_served_by_the_tree_kernel(tmp_path: Path) -> None:
    def fit(data: Any, run: Any) -> Any:
        import lightgbm

        model = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(data.train.to_pandas(), data.train.y)
        return run.package(model)

    result = run(tmp_path, fit)
    assert result["runtime"] == "trees"
    assert result["manifest"]["runtime"]["max_difference"] <= 1e-12
    assert result["metrics"]["auc"] > 0.6


def test_scikit_learn_is_served_by_a_process_of_its_own(tmp_path: Path) -> None:
    def fit(data: Any, run: Any) -> Any:
        from sklearn.linear_model import LogisticRegression

        return run.package(pipeline(LogisticRegression()))

    result = run(tmp_path, fit)
    assert result["runtime"] == "process"
    assert result["metrics"]["auc"] > 0.6


def test_onnx_is_served_by_onnxruntime(tmp_path: Path) -> None:
    def fit(data: Any, run: Any) -> Any:
        return run.package(linear(3, null=0.0))

    result = run(tmp_path, fit)
    assert result["runtime"] == "onnx"
    assert result["manifest"]["runtime"]["tensors"]["inputs"][0]["shape"] == [-1, 3]


def test_a_model_that_cannot_take_nulls_is_told(tmp_path: Path) -> None:
    def fit(data: Any, run: Any) -> Any:
        return run.package(linear(3))

    with pytest.raises(FlyballError, match="not finite"):
        run(tmp_path, fit)


def test_events_are_read_as_far_as_the_horizon(tmp_path: Path) -> None:
    pytest.importorskip("flyball.storage.lake")
    pytest.importorskip("flyball.ingest.frames")
    from flyball.storage.lake import DeltaLake

    lake = DeltaLake(tmp_path / "lake")
    reader = trainer.LakeEvents(lake, PROJECT, {"Trips": 3})
    empty = reader.events("Trips", ["fare"], through_lsn=None)
    assert empty.schema == {
        "fare": pl.Float64, "_event_time": pl.Int64, "_known_at": pl.Int64, "_lsn": pl.Int64, "_key": pl.Binary
    }  # fmt: skip
    times = pl.Series([1, 2, 3, 4, 5], dtype=pl.Datetime("us", "UTC"))
    frame = pl.DataFrame(
        {"fare": np.arange(5.0), "_event_time": times, "_known_at": times, "_lsn": [1, 2, 3, 4, 5], "_key": [b"k"] * 5}
    )
    lake.append(TRIPS.name, frame, app_id="test", version=1)
    assert reader.events("Trips", ["fare"], through_lsn=None)["_lsn"].to_list() == [1, 2, 3]
    assert reader.events("Trips", ["fare"], through_lsn=2)["_event_time"].to_list() == [1, 2]
    assert reader.events("Trips", None, through_lsn=9)["payment"].to_list() == [None] * 3
