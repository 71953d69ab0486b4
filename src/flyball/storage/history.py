"""The lake's tables of sources, as the audit and explanations read them: raw rows, only what is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from flyball.define.spec import SourceSpec
from flyball.kernel.times import to_datetime

_TEXT = {"string": pl.String(), "category": pl.String(), "float": pl.Float64(), "boolean": pl.Boolean()}
_SYSTEM: dict[str, pl.DataType] = {
    "_event_time": pl.Int64(),
    "_known_at": pl.Int64(),
    "_lsn": pl.Int64(),
    "_key": pl.Binary(),
    "_deleted": pl.Boolean(),
}


class Tables(Protocol):
    """The lake, as far as it is read here."""

    def types(self, table: str) -> dict[str, pl.DataType]:
        """Column → type; empty where there is no such table."""

    def scan(self, table: str) -> pl.LazyFrame: ...


class LakeHistory:
    """`features.ports.EventSlices` over the lake. `now` is domain time, from which retention counts back."""

    def __init__(self, lake: Tables, now: Any) -> None:
        self._lake = lake
        self._now = now

    def slice(
        self,
        source: SourceSpec,
        columns: Sequence[str],
        *,
        since: int | None,
        before: int | None,
        where: Mapping[str, Sequence[Any]],
    ) -> pl.DataFrame:
        names = list(dict.fromkeys([*columns, *_SYSTEM]))
        if not source.corrections:
            names.remove("_deleted")
        types = self._lake.types(source.name)
        if not types:
            return pl.DataFrame(schema={name: _physical_type(source, name) for name in names})
        scan = self._lake.scan(source.name)
        time = pl.col("_event_time")
        if since is not None:
            scan = scan.filter(time >= _time(since, types["_event_time"]))
        if before is not None:
            scan = scan.filter(time < _time(before, types["_event_time"]))
        for name, values in where.items():
            if name in types:
                scan = scan.filter(_is_in(name, list(values), types[name]))
        there = [_physical(name, types[name]) for name in names if name in types]
        frame = scan.select(there).collect()
        gone = [pl.lit(None, dtype=_physical_type(source, n)).alias(n) for n in names if n not in types]
        return frame.with_columns(gone).select(names).sort("_lsn")

    def kept_from(self, source: SourceSpec) -> int | None:
        if source.retention is not None:
            return int(self._now()) - source.retention
        types = self._lake.types(source.name)
        if not types:
            return None
        oldest = self._lake.scan(source.name).select(
            pl.col("_lsn").min(), _physical("_event_time", types["_event_time"]).min()
        )
        lsn, time = oldest.collect().row(0)
        return None if lsn is None or lsn <= 1 else int(time)  # the first rows are not there any more


def _is_in(name: str, values: list[Any], dtype: pl.DataType) -> pl.Expr:
    """Physical values against a column of the lake."""
    if isinstance(dtype, pl.Decimal):
        return pl.col(name).to_physical().cast(pl.Int64).is_in(values)
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).cast(pl.Datetime("us")).cast(pl.Int64).is_in(values)
    return pl.col(name).is_in(pl.Series(values, dtype=dtype).implode())


def _physical(name: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Decimal):
        return pl.col(name).to_physical().cast(pl.Int64)
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).cast(pl.Datetime("us")).cast(pl.Int64)
    return pl.col(name)


def _physical_type(source: SourceSpec, name: str) -> pl.DataType:
    return _SYSTEM.get(name) or _TEXT.get(source.column(name).type) or pl.Int64()


def _time(at: int, dtype: pl.DataType) -> Any:
    return to_datetime(at) if isinstance(dtype, pl.Datetime) else at
