"""Training sets: rows, the features that could be known at each row's time, and labels that are certain."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from flyball.define.spec import FeatureSpec, ModelSpec, ProjectSpec, SourceSpec
from flyball.features.accumulator import Floats, Words
from flyball.features.assemble import (
    column_leaves,
    feature_vectors,
    leaf_requirements,
    role_keys,
    stack,
    view_leaves,
)
from flyball.features.frames import once, readable, vectors, words
from flyball.features.labels import Labels, labels_of
from flyball.features.offline import sweep
from flyball.features.ports import EventReader
from flyball.features.vector import LeafKey, Vector
from flyball.features.views import CompiledView
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import canonical

AsOf = Literal["known", "event"]


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """`n` rows in time order.

    Args:
        frame: the rows' columns as people read them, then features and `label` by name (a feature takes the place of a
            column of its name), `_event_time`, `_lsn` and `_key`.
        X, y: `(n, features)` and `(n,)` float64; NaN for null, positions for categories and classes, 0 and 1 for
            conditions.
        t: `(n,)` microseconds. keys: the events' keys.
        categorical, categories: features that are categories, and their values by code.
        inexact: rows with a value that the sweep could not make exact.
        left_out: how many rows had no certain label, by reason: `immature`, `null_label`.
        digest: SHA-256 of the features' definitions, t, keys, X and y.
    """

    frame: pl.DataFrame
    X: Floats
    y: Floats
    t: Words
    keys: list[bytes]
    features: tuple[str, ...]
    categorical: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    digest: str
    inexact: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)


def build(
    model: ModelSpec,
    project: ProjectSpec,
    reader: EventReader,
    *,
    horizon: Mapping[str, int],
    at: int,
    asof: AsOf = "known",
) -> TrainingSet:
    """Build the training set of a model.

    Args:
        horizon: per source the last LSN that is read; a source without one is read as far as there are events.
        at: domain time; labels and events that were not known by then are not there.
        asof: `event` ignores when events were known. It is what most training sets do, and shows what that costs.

    Raises:
        InvalidError: `no_rows`, `no_label`.
    """
    source = rows_source(model, project)
    if model.label is None:
        raise InvalidError(f"the model {model.name!r} has no label to train on", code="no_label")
    events = known_events(reader, source, horizon, at).sort("_event_time", "_lsn")
    labels = labels_of(model, project, events, at, lambda s: known_events(reader, s, horizon, at))
    rows = events.filter(pl.Series(labels.certain))
    y = labels.y[labels.certain]
    computed = features_of(model.features, project, source, rows, reader, horizon=horizon, at=at, asof=asof)
    t, keys = words(rows, "_event_time"), rows["_key"].to_list()
    X = stack(model.features, computed.vectors, len(rows))
    return TrainingSet(
        frame=_frame(rows, source, model.features, computed.vectors, y),
        X=X,
        y=y,
        t=t,
        keys=keys,
        features=tuple(f.name for f in model.features),
        categorical=tuple(f.name for f in model.features if f.categories),
        categories={f.name: f.categories for f in model.features if f.categories},
        digest=_digest(model.features, t, keys, X, y),
        inexact=computed.inexact,
        left_out=_left_out(labels),
    )


def rows_source(model: ModelSpec, project: ProjectSpec) -> SourceSpec:
    for source in project.sources:
        if source.name == model.rows:
            return source
    raise InvalidError(
        f"the model {model.name!r} has no source of rows to train on (rows={model.rows!r})",
        code="no_rows",
        hint="name a source of the project with rows=",
    )


def known_events(reader: EventReader, source: SourceSpec, horizon: Mapping[str, int], at: int) -> pl.DataFrame:
    """The events of a source within the horizon that were known at `at`, each once."""
    events = reader.events(source.name, None, through_lsn=horizon.get(source.name))
    return once(events).filter(pl.col("_known_at") <= at)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputedFeatures:
    """Per feature its values for the rows; `inexact` counts rows."""

    vectors: list[Vector]
    inexact: int


def features_of(
    features: tuple[FeatureSpec, ...],
    project: ProjectSpec,
    source: SourceSpec,
    rows: pl.DataFrame,
    reader: EventReader,
    *,
    horizon: Mapping[str, int],
    at: int,
    asof: AsOf = "known",
) -> ComputedFeatures:
    """The features of rows (a physical frame of `source`), each at its own event time."""
    columns = {column.name: column for column in source.columns}
    needed = leaf_requirements(features)
    wanted = {name for _, name in needed.columns} | {name for role in needed.views for name in role.by}
    physical = vectors(rows, [name for name in columns if name in wanted])
    times = words(rows, "_event_time")
    found: dict[LeafKey, Vector] = column_leaves(source.name, physical, columns, times)
    inexact = np.zeros(len(rows), np.bool_)
    histories: dict[str, pl.DataFrame] = {}
    for role in needed.views:
        view = CompiledView(project.view(role.view), project.source(project.view(role.view).source))
        name = view.source.name
        if name not in histories:
            histories[name] = known_events(reader, view.source, horizon, at)
        answer = sweep(view, histories[name], role_keys(role, physical, columns, len(rows)), times, asof=asof)
        found |= view_leaves(view, role, answer)
        inexact |= ~answer.exact
    return ComputedFeatures(vectors=feature_vectors(features, found, len(rows)), inexact=int(inexact.sum()))


def _left_out(labels: Labels) -> dict[str, int]:
    return {"immature": int(labels.immature.sum()), "null_label": int(labels.null.sum())}


def _frame(
    rows: pl.DataFrame, source: SourceSpec, features: tuple[FeatureSpec, ...], values: list[Vector], y: Floats
) -> pl.DataFrame:
    columns = dict(zip(rows.columns, readable(rows, source), strict=True))
    system = {name: columns.pop(name) for name in ("_event_time", "_lsn", "_key")}
    columns.pop("_known_at", None)
    for feature, vector in zip(features, values, strict=True):
        if feature.name not in columns:
            columns[feature.name] = _series(feature.name, vector)
    return pl.DataFrame([*columns.values(), pl.Series("label", y), *system.values()])


def _series(name: str, vector: Vector) -> pl.Series:
    if vector.values.dtype == object:
        return pl.Series(
            name, [v if ok else None for v, ok in zip(vector.values, vector.valid, strict=True)], pl.String
        )
    return pl.DataFrame({name: vector.values, "valid": vector.valid}).select(pl.when("valid").then(name).alias(name))[
        name
    ]


def _digest(features: tuple[FeatureSpec, ...], t: Words, keys: list[bytes], X: Floats, y: Floats) -> str:
    whole = hashlib.sha256(canonical([f.to_data() for f in features]))
    for array in (t, np.where(np.isnan(X), np.nan, X), y):  # one NaN for all of them
        whole.update(np.ascontiguousarray(array).tobytes())
    whole.update(b"".join(keys))
    return whole.hexdigest()
