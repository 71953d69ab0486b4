"""Features as they were served: a row's own answer, found in the prediction log by its key or by its values."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from flyball.define.spec import ColumnSpec, FeatureSpec, ModelSpec, SourceSpec
from flyball.features.accumulator import Flags
from flyball.features.ports import ServedReader
from flyball.features.request import physical
from flyball.features.vector import Vector
from flyball.kernel.errors import InvalidError

_HIDDEN = "pii:"  # how a digest that stands for a pii value begins


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedFeatures:
    """Of `n` rows: `found` `(n,)`, which were answered; and per feature the values of those that were."""

    found: Flags
    vectors: list[Vector]


def served_features(
    model: ModelSpec, source: SourceSpec, rows: pl.DataFrame, reader: ServedReader | None, *, at: int
) -> ServedFeatures:
    """The features that each row was first answered with, by `at`.

    A record belongs to the row that has the values of its key fields; one without a key to the row that has its time
    and the values of all of its inputs. Records that lack one of the model's features are of another definition.

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
    log = reader.served(model.name).filter(pl.col("at") <= at)
    answers = _answers(log, model, source)
    matrix = np.full((len(rows), len(model.features)), np.nan)
    found = np.zeros(len(rows), np.bool_)
    for names, by in answers.items():
        values = zip(*(rows[name].to_list() for name in names), strict=True)
        for i, row in enumerate(values):
            answer = by.get(row)
            if answer is not None and not found[i]:
                found[i], matrix[i] = True, answer
    kept = matrix[found]
    return ServedFeatures(
        found=found, vectors=[_vector(feature, kept[:, k]) for k, feature in enumerate(model.features)]
    )


def _answers(
    log: pl.DataFrame, model: ModelSpec, source: SourceSpec
) -> dict[tuple[str, ...], dict[tuple[Hashable, ...], list[float]]]:
    """Per set of fields that records are found by, their first answers by the fields' physical values."""
    columns = {column.name: column for column in source.columns}
    found: dict[tuple[str, ...], dict[tuple[Hashable, ...], list[float]]] = {}
    for at, key, inputs, features in log.select("at", "key", "inputs", "features").iter_rows():
        named = json.loads(features) if features else {}
        if any(feature.name not in named for feature in model.features):
            continue
        given = json.loads(key) if key else None
        by = given or json.loads(inputs or "{}")
        names = tuple(sorted(name for name in by if name in columns))
        values = _physical(by, names, columns, model)
        if not names or values is None:
            continue
        if not given:
            names, values = (*names, "_event_time"), (*values, at)
        answer = [_number(named[feature.name], feature, model) for feature in model.features]
        found.setdefault(names, {}).setdefault(values, answer)
    return found


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
