"""Training sets: rows, the features that could be known at each row's time, and labels that are certain."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from flyball.define.expression import leaves
from flyball.define.spec import FeatureSpec, ModelSpec, ProjectSpec, SourceSpec
from flyball.features.accumulator import Flags, Floats, Words
from flyball.features.assemble import (
    Requirements,
    ViewRole,
    column_leaves,
    feature_vectors,
    leaf_requirements,
    role_keys,
    stack,
    view_leaves,
)
from flyball.features.frames import readable, vectors, words
from flyball.features.histories import Histories, Pin, check_pins
from flyball.features.labels import Labels, RowVersions, labels_of
from flyball.features.offline import sweep
from flyball.features.partitions import BUDGET, sweep_batches
from flyball.features.ports import EventReader, ServedReader
from flyball.features.served import served_features
from flyball.features.vector import LeafKey, Vector
from flyball.features.views import CompiledView, ViewValues
from flyball.kernel.errors import ConflictError, InvalidError
from flyball.kernel.ids import canonical

AsOf = Literal["known", "event", "served"]


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """`n` rows in time order.

    Args:
        frame: the rows' columns as people read them, then features and `label` by name (a feature takes the place of a
            column of its name, and the label of both), `_event_time`, `_lsn` and `_key`.
        X, y: `(n, features)` and `(n,)` float64; NaN for null, positions for categories and classes, 0 and 1 for
            conditions.
        t: `(n,)` microseconds. keys: the events' keys.
        categorical, categories: features that are categories, and their values by code.
        left_out: how many rows are not there, by reason: `immature`, `null_label`, and where there are any `deleted`;
            as they were served also `not_served`, and where there are any `redefined`: answered only by versions that
            define the features otherwise, or are not there any more.
        digest: SHA-256 of the features' definitions, t, keys, X and y.
        pins: what was read, per source; `rebuild` builds the same set from them.
        inexact: rows with a value that is not exact; none, as training sets are exact.
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
    pins: dict[str, Pin] = field(default_factory=dict)
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
    served: ServedReader | None = None,
    budget: int = BUDGET,
    folder: Path | None = None,
) -> TrainingSet:
    """Build the training set of a model.

    Args:
        horizon: per source the last LSN that is read; a source without one is read as far as there are events.
        at: domain time; labels and events that were not known by then are not there.
        asof: `known`: features from what was known at a row's time. `event` ignores when events were known: it is what
            most training sets do, and shows what that costs. `served`: features as they were answered, of the rows that
            were asked for; needs `served`.
        budget: bytes of a source's events that are held in memory; beyond, they are cut by entity.
        folder: where events are written that do not fit, and removed from at the end; None: the system's place for
            temporary files.

    Raises:
        InvalidError: `no_rows`, `no_label`, `no_served`.
    """
    source = rows_source(model, project)
    if model.label is None:
        raise InvalidError(f"the model {model.name!r} has no label to train on", code="no_label")
    columns = _columns_read(model, project, source)
    with Histories(reader, project, columns, horizon=horizon, at=at, budget=budget, folder=folder) as histories:
        rows = _rows(histories, source, at)
        labels = labels_of(model, project, rows, at, histories.current)
        keep = labels.certain & ~rows.deleted
        left_out = _left_out(labels, rows)
        frame, y = rows.first.filter(pl.Series(keep)), labels.y[keep]
        if asof == "served":
            answered = served_features(model, project, frame, served, at=at)
            left_out["not_served"] = int((~answered.found & ~answered.redefined).sum())
            if answered.redefined.any():
                left_out["redefined"] = int(answered.redefined.sum())
            frame, y, values = frame.filter(pl.Series(answered.found)), y[answered.found], answered.vectors
        else:
            values = _features(model.features, project, source, frame, histories, asof)
        pins = histories.pins
    t, keys = words(frame, "_event_time"), frame["_key"].to_list()
    X = stack(model.features, values, len(frame))
    return TrainingSet(
        frame=_frame(frame, source, model.features, values, y),
        X=X,
        y=y,
        t=t,
        keys=keys,
        features=tuple(f.name for f in model.features),
        categorical=tuple(f.name for f in model.features if f.categories),
        categories={f.name: f.categories for f in model.features if f.categories},
        digest=_digest(model.features, t, keys, X, y),
        pins=pins,
        left_out=left_out,
    )


def rebuild(
    model: ModelSpec,
    project: ProjectSpec,
    reader: EventReader,
    *,
    pins: Mapping[str, Pin],
    at: int,
    asof: AsOf = "known",
    digest: str = "",
    served: ServedReader | None = None,
) -> TrainingSet:
    """Build a training set again from what it was pinned to, also after files were compacted and more events came.

    Args:
        pins, at, asof: those of the set. digest: the set's own; empty: only what is read is compared.

    Raises:
        ConflictError: `pin_changed`, where events were erased or changed since; `training_set_changed`, where what is
            read is the same and the set is not: another version of Flyball, or other definitions.
    """
    horizon = {source: pin.lsn for source, pin in pins.items()}
    made = build(model, project, reader, horizon=horizon, at=at, asof=asof, served=served)
    check_pins(pins, made.pins)
    if digest and made.digest != digest:
        raise ConflictError(
            f"the training set of {model.name!r} has the digest {made.digest[:12]} and was pinned as {digest[:12]}, "
            "from the same events",
            code="training_set_changed",
            hint="compare the definitions of its features with those that it was built with",
        )
    return made


def rows_source(model: ModelSpec, project: ProjectSpec) -> SourceSpec:
    for source in project.sources:
        if source.name == model.rows:
            return source
    raise InvalidError(
        f"the model {model.name!r} has no source of rows to train on (rows={model.rows!r})",
        code="no_rows",
        hint="name a source of the project with rows=",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputedFeatures:
    """Per feature its values for the rows; `inexact` counts rows."""

    vectors: list[Vector]
    inexact: int = 0


def features_of(
    features: tuple[FeatureSpec, ...],
    project: ProjectSpec,
    source: SourceSpec,
    rows: pl.DataFrame,
    reader: EventReader,
    *,
    horizon: Mapping[str, int],
    at: int,
    asof: Literal["known", "event"] = "known",
    folder: Path | None = None,
) -> ComputedFeatures:
    """The features of rows (a physical frame of `source`), each at its own event time. `folder` as in `build`."""
    columns = _view_columns(features, project)
    with Histories(reader, project, columns, horizon=horizon, at=at, folder=folder) as histories:
        return ComputedFeatures(vectors=_features(features, project, source, rows, histories, asof))


def _features(
    features: tuple[FeatureSpec, ...],
    project: ProjectSpec,
    source: SourceSpec,
    rows: pl.DataFrame,
    histories: Histories,
    asof: Literal["known", "event"],
) -> list[Vector]:
    columns = {column.name: column for column in source.columns}
    needed = leaf_requirements(features)
    physical = vectors(rows, [name for name in columns if name in _wanted(needed)])
    times = words(rows, "_event_time")
    found: dict[LeafKey, Vector] = column_leaves(source.name, physical, columns, times)
    for role in needed.views:
        view = _compiled(role, project)
        keys = role_keys(role, physical, columns, len(rows))
        whole = histories.whole(view.source.name)
        if whole is not None:
            answer: ViewValues = sweep(view, whole, keys, times, asof=asof)
        else:
            batches = histories.events(view.source.name)
            answer = sweep_batches(
                view, batches, keys, times, asof=asof, budget=histories.budget, folder=histories.folder
            )
        found |= view_leaves(view, role, answer)
    return feature_vectors(features, found, len(rows))


def row_columns(features: tuple[FeatureSpec, ...]) -> set[str]:
    """The columns of the rows themselves that features read, or by which they look views up."""
    return _wanted(leaf_requirements(features))


def _wanted(needed: Requirements) -> set[str]:
    return {name for _, name in needed.columns} | {name for role in needed.views for name in role.by}


def _compiled(role: ViewRole, project: ProjectSpec) -> CompiledView:
    view = project.view(role.view)
    return CompiledView(view, project.source(view.source))


def _view_columns(features: tuple[FeatureSpec, ...], project: ProjectSpec) -> dict[str, list[str]]:
    """Per source the columns that the features' views read."""
    found: dict[str, list[str]] = {}
    for role in leaf_requirements(features).views:
        view = _compiled(role, project)
        columns = found.setdefault(view.source.name, [])
        columns += [name for name in view.columns if name not in columns]
    return found


def _columns_read(model: ModelSpec, project: ProjectSpec, source: SourceSpec) -> dict[str, list[str]]:
    """Per source the columns that a training set reads: of the rows' source all, of others what is asked."""
    found = _view_columns(model.features, project)
    label = model.label
    if label is not None and label.any is not None:
        columns = found.setdefault(label.any.source, [])
        asked = [leaf[2] for leaf in leaves(label.any.where or ["lit", True]) if leaf[0] == "col"]
        columns += [name for name in dict.fromkeys([label.any.on, *asked]) if name not in columns]
    found[source.name] = [column.name for column in source.columns]
    return found


def _rows(histories: Histories, source: SourceSpec, at: int) -> RowVersions:
    """The rows that were known at `at`, by time: as they first were, and as they are at `at`."""
    if not source.corrections:
        whole = histories.whole(source.name)
        frames = histories.events(source.name) if whole is None else [whole]
        first = pl.concat([frame.drop("_until") for frame in frames]).sort("_event_time", "_lsn")
        return RowVersions(first=first, newest=first, deleted=np.zeros(len(first), np.bool_))
    ordered = histories.raw(source.name).sort("_known_at", "_lsn")
    first = ordered.unique("_key", keep="first", maintain_order=True)
    first = first.filter(~pl.col("_deleted").fill_null(False)).sort("_event_time", "_lsn")
    newest = first.select("_key").join(
        ordered.unique("_key", keep="last", maintain_order=True), on="_key", how="left", maintain_order="left"
    )
    deleted: Flags = newest["_deleted"].fill_null(False).to_numpy()
    return RowVersions(
        first=first.drop("_deleted"), newest=newest.select(first.drop("_deleted").columns), deleted=deleted
    )


def _left_out(labels: Labels, rows: RowVersions) -> dict[str, int]:
    there = ~rows.deleted
    found = {"immature": int((labels.immature & there).sum()), "null_label": int((labels.null & there).sum())}
    return found | ({"deleted": int(rows.deleted.sum())} if rows.deleted.any() else {})


def _frame(
    rows: pl.DataFrame, source: SourceSpec, features: tuple[FeatureSpec, ...], values: list[Vector], y: Floats
) -> pl.DataFrame:
    columns = dict(zip(rows.columns, readable(rows, source), strict=True))
    system = {name: columns.pop(name) for name in ("_event_time", "_lsn", "_key")}
    columns.pop("_known_at", None)
    for feature, vector in zip(features, values, strict=True):
        columns[feature.name] = _series(feature.name, vector)
    columns.pop("label", None)
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
