"""Polars frames as vectors: the border between the offline engine and NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.features.accumulator import Words
from flyball.features.states import SourceState
from flyball.features.vector import Vector

CURRENT = 1 << 62  # `_until` of a version that no other has taken the place of
_FILL: dict[Any, Any] = {pl.String: "", pl.Boolean: False, pl.Float64: 0.0}


def is_known(state: SourceState) -> pl.Expr:
    """Of an event: it was applied, and is known, where a source stands."""
    return (pl.col("_lsn") <= state.lsn) & (pl.col("_known_at") <= state.known_through)


def is_ahead(source: SourceSpec, state: SourceState) -> pl.Expr:
    """Of an event: it is so far ahead of its time that it is held back."""
    return pl.col("_event_time") - source.skew > state.known_through


def vector(series: pl.Series) -> Vector:
    """A physical column (no null is NaN, no NaN is null)."""
    valid = series.is_not_null().to_numpy()
    if series.null_count():
        series = series.fill_null(_FILL.get(series.dtype, 0))
    if series.dtype == pl.String:
        values = np.empty(len(series), object)
        values[:] = series.to_list()
        return Vector(values, valid)
    return Vector(series.to_numpy(), valid)


def vectors(frame: pl.DataFrame, names: Iterable[str]) -> dict[str, Vector]:
    return {name: vector(frame[name]) for name in names}


def words(frame: pl.DataFrame, name: str) -> Words:
    """A column of integers without nulls, such as `_lsn`."""
    return np.ascontiguousarray(frame[name].to_numpy(), np.int64)


def once(events: pl.DataFrame) -> pl.DataFrame:
    """Each event once: of those with one key the one with the lowest LSN. In LSN order."""
    return events.sort("_lsn").unique("_key", keep="first", maintain_order=True)


def history(events: pl.DataFrame, source: SourceSpec) -> pl.DataFrame:
    """The versions of events that count, in LSN order, with `_until`: when each ceased to (`CURRENT`: it has not).

    Where a source takes no corrections that is `once`. Where it does, the versions of a key follow each other in the
    order (known_at, lsn): each counts until the next is known, and one marked `_deleted` only ends what was before.
    """
    if not source.corrections:
        return once(events).with_columns(pl.lit(CURRENT, pl.Int64).alias("_until"))
    following = pl.col("_known_at").shift(-1).over("_key")
    ordered = events.sort("_known_at", "_lsn").with_columns(following.fill_null(CURRENT).alias("_until"))
    return ordered.filter(~pl.col("_deleted").fill_null(False)).drop("_deleted").sort("_lsn")


def readable(frame: pl.DataFrame, source: SourceSpec) -> list[pl.Series]:
    """The columns of a physical frame as people read them: decimals as float64, times in UTC."""
    types = {column.name: column for column in source.columns}
    found = []
    for series in frame:
        column = types.get(series.name)
        if column is not None and column.type == "decimal":
            series = series.cast(pl.Float64) / float(10**column.scale)
        elif column is not None and column.type == "timestamp":
            series = series.cast(pl.Datetime("us", "UTC"))
        found.append(series)
    return found
