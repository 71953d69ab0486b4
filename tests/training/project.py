"""A user's training code as a bundle, and rooms that read no lake."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flyball.define.spec import ModelSpec, ProjectSpec, TaskSpec
from flyball.kernel.files import write_document
from flyball.kernel.ids import digest
from flyball.loop.execution import BatchRows, Rooms, Scorer
from flyball.registry import versions
from flyball.storage.artifacts import LocalArtifacts
from flyball.training.ports import SPEC_FORMAT, Horizon, Matrix, RunSpec, Score
from tests.registry.models import LightgbmKernel, lightgbm_text
from tests.training.conftest import MODEL, PROJECT, Rows, make_rows
from tests.training.test_bundle import zipped

CODE = """
import os
import lightgbm
import numpy as np

def tip(data, run):
    print("training on", len(data.train), "rows with", os.environ.get("DB_PASSWORD", "no password"))
    params = {"objective": "binary", "verbose": -1, "num_leaves": 7, "seed": run.seed, "num_threads": 1,
              "deterministic": True}
    matrix = lightgbm.Dataset(data.train.X, data.train.y, feature_name=list(data.features),
                              categorical_feature=list(data.categorical))
    booster = lightgbm.train(params, matrix, num_boost_round=run.params.get("rounds", 10))
    run.progress(1, 1, "done")
    run.log({"noise": float(np.random.random())}, step=1)
    run.artifact("notes.txt", "leaves")
    return run.package(booster, note="by hand")

def broken(data, run):
    return inner(data)

def inner(data):
    raise ValueError("no such thing as " + os.environ.get("DB_PASSWORD", "") + str(len(data.train)))

def forgets(data, run):
    return 7

def killed(data, run):
    marker = run.params["marker"]
    if not os.path.exists(marker):
        open(marker, "w").close()
        print("about to die", flush=True)
        os.kill(os.getpid(), 9)
    return tip(data, run)
"""


class LightGbmScorer:
    """Stands in for the served runtime: the text of the version, through LightGBM."""

    def __init__(self, text: str) -> None:
        self._text = text

    def predict(self, matrix: Matrix) -> Score:
        return lightgbm_text(self._text, matrix)


@contextlib.contextmanager
def open_version(folder: Path, digest: str) -> Iterator[Scorer]:
    versions.read(folder, expected=digest)
    yield LightGbmScorer((folder / "model.txt").read_text())


def metrics(task: TaskSpec, y: Any, score: Any) -> dict[str, float | None]:
    order = np.argsort(np.argsort(score))
    positive = y == 1
    pairs = positive.sum() * (~positive).sum()
    return {"auc": float((order[positive].sum() - positive.sum() * (positive.sum() - 1) / 2) / pairs)}


class Table:
    """An idempotent table in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, table: str, frame: pl.DataFrame, app_id: str, version: int) -> None:
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        known.setdefault(f"{table} {app_id} {version}", frame.drop("_key").to_dicts())
        self.path.write_text(json.dumps(known))


def fake_rooms(spec: RunSpec, run_dir: Path) -> Rooms:
    rows = make_rows(300, seed=1)

    def training_rows(spec: RunSpec, model: ModelSpec, project: ProjectSpec) -> Rows:
        names = [feature.name for feature in model.features]
        positions = [rows.features.index(name) for name in names]
        return Rows(rows.frame, rows.X[:, positions], rows.y, rows.t, tuple(names))

    def batch_rows(spec: RunSpec, model: ModelSpec, project: ProjectSpec) -> BatchRows:
        lsn = np.arange(1, len(rows.y) + 1)
        frame = pl.DataFrame({"_key": [b"k"] * len(lsn), "_event_time": rows.t, "_lsn": lsn})
        through = spec.horizon["Trips"].lsn
        keep = (lsn > spec.after) & (lsn <= through)
        return BatchRows(X=rows.X[keep], frame=frame.filter(keep))

    return Rooms(
        training_rows=training_rows,
        batch_rows=batch_rows,
        metrics=metrics,
        scorer=open_version,
        trees=LightgbmKernel,
        artifact=LocalArtifacts(run_dir.parent.parent / spec.artifacts).get,
        append=Table(run_dir.parent.parent / "table.json").append,
    )


def prepare(root: Path, run: str = "run_1", function: str = "tip", **options: Any) -> tuple[RunSpec, Path]:
    """A run directory with its spec, and the bundle among the artifacts of the state directory `root`."""
    data = zipped({"taxi.py": CODE})
    bundle = LocalArtifacts(root / "artifacts").put(data)
    assert bundle == digest(data)
    model = ModelSpec(**{**{f: getattr(MODEL, f) for f in MODEL.__struct_fields__}, "function": function})
    options = {"horizon": {"Trips": Horizon(lsn=300, version=1, rows=300)}, "bundle": bundle} | options
    spec = RunSpec(run=run, model=model, project=PROJECT, at=10**12, **options)
    run_dir = root / "runs" / run
    run_dir.mkdir(parents=True)
    write_document(run_dir / "spec.json", SPEC_FORMAT, spec.to_data())
    return spec, run_dir
