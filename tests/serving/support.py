"""Version directories made by hand, and a worker without sockets."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from flyball.define.spec import ColumnSpec, FeatureSpec, SourceSpec, TaskSpec
from flyball.engines.runtimes import open_runtime
from flyball.features.online import not_built
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import FlyballError, InvalidError
from flyball.kernel.files import write_document
from flyball.kernel.ids import digest
from flyball.serving.log import PredictionReader, PredictionWriter
from flyball.serving.manifest import Manifest
from flyball.serving.plan import plan_digest
from flyball.serving.ports import FeatureBatch, Matrix, OpenRuntime, Runtime, Score, Tensors
from flyball.serving.service import Worker

NOW = 1_700_000_000_000_000
SECRET = "4111-1111-1111-1111"
COLUMNS = (
    ColumnSpec(name="amount", type="decimal", scale=2),
    ColumnSpec(name="channel", type="category", categories=("web", "shop")),
    ColumnSpec(name="card", type="string", pii=True, nullable=True),
)
FEATURES = (
    FeatureSpec(name="amount", expr=["col", "Payments", "amount"]),
    FeatureSpec(name="channel", expr=["col", "Payments", "channel"], type="category", categories=("web", "shop")),
)
SOURCE = SourceSpec(
    name="Payments",
    columns=(*COLUMNS, ColumnSpec(name="payment", type="string"), ColumnSpec(name="note", type="string")),
    event_time="at",
    key=("payment",),
)


def booster_text(seed: int = 0) -> str:
    random = np.random.default_rng(seed)
    x = np.column_stack([random.uniform(0, 100, 400), random.integers(0, 2, 400)]).astype(float)
    y = ((x[:, 0] > 50) ^ (x[:, 1] == 1) ^ (random.random(400) < 0.1)).astype(float)
    parameters = {"objective": "binary", "num_leaves": 7, "verbosity": -1, "num_threads": 1}
    text: str = lightgbm.train(parameters, lightgbm.Dataset(x, y), num_boost_round=5).model_to_string()
    return text


def write_version(root: Path, files: Mapping[str, bytes], **manifest: Any) -> tuple[str, Path]:
    """A version directory below `root`; gives its digest and folder."""
    named = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    body = {"files": named, "features": [], "views": [], "sources": [], "inputs": [], **manifest}
    found = digest(body)
    folder = root / found
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_document(folder / "manifest.json", "flyball.version", body)
    return found, folder


def samples(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def fraud_manifest(**changes: Any) -> dict[str, Any]:
    """A binary model on two features of a payment."""
    base = {
        "model": "fraud",
        "task": TaskSpec(kind="binary").to_data(),
        "rows": "Payments",
        "features": [spec.to_data() for spec in FEATURES],
        "sources": [SOURCE.to_data()],
        "inputs": [spec.to_data() for spec in COLUMNS],
        "runtime": {"kind": "trees", "format": "lightgbm", "file": "model.txt", "input": "matrix"},
    }
    return base | changes


def tree_version(root: Path, seed: int = 0, **changes: Any) -> tuple[str, Path]:
    from flyball.serving import trees

    text = booster_text(seed)
    probe = np.array([[10.0, 0.0], [90.0, 1.0], [np.nan, np.nan]])
    files = {"model.txt": text.encode(), "samples.npz": samples(inputs=probe, outputs=trees.parse(text).predict(probe))}
    return write_version(root, files, **fraud_manifest(**changes))


def plan(
    versions: Mapping[str, tuple[str, Path]],
    *,
    weights: Mapping[str, int] | None = None,
    epoch: int = 1,
    name: str = "fraud",
    tokens: Mapping[str, Sequence[str]] | None = None,
    **service: Any,
) -> dict[str, Any]:
    """A plan of one service; without weights the first version takes all."""
    shares = weights or {next(iter(versions)): 10_000}
    routes = [
        {"version": ref, "digest": versions[ref][0], "weight": weight, "arm": "canary" if i else "stable"}
        for i, (ref, weight) in enumerate(shares.items())
    ]
    body = {
        "services": {name: {"routes": routes, "salt": "s", **service}},
        "versions": {ref: {"digest": d, "path": str(path)} for ref, (d, path) in versions.items()},
        "tokens": {key: list(value) for key, value in (tokens or {}).items()},
    }
    return {"epoch": epoch, "digest": plan_digest(body), **body}


class FakeFeatures:
    """Features that are columns of the row; an amount of 13 fails, and `broken` fails everything."""

    def __init__(self) -> None:
        self.broken = False
        self.batches: list[int] = []
        self.missing = ""  # a view that is not built yet
        self.complete_through: int | None = None
        self.took: Callable[[], None] = lambda: None

    def vectors(self, manifest: Manifest, rows: Sequence[Mapping[str, Any]], at: Sequence[int]) -> FeatureBatch:
        if self.broken:
            raise RuntimeError("the store is gone")
        self.batches.append(len(rows))
        self.took()
        return self._read(manifest, rows)

    def defaults(self, manifest: Manifest, rows: Sequence[Mapping[str, Any]], at: Sequence[int]) -> FeatureBatch:
        return dataclasses.replace(self._read(manifest, rows), state="default", lsn={}, known_through={})

    def check(self, manifest: Manifest) -> None:
        if self.missing:
            raise not_built(self.missing)

    def _read(self, manifest: Manifest, rows: Sequence[Mapping[str, Any]]) -> FeatureBatch:
        matrix = np.full((len(rows), len(manifest.features)), np.nan)
        errors: dict[int, FlyballError] = {}
        for i, row in enumerate(rows):
            if not isinstance(row["amount"], float | int) or row["channel"] not in ("web", "shop"):
                errors[i] = InvalidError("a field is not of its type", code="bad_field")
                continue
            for j, spec in enumerate(manifest.features):
                value = row.get(spec.name)
                if value is not None:
                    matrix[i, j] = spec.categories.index(value) if spec.categories else float(value)
            if row.get("amount") == 13:
                errors[i] = InvalidError("the state does not reach back that far", code="too_old")
        return FeatureBatch(
            matrix=matrix,
            lsn={"Payments": 7},
            known_through={"Payments": NOW},
            complete_through=self.complete_through,
            errors=errors,
        )


class FailingRuntime:
    """Wraps a runtime; a row with the amount 66 fails its batch, and so does `always`."""

    def __init__(self, inner: Runtime) -> None:
        self.inner = inner
        self.always = False
        self.calls = 0

    def predict(self, matrix: Matrix) -> Score:
        self.calls += 1
        if self.always or (matrix[:, 0] == 66).any():
            raise RuntimeError(f"the model saw {matrix[:, 0].tolist()}")
        return self.inner.predict(matrix)

    def infer(self, tensors: Tensors) -> Tensors:
        if self.always:
            raise RuntimeError("no")
        return self.inner.infer(tensors)

    def close(self) -> None:
        self.inner.close()


class Bench:
    """A worker on a prediction log of its own."""

    def __init__(
        self, root: Path, *, runtime: OpenRuntime = open_runtime, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.features = FakeFeatures()
        self.clock = ManualClock(NOW)
        self.root = root / "predictions"
        self.log = PredictionWriter(self.root / "0")
        self.worker = Worker(
            features=self.features,
            open_runtime=runtime,
            log=self.log,
            clock=self.clock,
            pii_key=b"k" * 32,
            monotonic=monotonic,
        )

    def records(self) -> list[dict[str, Any]]:
        reader = PredictionReader(self.root)
        found: list[dict[str, Any]] = []
        for slot in reader.slots():
            for segment in reader.segments(slot):
                part = reader.read(slot, segment, 0)
                assert not part.torn
                found.extend(part.records)
        return found


def payment(amount: float = 10.0, **fields: Any) -> dict[str, Any]:
    return {"amount": amount, "channel": "web", **fields}
