"""From leaves to the matrix that a model takes: one function for training sets and for requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flyball.define.expression import leaves
from flyball.define.spec import ColumnSpec, FeatureSpec
from flyball.features.accumulator import Floats, Words
from flyball.features.evaluate import evaluate
from flyball.features.keys import Keys, encode_keys
from flyball.features.vector import LeafKey, Vector, column_key, leaf_key, logical
from flyball.features.views import CompiledView, ViewValues, category_codes
from flyball.kernel.errors import InvalidError


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewRole:
    """A view looked up by columns of the row: one lookup, however many of its features are read."""

    view: str
    by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirements:
    """What features need: columns of the row, by source (or request) and name, and lookups of views."""

    columns: tuple[tuple[str, str], ...]
    views: tuple[ViewRole, ...]


def leaf_requirements(features: Iterable[FeatureSpec]) -> Requirements:
    """The leaves of the features, each once, in the order in which they first come."""
    columns: dict[tuple[str, str], None] = {}
    views: dict[ViewRole, None] = {}
    for leaf in (leaf for feature in features for leaf in leaves(feature.expr)):
        if leaf[0] == "col":
            columns[leaf[1], leaf[2]] = None
        elif leaf[0] == "view":
            views[ViewRole(view=leaf[1], by=tuple(leaf[3]))] = None
    return Requirements(columns=tuple(columns), views=tuple(views))


def view_leaves(view: CompiledView, role: ViewRole, values: ViewValues) -> dict[LeafKey, Vector]:
    """What a view answered, as leaves: categories as their text, booleans as booleans, the rest as float64."""
    found: dict[LeafKey, Vector] = {}
    for k, (name, type_, categories) in enumerate(view.feature_types):
        valid = values.valid[:, k].copy()
        numbers = np.where(valid, values.values[:, k], 0.0)
        key = leaf_key(["view", role.view, name, role.by])
        if categories:
            texts = np.array([*categories, ""], object)
            found[key] = Vector(texts[numbers.astype(np.int64)], valid)
        else:
            found[key] = Vector(numbers.astype(np.bool_) if type_ == "boolean" else numbers, valid)
    return found


def role_keys(role: ViewRole, vectors: Mapping[str, Vector], columns: Mapping[str, ColumnSpec], rows: int) -> Keys:
    """The entities that the rows look up, from their physical columns and what these are declared to be."""
    return encode_keys([vectors[name] for name in role.by], [columns[name] for name in role.by], rows)


def column_leaves(
    source: str, vectors: Mapping[str, Vector], columns: Mapping[str, ColumnSpec], times: Words
) -> dict[LeafKey, Vector]:
    """The rows' own columns, and their time, as leaves."""
    found: dict[LeafKey, Vector] = {("time",): Vector(times, np.ones(len(times), np.bool_))}
    for name, vector in vectors.items():
        found[column_key(source, name)] = logical(vector, columns[name])
    return found


def feature_vectors(features: Sequence[FeatureSpec], found: Mapping[LeafKey, Vector], rows: int) -> list[Vector]:
    """Each feature's values, as its expression gives them."""
    return [evaluate(feature.expr, found, rows=rows) for feature in features]


def assemble(features: Sequence[FeatureSpec], found: Mapping[LeafKey, Vector], *, rows: int | None = None) -> Floats:
    """The matrix `(n, features)`: float64, NaN for null, categories as positions in `FeatureSpec.categories`."""
    if rows is None:
        rows = len(next(iter(found.values()))) if found else 1
    return stack(features, feature_vectors(features, found, rows), rows)


def stack(features: Sequence[FeatureSpec], vectors: Sequence[Vector], rows: int) -> Floats:
    """`feature_vectors` as a matrix."""
    matrix = np.empty((rows, len(features)), np.float64)
    for k, (feature, vector) in enumerate(zip(features, vectors, strict=True)):
        if vector.values.dtype == object:
            if not feature.categories:
                raise InvalidError(
                    f"the feature {feature.name!r} is text; a model takes numbers and categories",
                    code="text_feature",
                    hint="declare the column with fb.Category and its values",
                )
            vector = category_codes(vector, feature.categories)
        matrix[:, k] = np.where(vector.valid, vector.values, np.nan)
    return matrix
