"""Derived sources: the events of a parent for which a condition holds, with columns computed as known.

Implements `ingest.ports.Derivation`. What is computed for an event depends on the event, and on the views' events that
happened before it and were known when it was, and on nothing else: not on how the log is cut into ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from flyball.define.expression import columns_of, leaves
from flyball.define.spec import ColumnSpec, DeriveSpec, ExprData, LatestSpec, SourceSpec
from flyball.features.assemble import ViewRole, column_leaves, role_keys
from flyball.features.evaluate import evaluate
from flyball.features.frames import vector, vectors, words
from flyball.features.join import LatestJoin
from flyball.features.vector import LeafKey, Vector, leaf_key, logical
from flyball.kernel.errors import InvalidError

_DTYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "category": pl.String(),
    "float": pl.Float64(),
    "boolean": pl.Boolean(),
}


class SourceDerivation:
    """One derived source; keeps the columns of its views' events in memory.

    Raises:
        InvalidError: `bad_derivation`, where its parent or the source of a view is not there.
    """

    def __init__(self, spec: SourceSpec, sources: Mapping[str, SourceSpec]) -> None:
        derive = spec.derive
        assert derive is not None
        for name in (derive.source, *(view.source for view in derive.views)):
            if name not in sources:
                raise InvalidError(
                    f"source {spec.name} is derived from {name}, which is not there", code="bad_derivation"
                )
        self._spec = spec
        self._derive: DeriveSpec = derive
        self._parent = sources[derive.source]
        self._joins = {view.name: LatestJoin(view, sources[view.source]) for view in derive.views}
        self._views = {view.name: view for view in derive.views}
        expressions: list[ExprData] = [c.expr for c in derive.columns] + ([derive.where] if derive.where else [])
        found = [leaf for expr in expressions for leaf in leaves(expr)]
        self._lookups = {
            role: sorted({leaf[2] for leaf in found if leaf[0] == "view" and _role(leaf) == role})
            for role in dict.fromkeys(_role(leaf) for leaf in found if leaf[0] == "view")
        }
        self._columns = sorted(
            set().union(*(columns_of(expr, self._parent.name) for expr in expressions), *(r.by for r in self._lookups))
        )
        self._sources = {name: sources[name] for name in {view.source for view in derive.views}}

    @property
    def inputs(self) -> Mapping[str, Sequence[str]]:
        """The sources of the views, and their columns that are read."""
        found: dict[str, set[str]] = {}
        for name, join in self._joins.items():
            found.setdefault(self._views[name].source, set()).update(join.columns)
        return {source: sorted(columns) for source, columns in sorted(found.items())}

    def feed(self, source: str, frame: pl.DataFrame) -> None:
        """Take the next events of an input, in LSN order."""
        for name, join in self._joins.items():
            if self._views[name].source == source:
                join.add(frame)

    def derive(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The derived events of the parent's, in their order; physical, without `_lsn`."""
        times, n = words(frame, "_event_time"), frame.height
        known = words(frame, "_known_at")
        types = {column.name: column for column in self._parent.columns}
        physical = vectors(frame, self._columns)
        found = column_leaves(self._parent.name, physical, types, times)
        exact: dict[LeafKey, pl.Series] = {
            leaf_key(["col", self._parent.name, name]): frame[name] for name in self._columns
        }
        for role, features in self._lookups.items():
            keys = role_keys(role, physical, types, n)
            read = self._joins[role.view].read(keys, times, known)
            for feature in features:
                series, column = self._feature(role.view, feature, read)
                key = leaf_key(["view", role.view, feature, role.by])
                exact[key], found[key] = series, logical(vector(series), column)
        added = [self._column(column.name, column.expr, found, exact, n) for column in self._derive.columns]
        return self._kept(frame.drop("_lsn").with_columns(added), self._holds(found, n))

    def _holds(self, found: Mapping[LeafKey, Vector], n: int) -> pl.Series:
        if self._derive.where is None:
            return pl.repeat(True, n, eager=True)
        condition = evaluate(self._derive.where, found, rows=n)
        return pl.Series(condition.valid & condition.values.astype(np.bool_))

    def _kept(self, frame: pl.DataFrame, holds: pl.Series) -> pl.DataFrame:
        """The events that count. Of a parent with corrections each version has its own: where the condition no longer
        holds, a deletion, which takes away what was derived from the version before, if anything was."""
        if not self._spec.corrections:
            return frame.filter(holds)
        gone = frame["_deleted"].fill_null(False) | ~holds
        return frame.with_columns(gone.alias("_deleted"))

    def _feature(self, view: str, feature: str, read: pl.DataFrame) -> tuple[pl.Series, ColumnSpec]:
        latest = next(one for one in self._views[view].latest if one.name == feature)
        column = self._sources[self._views[view].source].column(latest.column)
        dtype = _DTYPES.get(column.type, pl.Int64())
        series = read[latest.column].cast(dtype)
        default = _physical(latest, column)
        return (series if default is None else series.fill_null(pl.Series([default], dtype=dtype).item())), column

    def _column(
        self, name: str, expr: ExprData, found: Mapping[LeafKey, Vector], exact: Mapping[LeafKey, pl.Series], n: int
    ) -> pl.Series:
        """A bare column as it is, in its own units; all else as expressions are computed."""
        column = self._spec.column(name)
        if expr[0] in ("col", "view"):
            return exact[leaf_key(expr)].alias(name)
        result = evaluate(expr, found, rows=n)
        dtype = _DTYPES.get(column.type, pl.Int64())
        if result.values.dtype == object:
            values = [v if ok else None for v, ok in zip(result.values, result.valid, strict=True)]
            return pl.Series(name, values, dtype=dtype)
        series = pl.Series(name, np.where(result.valid, result.values, 0)).cast(dtype)
        return series.set(pl.Series(~result.valid), None)


def _role(leaf: Sequence[object]) -> ViewRole:
    return ViewRole(view=str(leaf[1]), by=tuple(leaf[3]))  # type: ignore[arg-type]


def _physical(latest: LatestSpec, column: ColumnSpec) -> str | float | int | bool | None:
    """A feature's default in the units of its column."""
    default = latest.default
    if default is None or isinstance(default, str) or column.type == "float":
        return default
    if column.type == "boolean":
        return bool(default)
    return round(default * 10**column.scale) if column.type == "decimal" else int(default)


class SourceDeriver:
    """`ingest.ports.Deriver`."""

    def open(self, spec: SourceSpec, sources: Mapping[str, SourceSpec]) -> SourceDerivation:
        return SourceDerivation(spec, sources)
