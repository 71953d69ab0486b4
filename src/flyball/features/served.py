"""Features as they were served: a row's own answer, found in the prediction log by its key or by its values."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from flyball.define.expression import leaves
from flyball.define.spec import ColumnSpec, FeatureSpec, ModelSpec, ProjectSpec
from flyball.features.accumulator import Flags
from flyball.features.ports import ServedReader
from flyball.features.recompute import Definition
from flyball.features.request import physical
from flyball.features.vector import Vector
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import canonical

_HIDDEN = "pii:"  # how a digest that stands for a pii value begins
_NEVER: list[float] = []  # the answer to a row that was not asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedFeatures:
    """Of `n` rows: `found` `(n,)`, which were answered; `redefined` `(n,)`, which were answered by versions with other
    definitions alone; and per feature the values of those that were found."""

    found: Flags
    redefined: Flags
    vectors: list[Vector]


def served_features(
    model: ModelSpec,
    project: ProjectSpec,
    rows: pl.DataFrame,
    reader: ServedReader | None,
    *,
    at: int,
) -> ServedFeatures:
    """The features that each row was first answered with, by `at`, by a version that defines them as `model` does.

    A record belongs to the row that has the values of its key fields; one without a key to the row that has its time
    and the values of all of its inputs. Codes of categories are read with the categories of the record's own version.

    Raises:
        InvalidError: `no_served`, where there is no prediction log to read; `served_private`, where a feature or what
            rows are found by is pii, of which the log holds digests alone.
    """
    if reader is None:
        raise InvalidError(
            f"features of {model.name!r} as they were served need the prediction log",
            code="no_served",
            hint="flyball train MODEL --asof served, or fb.open(project).training_set(model, asof='served')",
        )
    answers = _answers(reader, model, project, at)
    matrix = np.full((len(rows), len(model.features)), np.nan)
    found, redefined = np.zeros((2, len(rows)), np.bool_)
    for names, by in answers.items():
        values = zip(*(rows[name].to_list() for name in names), strict=True)
        for i, row in enumerate(values):
            answer = by.get(row, _NEVER)
            if answer is None:
                redefined[i] = True
            elif answer and not found[i]:
                found[i], matrix[i] = True, answer
    kept = matrix[found]
    vectors = [_vector(feature, kept[:, k]) for k, feature in enumerate(model.features)]
    return ServedFeatures(found=found, redefined=redefined & ~found, vectors=vectors)


def _answers(
    reader: ServedReader, model: ModelSpec, project: ProjectSpec, at: int
) -> dict[tuple[str, ...], dict[tuple[Hashable, ...], list[float] | None]]:
    """Per set of fields that records are found by, their first answers by the fields' physical values; None where all
    are of other definitions."""
    columns = {column.name: column for column in project.source(model.rows).columns}
    readings: dict[str, Reading | None] = {}
    found: dict[tuple[str, ...], dict[tuple[Hashable, ...], list[float] | None]] = {}
    log = reader.served(model.name).filter(pl.col("at") <= at)
    for version, time, key, inputs, features in log.select("version", "at", "key", "inputs", "features").iter_rows():
        given = json.loads(key) if key else None
        by = given or json.loads(inputs or "{}")
        names = tuple(sorted(name for name in by if name in columns))
        values = _physical(by, names, columns, model)
        if not names or values is None:
            continue
        if not given:
            names, values = (*names, "_event_time"), (*values, time)
        if version not in readings:
            readings[version] = reading(reader.manifest(version), model, project)
        mine = found.setdefault(names, {})
        if mine.get(values) is None:
            mine[values] = _answer(json.loads(features), readings[version], model)
    return found


Reading = tuple[Mapping[float, float] | None, ...]


def reading(manifest: Mapping[str, Any] | None, model: ModelSpec, project: ProjectSpec) -> Reading | None:
    """How the values that a version answered with are read for a model: per feature the model's code by the version's
    code, None for values that stand for themselves. None where the version is not there any more, or one of the
    model's features is defined otherwise in it, by itself or by a view that it reads."""
    if manifest is None:
        return None
    then = Definition.of(manifest)
    if then.rows != model.rows:
        return None
    features = {feature.name: feature for feature in then.features}
    views = {view.name: view.definition for view in then.views}
    found: list[Mapping[float, float] | None] = []
    for now in model.features:
        was = features.get(now.name)
        if was is None or _meaning(was) != _meaning(now):
            return None
        read = {leaf[1] for leaf in leaves(now.expr) if leaf[0] == "view"}
        if any(views.get(name) != project.view(name).definition for name in read):
            return None
        codes = {text: float(code) for code, text in enumerate(now.categories)}
        found.append({float(i): codes.get(text, math.nan) for i, text in enumerate(was.categories)} if codes else None)
    return tuple(found)


def _meaning(feature: FeatureSpec) -> bytes:
    """What a feature is but for which categories are declared: of these codes tell."""
    return canonical([feature.expr, feature.type, bool(feature.categories)])


def _answer(named: Mapping[str, Any], read: Reading | None, model: ModelSpec) -> list[float] | None:
    if read is None or any(feature.name not in named for feature in model.features):
        return None
    values = [_number(named[feature.name], feature, model) for feature in model.features]
    return [value if codes is None else codes.get(value, math.nan) for value, codes in zip(values, read, strict=True)]


def _physical(
    by: Mapping[str, Any], names: Sequence[str], columns: Mapping[str, ColumnSpec], model: ModelSpec
) -> tuple[Hashable, ...] | None:
    """The fields' values as a physical frame has them; None where they are none of the columns' values."""
    values: list[Hashable] = []
    for name in names:
        if isinstance(by[name], str) and by[name].startswith(_HIDDEN):
            raise _private(model, f"the field {name!r}, which its rows are found by,")
        try:
            values.append(None if by[name] is None else physical(columns[name], by[name]))
        except InvalidError:
            return None
    return tuple(values)


def _number(value: Any, feature: FeatureSpec, model: ModelSpec) -> float:
    if isinstance(value, str):
        raise _private(model, f"the feature {feature.name!r}")
    return math.nan if value is None else float(value)


def _private(model: ModelSpec, what: str) -> InvalidError:
    return InvalidError(
        f"{what} of {model.name!r} is pii, and the prediction log holds digests of pii alone",
        code="served_private",
        hint="train with --asof known",
    )


def _vector(feature: FeatureSpec, values: np.ndarray) -> Vector:
    valid = ~np.isnan(values)
    if feature.categories:
        texts = np.array([*feature.categories, ""], object)
        return Vector(texts[np.where(valid, values, len(feature.categories)).astype(np.int64)], valid)
    return Vector(np.where(valid, values, 0.0), valid)
