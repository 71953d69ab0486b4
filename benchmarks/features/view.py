"""The view of this benchmark: 22 features over payments by user."""

from __future__ import annotations

from flyball.define.spec import AggregateSpec, ColumnSpec, KnownSpec, SourceSpec, ViewSpec
from flyball.kernel.times import duration, hop

WINDOWS = ("1h", "24h", "7d", "30d")
OPS = ("count", "sum", "mean", "std", "max")

SOURCE = SourceSpec(
    name="Payments",
    event_time="at",
    key=("id",),
    known=KnownSpec(kind="delay", delay=0),
    columns=(
        ColumnSpec(name="id", type="string"),
        ColumnSpec(name="user", type="integer"),
        ColumnSpec(name="merchant", type="integer"),
        ColumnSpec(name="amount", type="decimal", scale=2, ge=0.0, le=10_000.0),
        ColumnSpec(name="kind", type="category", categories=("card", "cash", "transfer", "wallet")),
        ColumnSpec(name="status", type="string", pattern="[A-Z]{2}-[0-9]"),
        ColumnSpec(name="online", type="boolean"),
        ColumnSpec(name="at", type="timestamp"),
    ),
)


def _aggregate(name: str, op: str, column: str, window: str) -> AggregateSpec:
    length = duration(window)
    value = None if op == "count" else ["col", "Payments", column]
    default = 0.0 if op in ("count", "sum", "distinct") else None
    return AggregateSpec(name=name, op=op, value=value, window=length, hop=hop(length), default=default)  # type: ignore[arg-type]


VIEW = ViewSpec(
    name="ByUser",
    kind="window",
    source="Payments",
    entity=("user",),
    aggregates=(
        *(_aggregate(f"{op}_{window}", op, "amount", window) for window in WINDOWS for op in OPS),
        _aggregate("merchants_24h", "distinct", "merchant", "24h"),
        _aggregate("last_30d", "last", "amount", "30d"),
    ),
)
