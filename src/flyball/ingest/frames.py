"""The two forms of a source's rows: physical (what the platform computes with) and of the lake (what people read)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import polars as pl

from flyball.define.spec import ColumnType, SourceSpec
from flyball.ingest.parsing import PHYSICAL
from flyball.ingest.rejection import DELETED

SYSTEM_COLUMNS: dict[str, pl.DataType] = {
    "_event_time": pl.Int64(),
    "_known_at": pl.Int64(),
    "_lsn": pl.Int64(),
    "_key": pl.Binary(),
}
DECIMAL_PRECISION = 18
_TIME = pl.Datetime("us", "UTC")


def physical_schema(spec: SourceSpec) -> dict[str, pl.DataType]:
    """Column → dtype of a physical frame: the declared columns, `_event_time`, `_known_at`, `_lsn`, `_key`, and
    `_deleted` where the source takes corrections."""
    return {column.name: PHYSICAL[column.type] for column in spec.columns} | system_columns(spec)


def system_columns(spec: SourceSpec) -> dict[str, pl.DataType]:
    """The columns that the platform adds to a source's own."""
    return SYSTEM_COLUMNS | ({DELETED: pl.Boolean()} if spec.corrections else {})


def numbered(frame: pl.DataFrame, first_lsn: int, *, known_at: int | None) -> pl.DataFrame:
    """A checked frame with its log sequence numbers; `known_at` None: history, which brings its own."""
    lsns = pl.int_range(first_lsn, first_lsn + frame.height, dtype=pl.Int64, eager=True).alias("_lsn")
    known = [] if known_at is None else [pl.lit(known_at, dtype=pl.Int64).alias("_known_at")]
    last = [*SYSTEM_COLUMNS, *([DELETED] if DELETED in frame.columns else [])]
    ordered = [name for name in frame.columns if name not in last] + last
    return frame.with_columns(lsns, *known).select(ordered)


def meanings(spec: SourceSpec) -> dict[str, tuple[ColumnType, int]]:
    """Column → (type, scale): what is needed to read a physical value, without the rest of the contract."""
    return {column.name: (column.type, column.scale) for column in spec.columns}


def lake_types(columns: Mapping[str, tuple[ColumnType, int]]) -> dict[str, pl.DataType]:
    """Column → dtype of the source's table in the lake."""
    types = {name: lake_type(kind, scale) for name, (kind, scale) in columns.items()}
    system = {name: _TIME if name in ("_event_time", "_known_at") else t for name, t in SYSTEM_COLUMNS.items()}
    return types | system | {DELETED: pl.Boolean()}


def lake_type(kind: ColumnType, scale: int) -> pl.DataType:
    if kind == "decimal":
        return pl.Decimal(DECIMAL_PRECISION, scale)
    return _TIME if kind == "timestamp" else PHYSICAL[kind]


def to_lake(frame: pl.DataFrame, columns: Mapping[str, tuple[ColumnType, int]]) -> pl.DataFrame:
    """A physical frame with the types of the lake; exact both ways. Columns that the frame lacks are left out."""
    return frame.select(_friendly(n, dtype) for n, dtype in lake_types(columns).items() if n in frame.columns)


def from_lake(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame with the types of the lake as a physical one."""
    return frame.select(physical(name, dtype) for name, dtype in frame.schema.items())


def physical(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column of the lake in physical form: decimals in units, times in µs."""
    if isinstance(dtype, pl.Decimal):
        return pl.col(name).to_physical().cast(pl.Int64)
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).cast(pl.Datetime("us")).cast(pl.Int64)
    return pl.col(name)


def fitted(frame: pl.DataFrame, spec: SourceSpec) -> pl.DataFrame:
    """A physical frame of an earlier declaration as one of this: new columns are null, those that went are left out."""
    schema = physical_schema(spec)
    if list(schema) == frame.columns:
        return frame
    return frame.select(
        pl.col(name) if name in frame.columns else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in schema.items()
    )


def _friendly(name: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Decimal):
        scale = dtype.scale
        unit = pl.lit(Decimal(1).scaleb(-scale)).cast(pl.Decimal(38, scale))
        return (pl.col(name).cast(pl.Decimal(38, scale)) * unit).cast(dtype)
    if dtype == _TIME:
        return pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.col(name)
