"""Runs against the real rooms beside training: served runtimes, the tree kernel, metrics, the lake."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from flyball import trainer
from flyball.define.spec import (
    AggregateSpec,
    BatchSpec,
    ColumnSpec,
    FeatureSpec,
    LabelSpec,
    ModelSpec,
    ProjectSpec,
    SourceSpec,
    TaskSpec,
    ViewSpec,
)
from flyball.engines.local import LocalEngine
from flyball.kernel.errors import FlyballError
from flyball.kernel.files import read_document, write_document
from flyball.kernel.times import DAY, HOUR, SECOND
from flyball.registry import versions
from flyball.registry.versions import FORMAT
from flyball.storage.artifacts import LocalArtifacts
from flyball.storage.events import LakeEvents
from flyball.storage.lake import DeltaLake
from flyball.training.ports import RESULT_FORMAT, SPEC_FORMAT, SPOOL, Horizon, RunSpec
from tests.registry.models import pipeline
from tests.registry.test_graphs import linear
from tests.training.conftest import MODEL, PROJECT, TRIPS, Rows, make_rows
from tests.training.project import CODE, fake_rooms, prepare
from tests.training.test_bundle import zipped
from tests.training.test_trainer import finish

pytest.importorskip("flyball.engines.runtimes")
pytest.importorskip("flyball.serving.trees")
pytest.importorskip("flyball.define.metrics")


def run(tmp_path: Path, function: Any) -> dict[str, Any]:
    """A run whose rooms are the real ones, but for the rows."""
    from flyball.define.metrics import metrics_of
    from flyball.engines.runtimes.onnx import score_matrix
    from flyball.serving.trees import open_model

    spec, run_dir = prepare(tmp_path, bundle="")
    rows = make_rows(300)

    def training_rows(spec: RunSpec, model: ModelSpec, project: ProjectSpec) -> Rows:
        return rows

    using = dataclasses.replace(
        fake_rooms(spec, run_dir),
        training_rows=training_rows,
        metrics=metrics_of,
        scorer=trainer._open_version,
        trees=open_model,
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
    lake = DeltaLake(tmp_path / "lake")
    reader = LakeEvents(lake, PROJECT, {"Trips": 3})
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


def real_project() -> ProjectSpec:
    drivers = ViewSpec(
        name="Drivers",
        kind="window",
        source="Trips",
        entity=("driver",),
        aggregates=(
            AggregateSpec(name="fare_mean", op="mean", value=["col", "Trips", "fare"], window=7 * DAY, hop=HOUR),
        ),
    )
    model = ModelSpec(
        name="tip",
        task=TaskSpec(kind="binary"),
        rows="Trips",
        label=LabelSpec(expr=["gt", ["col", "Trips", "tip"], ["lit", 2.0]]),
        features=(
            FeatureSpec(name="fare", expr=["col", "Trips", "fare"]),
            MODEL.features[1],
            FeatureSpec(name="usual", expr=["view", "Drivers", "fare_mean", ["driver"]]),
        ),
        module="taxi",
        function="tip",
    )
    tip = ColumnSpec(name="tip", type="float")
    trips = msgspec.structs.replace(TRIPS, columns=(*TRIPS.columns, tip))
    return ProjectSpec(name="taxi", sources=(trips,), views=(drivers,), models=(model,))


def events(count: int) -> pl.DataFrame:
    """Drivers with habits of their own: the tip depends on the driver's usual fare."""
    random = np.random.default_rng(0)
    driver = random.integers(0, 8, count)
    t = np.arange(count) * 3_600_000_000
    fare = 5 + driver * 3 + random.gamma(2.0, 1.0, count)
    time = pl.Series(t).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "driver": [f"d{d}" for d in driver],
            "fare": fare,
            "payment": random.choice(["cash", "card", "other"], count),
            "time": time,
            "tip": np.where(driver > 3, 3.0, 1.0) + random.normal(0, 1, count),
            "_event_time": time,
            "_known_at": time,
            "_lsn": np.arange(1, count + 1),
            "_key": [b"%016d" % n for n in range(count)],
        }
    )


def test_events_that_do_not_fit_are_written_into_the_run_s_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flyball.features import training_set

    found: list[Path] = []

    def watched(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            found.append(options["folder"])
            return function(*args, **options)

        return call

    monkeypatch.setattr(training_set, "build", watched(training_set.build))
    monkeypatch.setattr(training_set, "features_of", watched(training_set.features_of))
    project, run_dir = real_project(), tmp_path / "runs" / "run_1"
    DeltaLake(tmp_path / "lake").append("Trips", events(40), app_id="test", version=1)
    batch = BatchSpec(name="daily", model="tip", rows="Trips", every=1, output="scores")
    spec = RunSpec(
        run="run_1",
        model=project.models[0],
        project=project,
        at=10**15,
        batch=batch,
        horizon={"Trips": Horizon(lsn=40, version=1, rows=40)},
    )
    using = trainer.rooms(spec, run_dir)
    assert len(using.training_rows(spec, spec.model, project).y) == 40
    assert len(using.batch_rows(spec, spec.model, project).frame) == 40
    assert found == [run_dir / SPOOL] * 2


@pytest.mark.slow
def test_a_run_from_the_lake_and_a_batch_with_its_version(tmp_path: Path) -> None:
    project = real_project()
    lake = DeltaLake(tmp_path / "lake")
    lake.append("Trips", events(400), app_id="test", version=1)
    horizon = {"Trips": Horizon(lsn=300, version=1, rows=300)}
    bundle = LocalArtifacts(tmp_path / "artifacts").put(zipped({"taxi.py": CODE}))

    def launch(**options: Any) -> dict[str, Any]:
        spec = RunSpec(model=project.models[0], project=project, bundle=bundle, horizon=horizon, at=10**15, **options)
        run_dir = tmp_path / "runs" / spec.run
        run_dir.mkdir(parents=True)
        write_document(run_dir / "spec.json", SPEC_FORMAT, spec.to_data())
        engine = LocalEngine(environment={"PYTHONPATH": str(Path(trainer.__file__).parents[1])})
        poll = finish(engine, engine.launch(run_dir))
        assert poll.code == 0, (run_dir / "stderr.log").read_text()
        return read_document(run_dir / "result.json", RESULT_FORMAT)

    trained = launch(run="run_1", params={"baseline": "without_windows"})
    assert trained["rows"] == 300
    assert trained["runtime"] == "trees"
    assert trained["metrics"]["auc"] > 0.8
    installed = versions.install(tmp_path / "runs" / "run_1" / "version", tmp_path / "artifacts" / "versions")
    found = installed.manifest
    assert [view["name"] for view in found["views"]] == ["Drivers"]
    assert [column["name"] for column in found["inputs"]] == ["driver", "fare", "payment"]
    batch = BatchSpec(name="daily", model="tip", rows="Trips", every=1, output="scores")
    scored = launch(run="run_2", kind="batch", batch=batch, version=trained["digest"], after=250)
    assert (scored["rows"], scored["through"]) == (50, 300)
    assert lake.read("scores", ["_lsn"])["_lsn"].to_list() == list(range(251, 301))
    champion = launch(run="run_3", champion=trained["digest"])
    assert champion["evaluation"]["champion"]["metrics"] == trained["metrics"]


AMOUNTS = SourceSpec(
    name="Amounts",
    event_time="time",
    columns=(ColumnSpec(name="amount", type="float"), ColumnSpec(name="note", type="string", nullable=True)),
)


def amounts(*events: tuple[int, float | None, bool]) -> pl.DataFrame:
    """Events of (key, amount, deleted), one a second; LSNs from 1."""
    numbers = list(range(1, len(events) + 1))
    time = (pl.Series(numbers) * SECOND).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "amount": pl.Series([amount for _, amount, _ in events], dtype=pl.Float64),
            "note": ["x"] * len(events),
            "_event_time": time,
            "_known_at": time,
            "_lsn": numbers,
            "_key": [b"%016d" % key for key, _, _ in events],
            "_deleted": [deleted for _, _, deleted in events],
        }
    )


def scored(tmp_path: Path, source: SourceSpec, events: pl.DataFrame, after: int) -> list[tuple[int, float]]:
    """LSN and amount of the rows that a batch would score, and that it reads no column of what was scored before."""
    lake = DeltaLake(tmp_path / "lake")
    lake.append("Amounts", events, app_id="Amounts", version=len(events))
    model = ModelSpec(
        name="m",
        task=TaskSpec(kind="regression"),
        rows="Amounts",
        features=(FeatureSpec(name="amount", expr=["col", "Amounts", "amount"]),),
    )
    project = ProjectSpec(name="p", sources=(source,), models=(model,))
    batch = BatchSpec(name="b", model="m", rows="Amounts", every=1, output="scores")
    spec = RunSpec(run="r", kind="batch", model=model, project=project, at=DAY, batch=batch, after=after)
    reader = LakeEvents(ReadColumns(lake, after), project, {}, batch=2)
    found = trainer._batch_rows(spec, model, project, reader, {}, tmp_path / "spool")
    return list(zip(found.frame["_lsn"].to_list(), found.X[:, 0].tolist(), strict=True))


class ReadColumns:
    """A lake that refuses columns of rows at or below an LSN, and `note` of any."""

    def __init__(self, lake: DeltaLake, after: int) -> None:
        self._lake, self._after = lake, after
        self.types, self.version = lake.types, lake.version

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        *,
        after_lsn: int | None = None,
        through_lsn: int | None = None,
    ) -> pl.DataFrame:
        assert columns is not None
        assert "note" not in columns
        assert "amount" not in columns or (after_lsn or 0) >= self._after
        return self._lake.read(table, columns, after_lsn=after_lsn, through_lsn=through_lsn)


def test_a_batch_scores_rows_as_they_were_corrected_and_none_that_were_deleted(tmp_path: Path) -> None:
    source = msgspec.structs.replace(AMOUNTS, corrections=True, key=("note",))
    events = amounts(
        (1, 1.0, False),
        (2, 2.0, False),
        (3, 3.0, False),
        (4, 4.0, False),  # scored so far
        (5, 5.0, False),  # corrected before it was scored
        (6, 6.0, False),  # deleted before it was scored
        (5, 50.0, False),
        (6, None, True),
        (1, 10.0, False),  # corrected after it was scored
        (2, None, True),  # deleted after it was scored
        (7, None, True),  # deleted before it came
    )
    assert scored(tmp_path, source, events, after=4) == [(7, 50.0), (9, 10.0)]


def test_a_batch_scores_a_row_that_comes_twice_once(tmp_path: Path) -> None:
    events = amounts((1, 1.0, False), (2, 2.0, False), (1, 10.0, False), (3, 3.0, False), (3, 30.0, False))
    assert scored(tmp_path, AMOUNTS, events.drop("_deleted"), after=2) == [(4, 3.0)]


def test_the_first_batch_scores_all_rows(tmp_path: Path) -> None:
    events = amounts((1, 1.0, False), (2, 2.0, False), (1, 10.0, False))
    assert scored(tmp_path, AMOUNTS, events.drop("_deleted"), after=0) == [(1, 1.0), (2, 2.0)]
