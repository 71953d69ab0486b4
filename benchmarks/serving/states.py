"""State directories for a worker: versions and plans made by a script, with a token, as a platform would leave them.

`tensors`   one matrix in, the model's scores out
`fields`    30 request fields as features
`narrow`    an entity and 8 request fields, of which the model reads the 8
`lookup`    the same request; the model reads 22 window features of the entity, from online state, and the 8
`padded`    a model of 500 µs a row
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from benchmarks.features.data import events_path
from benchmarks.features.online import History, physical
from benchmarks.features.view import SOURCE, VIEW
from benchmarks.serving.data import NARROW_FEATURES, Floats, names, prepare
from benchmarks.serving.files import DATA, FEATURES, MODEL, NARROW, ONNX
from flyball.define.spec import ColumnSpec, FeatureSpec, TaskSpec
from flyball.features.keys import entity_key
from flyball.features.online import OnlineReader
from flyball.features.views import CompiledView
from flyball.features.writer import OnlineWriter
from flyball.kernel.clock import ManualClock, ReplayClock
from flyball.kernel.files import read_document, write_document
from flyball.kernel.ids import digest
from flyball.kernel.layout import Layout
from flyball.serving.manifest import MANIFEST, MANIFEST_FORMAT
from flyball.serving.plan import TOTAL_WEIGHT, publish
from flyball.storage.online import LmdbStore
from flyball.worker import prepare_model

TENSORS_ON: Literal["onnx", "trees"] = "trees"  # what the model of its own tensors runs on
REQUEST = "Asked"
EVENTS, RECENT = 5_000_000, 1_800_000  # events that there are, and those of a bit more than 30 days
USER = "user"
TOKEN = "benchmark-token-of-this-directory"

Entry = tuple[str, str, Path]  # a version's reference, digest and folder


@dataclass(kw_only=True)
class State:
    """A state directory in the making. `publish` writes its plan; again for another one."""

    root: Path
    epoch: int = 0
    versions: dict[str, Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layout = Layout(self.root)
        self.layout.create()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}

    def publish(self, services: Mapping[str, tuple[Entry, Mapping[str, Any]]]) -> int:
        """Serve each service by one version, with more fields of its plan; gives the epoch."""
        self.epoch += 1
        hashed = hashlib.sha256(TOKEN.encode()).hexdigest()
        plan = {
            "epoch": self.epoch,
            "services": {name: _service(entry, more) for name, (entry, more) in services.items()},
            "versions": {ref: {"digest": found, "path": str(folder)} for (ref, found, folder), _ in services.values()},
            "tokens": {hashed: ["predict", "read"]},
        }
        publish(self.layout, plan)
        return self.epoch

    def acknowledged(self, slot: int = 0) -> int:
        """The epoch that a worker last said it serves; 0: none. Raises where it refused one."""
        try:
            said = json.loads((self.layout.acknowledgements / f"worker-{slot}.json").read_text())
        except FileNotFoundError:
            return 0
        body = said.get("body", said)
        if body["error"]:
            raise SystemExit(f"the worker refused a plan: {body['error']}")
        return int(body["epoch"])

    def tensors(self, path: Path) -> Entry:
        """The model in a file as one of its own tensors, packaged as `flyball serve FILE` does."""
        plan = prepare_model(path, self.root).plan
        ((ref, version),) = plan["versions"].items()
        self.epoch = int(plan["epoch"])
        return ref, version["digest"], Path(version["path"])

    def features(self, model: Path, features: Sequence[FeatureSpec], inputs: Sequence[str], **more: Any) -> Entry:
        """A LightGBM model of features on the tree kernel, over a request of numbers."""
        columns = [ColumnSpec(name=name, type="integer" if name == USER else "float") for name in inputs]
        text = model.read_bytes()
        body: dict[str, Any] = {
            "model": model.stem,
            "task": TaskSpec(kind="binary").to_data(),
            "rows": REQUEST,
            "features": [spec.to_data() for spec in features],
            "views": [],
            "sources": [],
            "inputs": [column.to_data() for column in columns],
            "runtime": {"kind": "trees", "format": "lightgbm", "file": "model.txt", "input": "matrix"},
            "files": {"model.txt": hashlib.sha256(text).hexdigest()},
            **more,
        }
        found = digest(body)
        folder = self.layout.artifacts / "versions" / found
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.txt").write_bytes(text)
        write_document(folder / MANIFEST, MANIFEST_FORMAT, body)
        return f"{model.stem}/1", found, folder


def tensor_model() -> Path:
    return ONNX if TENSORS_ON == "onnx" else MODEL


def all_fields(state: State, model: Path = MODEL) -> Entry:
    return state.features(model, [_field(name) for name in names()], names())


def narrow(state: State) -> Entry:
    own = names(NARROW_FEATURES)
    return state.features(NARROW, [_field(name) for name in own], [USER, *own])


def lookup(state: State) -> Entry:
    """With the online state of 1.8 M events by 50 k entities beside it, and the clock at their end."""
    own = names(NARROW_FEATURES)
    looked_up = [FeatureSpec(name=a.name, expr=["view", VIEW.name, a.name, [USER]]) for a in VIEW.aggregates]
    features = [*looked_up, *(_field(name) for name in own)]
    if len(features) != FEATURES:
        raise SystemExit(f"the lookup's model has {len(features)} features, not {FEATURES}")
    online, now = _online()
    state.layout.online.rmdir()
    state.layout.online.symlink_to(online)  # workers only read it
    ReplayClock.create(state.layout.clock, now)
    return state.features(MODEL, features, [USER, *own], views=[VIEW.to_data()], sources=[SOURCE.to_data()])


def users(n: int) -> list[int]:
    """Entities as often as they have events."""
    frame = pl.read_parquet(events_path(EVENTS), columns=[USER]).tail(RECENT)
    chosen = np.random.default_rng(11).integers(0, frame.height, n)
    found: list[int] = frame[USER].to_numpy()[chosen].tolist()
    return found


def looked_up(entities: Sequence[int]) -> Floats:
    """The view's values of entities, read from the same online state; NaN where there is none."""
    online, now = _online()
    store = LmdbStore(online, readonly=True)
    reader, view, column = OnlineReader(store), CompiledView(VIEW, SOURCE), SOURCE.column(USER)
    if [name for name, *_ in view.feature_types] != [a.name for a in VIEW.aggregates]:
        raise SystemExit("the view's values stand in another order than its aggregates")
    found = [reader.vector(view, entity_key((entity,), (column,)), now) for entity in entities]
    if not all(vector.exact for vector in found):
        raise SystemExit("the online state is not exact for its own time")
    store.close()
    return np.array([np.where(vector.valid, vector.values, np.nan) for vector in found])


def manifest_of(entry: Entry) -> dict[str, Any]:
    return read_document(entry[2] / MANIFEST, MANIFEST_FORMAT)


def _online() -> tuple[Path, int]:
    """The folder of the online state, made once, and the time of its last event."""
    frame = pl.read_parquet(events_path(EVENTS)).tail(RECENT)
    last = int(frame["at"][-1])
    folder = DATA / "online"
    if not folder.exists():
        made = folder.with_name("online.making")
        shutil.rmtree(made, ignore_errors=True)
        events = physical(frame)
        store = LmdbStore(made)
        writer = OnlineWriter(store, ManualClock(last), History(events))
        writer.load_plan([SOURCE], [])
        for start in range(0, events.height, 100_000):
            writer.apply(SOURCE.name, events[start : start + 100_000])
        writer.load_plan([SOURCE], [VIEW])
        store.close()
        made.rename(folder)
    return folder, last + 1_000_000


def _field(name: str) -> FeatureSpec:
    return FeatureSpec(name=name, expr=["col", REQUEST, name])


def _service(entry: Entry, more: Mapping[str, Any]) -> dict[str, Any]:
    ref, found, _ = entry
    route = {"version": ref, "digest": found, "weight": TOTAL_WEIGHT, "arm": "stable"}
    return {"routes": [route], "salt": ref, **more}


def fresh(folder: Path) -> State:
    prepare()
    return State(root=folder)
