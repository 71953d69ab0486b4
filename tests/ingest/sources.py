"""Sources that the tests of ingestion share, and an applier in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from flyball.define.spec import ColumnSpec, KnownSpec, SourceSpec, ViewSpec
from flyball.ingest.service import Ingest, IngestConfig
from flyball.kernel.clock import Clock, ManualClock
from flyball.kernel.times import DAY, HOUR, SECOND
from flyball.platform.conditions import conditions
from flyball.storage.event_log import SqliteEventLog
from flyball.storage.lake import DeltaLake

NOW = 1_700_000_000 * SECOND

PAYMENTS = SourceSpec(
    name="Payments",
    columns=(
        ColumnSpec(name="id", type="string", max_length=12),
        ColumnSpec(name="card", type="string", pii=True, pattern="[0-9]{4}"),
        ColumnSpec(name="amount", type="decimal", scale=2, ge=0.0, le=1000.0),
        ColumnSpec(name="kind", type="category", categories=("chip", "online"), nullable=True),
        ColumnSpec(name="score", type="float", gt=-1.0, lt=1.0, nullable=True),
        ColumnSpec(name="items", type="integer", nullable=True),
        ColumnSpec(name="gift", type="boolean", nullable=True),
        ColumnSpec(name="due", type="timestamp", nullable=True),
    ),
    event_time="at",
    event_time_unit="s",
    key=("id",),
    known=KnownSpec(kind="delay", delay=HOUR),
)

TRIPS = SourceSpec(
    name="Trips",
    columns=(
        ColumnSpec(name="company", type="string", nullable=True),
        ColumnSpec(name="pickup_community_area", type="string", nullable=True),
        ColumnSpec(
            name="payment_type",
            type="category",
            categories=("Cash", "Credit Card", "No Charge", "Dispute", "Pcard", "Prcard", "Unknown"),
        ),
        ColumnSpec(name="fare", type="decimal", scale=2, ge=0.0, le=1000.0),
        ColumnSpec(name="tips", type="decimal", scale=2, ge=0.0),
        ColumnSpec(name="trip_miles", type="float", ge=0.0),
        ColumnSpec(name="trip_seconds", type="integer", nullable=True),
    ),
    event_time="trip_start_timestamp",
    event_time_unit="s",
    known=KnownSpec(kind="delay", delay=HOUR),
)

LIVE_ONLY = SourceSpec(
    name="Clicks", columns=(ColumnSpec(name="page", type="string"),), event_time="at", event_time_unit="s"
)


def payment(number: int, **changes: Any) -> dict[str, Any]:
    """A good payment; `changes` replace its values, `...` removes one."""
    row: dict[str, Any] = {"id": f"p{number}", "card": "1234", "amount": 12.45, "at": NOW // SECOND - 60}
    row |= changes
    return {name: value for name, value in row.items() if value is not ...}


class MemoryApplier:
    """Keeps the keys of what was applied, in memory."""

    def __init__(self) -> None:
        self.first: dict[str, dict[bytes, int]] = {}
        self.applied: dict[str, int] = {}
        self.released = 0
        self.views: tuple[ViewSpec, ...] = ()

    def load_plan(
        self,
        sources: Sequence[SourceSpec],
        views: Sequence[ViewSpec],
        earlier: Sequence[tuple[ViewSpec, SourceSpec]] = (),
    ) -> None:
        self.views = tuple(views)

    def apply(self, source: str, frame: pl.DataFrame) -> int:
        done, first = self.applied.get(source, 0), self.first.setdefault(source, {})
        count = 0
        for key, lsn in zip(frame["_key"], frame["_lsn"], strict=True):
            assert isinstance(key, bytes)
            assert len(key) == 16
            if lsn > done:
                first.setdefault(key, lsn)
                count += 1
                done = lsn
        self.applied[source] = done
        return count

    def columns(self, source: str) -> list[str]:
        return []

    def release(self, now: int) -> int:
        self.released = now
        return 0

    def seen_first(self, source: str, lsns: pl.Series) -> pl.Series:
        return lsns.is_in(list(self.first.get(source, {}).values()))

    def applied_lsn(self, source: str) -> int:
        return self.applied.get(source, 0)


def make_ingest(
    folder: Path,
    *,
    clock: Clock | None = None,
    applier: MemoryApplier | None = None,
    sources: Sequence[SourceSpec] = (PAYMENTS, TRIPS, LIVE_ONLY),
    config: IngestConfig | None = None,
) -> Ingest:
    """The core over a log and a lake in `folder`; opening the same folder again is a restart."""
    ingest = Ingest(
        log=SqliteEventLog(folder / "log"),
        lake=DeltaLake(folder / "lake"),
        applier=applier or MemoryApplier(),
        clock=clock or ManualClock(NOW),
        conditions=conditions,
        config=config,
    )
    ingest.load_plan({"epoch": 1, "digest": "d", "sources": list(sources), "views": []})
    return ingest


__all__ = ["DAY", "HOUR", "LIVE_ONLY", "NOW", "PAYMENTS", "SECOND", "TRIPS", "MemoryApplier", "make_ingest", "payment"]
