"""A version's features for the rows of a request: request fields and online state in, the model's matrix out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flyball.define.spec import ColumnSpec, FeatureSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import Flags, Floats, Words
from flyball.features.assemble import (
    assemble,
    column_leaves,
    leaf_requirements,
    role_keys,
    view_leaves,
)
from flyball.features.keys import Keys
from flyball.features.online import Lookup, OnlineReader
from flyball.features.request import request_vectors
from flyball.features.views import CompiledView, ViewValues
from flyball.kernel.errors import FlyballError, InvalidError, did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedFeatures:
    """Features of `n` rows.

    Args:
        matrix: `(n, features)`, NaN for null, categories as codes. Rows with an error are undefined.
        exact: `(n,)`; False where a view could not answer exactly for a row's time.
        lsn, known_through: per source that views were read of, how much of it was seen.
        errors: of the rows that a field is wrong in.
    """

    matrix: Floats
    exact: Flags
    lsn: Mapping[str, int] = field(default_factory=dict)
    known_through: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[int, FlyballError] = field(default_factory=dict)


class FeatureServer:
    """Computes the features of one version of a model.

    Args:
        features, views, sources: as the version's manifest holds them.
        rows: the name of the source, or request, whose columns a request brings; `columns` are these columns.

    Raises:
        InvalidError: `missing_leaf`, where a feature reads what is not there.
    """

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        views: Sequence[ViewSpec],
        sources: Sequence[SourceSpec],
        *,
        rows: str,
        columns: Sequence[ColumnSpec],
        reader: OnlineReader,
    ) -> None:
        self._features = tuple(features)
        self._rows = rows
        self._reader = reader
        by_name = {source.name: source for source in sources}
        compiled = {view.name: CompiledView(view, by_name[view.source]) for view in views}
        needed = leaf_requirements(features)
        brought = {column.name: column for column in columns}
        wanted = [name for _, name in needed.columns] + [name for role in needed.views for name in role.by]
        for name in wanted:
            if name not in brought:
                raise InvalidError(
                    f"a feature reads {rows}.{name}, which is not there: {did_you_mean(name, brought)}",
                    code="missing_leaf",
                )
        self._columns = {name: brought[name] for name in dict.fromkeys(wanted)}
        self._lookups = [(role, compiled[role.view]) for role in needed.views]

    def compute(self, rows: Sequence[Mapping[str, Any]], at: int | Sequence[int] | Words) -> ServedFeatures:
        """The features of rows of request fields at the domain times `at` (one for all, or one each).

        Raises:
            UnavailableError: `view_not_built`.
        """
        n = len(rows)
        times = np.broadcast_to(np.asarray(at, np.int64), (n,)).copy()
        vectors, errors = request_vectors(list(self._columns.values()), rows)
        found = column_leaves(self._rows, vectors, self._columns, times)
        keys = [role_keys(role, vectors, self._columns, n) for role, _ in self._lookups]
        exact = np.ones(n, np.bool_)
        lsn: dict[str, int] = {}
        known_through: dict[str, int] = {}
        answers = self._answers(keys, times) if keys else []
        for (role, view), answer in zip(self._lookups, answers, strict=True):
            found |= view_leaves(view, role, answer)
            exact &= answer.exact
            lsn[view.source.name] = answer.lsn
            known_through[view.source.name] = answer.known_through
        matrix = assemble(self._features, found, rows=n)
        return ServedFeatures(matrix=matrix, exact=exact, lsn=lsn, known_through=known_through, errors=errors)

    def _answers(self, keys: Sequence[Keys], times: Words) -> list[ViewValues]:
        """What the views say, all from one moment; of a single row the fast way."""
        views = [view for _, view in self._lookups]
        if len(times) != 1:
            lookups = [Lookup(view=view, keys=k) for view, k in zip(views, keys, strict=True)]
            return self._reader.read_all(lookups, times)
        wanted = [(view, k.unique[0] if k.codes[0] >= 0 else None) for view, k in zip(views, keys, strict=True)]
        return [one.as_row() for one in self._reader.vectors(wanted, int(times[0]))]
