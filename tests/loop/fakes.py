"""Stand-ins for what the loops need from other rooms and from disk."""

from __future__ import annotations

from typing import Any

import polars as pl

from flyball.loop.ports import Acknowledgement, Slice


class FakeLog:
    """A prediction log in memory: slot → segment → records; an offset is a number of records. `torn` are the segments
    with half a record at their end."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.torn: set[tuple[str, str]] = set()

    def write(self, slot: str, segment: str, *records: dict[str, Any]) -> None:
        self.data.setdefault(slot, {}).setdefault(segment, []).extend(records)

    def slots(self) -> list[str]:
        return sorted(self.data)

    def segments(self, slot: str) -> list[str]:
        return sorted(self.data[slot])

    def live(self, slot: str) -> bool:
        return True

    def read(self, slot: str, segment: str, offset: int, *, end: int | None = None) -> Slice:
        records = self.data[slot][segment][offset:end]
        return Slice(records=records, end=offset + len(records), torn=(slot, segment) in self.torn)

    def remove(self, slot: str, segment: str) -> None:
        self.data[slot].pop(segment, None)


class FakeLake:
    """Tables in memory that know the versions of an application."""

    def __init__(self) -> None:
        self.tables: dict[str, pl.DataFrame] = {}
        self.versions: dict[tuple[str, str], int] = {}

    def append(self, table: str, frame: pl.DataFrame, *, app_id: str, version: int) -> bool:
        if self.versions.get((table, app_id), 0) >= version:
            return False
        self.versions[table, app_id] = version
        self.tables[table] = pl.concat([self.tables[table], frame]) if table in self.tables else frame
        return True

    def scan(self, table: str) -> pl.LazyFrame:
        return self.tables[table].lazy()

    def types(self, table: str) -> dict[str, pl.DataType]:
        return dict(self.tables[table].schema) if table in self.tables else {}


class FakePlans:
    """Published plans in memory; `workers` acknowledge at once, unless `refusal` says why they do not."""

    def __init__(self) -> None:
        self.published: dict[str, dict[str, Any]] = {}
        self.workers = 1
        self.refusal = ""

    def publish(self, kind: str, plan: dict[str, Any]) -> None:
        self.published[kind] = plan

    def current(self, kind: str) -> dict[str, Any] | None:
        return self.published.get(kind)

    def acknowledgements(self) -> list[Acknowledgement]:
        plan = self.published.get("serving")
        if plan is None:
            return []
        return [
            Acknowledgement(process=f"worker-{n}", epoch=plan["epoch"], digest=plan["digest"], error=self.refusal)
            for n in range(self.workers)
        ]


def record(n: int, **changes: Any) -> dict[str, Any]:
    """A prediction record as a worker logs it."""
    return {
        "id": f"pred_{n}",
        "service": "tip",
        "version": "tip/1",
        "arm": "stable",
        "propensity": 1.0,
        "at": 1_000 + n,
        "wall": 5_000 + n,
        "latency_us": 900,
        "batch": 1,
        "key": {"id": str(n)},
        "inputs": {"fare": 3.5},
        "features": {"fare": 3.5},
        "lsn": {"Trips": 9},
        "known_through": {"Trips": 9},
        "output": 0.25,
        "rung": "model",
        "feature_state": "fresh",
        "error": None,
        "usage": {},
        "cost": None,
    } | changes
