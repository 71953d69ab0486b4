"""Stand-ins for what the loops need from other rooms and from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flyball.kernel.errors import ExhaustedError, UnavailableError
from flyball.kernel.files import read_document, write_document
from flyball.kernel.ids import digest
from flyball.loop.ports import Acknowledgement
from flyball.monitoring.profile import profile
from flyball.registry import versions
from flyball.serving.log import Slice
from flyball.training.ports import (
    ERROR_FORMAT,
    RESULT_FORMAT,
    SPEC_FORMAT,
    Handle,
    Horizon,
    Poll,
    PollState,
    run_spec_from_data,
)


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

    def read(self, slot: str, segment: str, offset: int, *, end: int | None = None) -> Slice:
        records = self.data[slot][segment][offset:end]
        return Slice(records=tuple(records), end=offset + len(records), torn=(slot, segment) in self.torn)

    def remove(self, slot: str, segment: str) -> None:
        self.data[slot].pop(segment, None)

    def live(self, slot: str) -> bool:
        return True

    def turn(self, slot: str) -> None: ...


class FakeLake:
    """Tables in memory that know the versions of an application."""

    def find(self, table: str, columns: Sequence[str], hit: Any) -> list[str]:
        return []

    def blank(self, table: str, column: str, values: Sequence[str], blanks: Any) -> None: ...

    def erase(self, table: str, column: str, values: Sequence[Any]) -> None: ...

    def __init__(self) -> None:
        self.tables: dict[str, pl.DataFrame] = {}
        self.versions: dict[tuple[str, str], int] = {}
        self.full = False

    def append(self, table: str, frame: pl.DataFrame, *, app_id: str, version: int) -> bool:
        if self.full:
            raise ExhaustedError("the disk is full", code="disk_full")
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


class FakeIngest:
    """Says how far each source's table reaches; `down` makes it unavailable."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.down = False

    def flush(self, sources: Sequence[str]) -> dict[str, Horizon]:
        if self.down:
            raise UnavailableError("ingest is starting")
        return {s: Horizon(lsn=self.rows.get(s, 0), version=1, rows=self.rows.get(s, 0)) for s in sources}

    def count_erased(self, source: str, column: str, digests: Sequence[str]) -> dict[str, Any]:
        return {"rows": 0, "quarantined": 0, "lsns": []}

    def erase(self, source: str, column: str, digests: Sequence[str], *, entity: bytes | None) -> None: ...

    def sizes(self) -> dict[str, int]:
        if self.down:
            raise UnavailableError("ingest is starting")
        return self.rows


class FakeEngine:
    """Runs that end when `finish`, `fail` or `lose` is called."""

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.alive: set[int] = set()
        self._pids: dict[str, int] = {}

    def launch(self, run_dir: Path) -> Handle:
        self.launched.append(run_dir.name)
        self._pids[run_dir.name] = len(self.launched)
        self.alive.add(len(self.launched))
        return Handle(boot="boot", pid=len(self.launched), started=1)

    def find(self, run_dir: Path) -> Handle | None:
        return None

    def poll(self, handle: Handle) -> Poll:
        return Poll(state=PollState.RUNNING if handle.pid in self.alive else PollState.EXITED)

    def stop(self, handle: Handle, *, grace: float = 10.0) -> Poll:
        self.alive.discard(handle.pid)
        return self.poll(handle)

    def end(self, run: str) -> None:
        self.alive.discard(self._pids[run])

    def finish(self, run_dir: Path, *, auc: float = 0.9, champion: float | None = None, rows: int = 200) -> None:
        """Leave a version and a result, as a training process does."""
        spec = run_spec_from_data(read_document(run_dir / "spec.json", SPEC_FORMAT))
        fares = np.linspace(0.0, 10.0, 1_000).reshape(-1, 1)
        metrics = {"auc": auc}
        evaluation: dict[str, Any] = {"rows": {"train": 800, "test": rows}}
        if champion is not None:
            evaluation["champion"] = {"metrics": {"auc": champion}}
        manifest = {
            "model": spec.model.name,
            "task": {"kind": "binary"},
            "rows": spec.model.rows,
            "features": [f.to_data() for f in spec.model.features],
            "views": [],
            "sources": [s.to_data() for s in spec.project.sources],
            "inputs": [c.to_data() for c in spec.project.source(spec.model.rows).columns if c.name == "fare"],
            "profile": profile(fares, ["fare"], [], {}),
            "metrics": metrics,
            "evaluation": evaluation,
            "run": {"spec": run_dir.name},
            "snapshot": {n: h.to_data() for n, h in spec.horizon.items()},
            "bundle": spec.bundle,
        }
        versions.write(manifest, {"model.txt": run_dir.name.encode()}, run_dir / "version")
        write_document(run_dir / "result.json", RESULT_FORMAT, {"metrics": metrics})
        self.end(run_dir.name)

    def fail(self, run_dir: Path, message: str) -> None:
        error = {"code": "too_few_rows", "kind": "invalid", "message": message}
        write_document(run_dir / "error.json", ERROR_FORMAT, error)
        self.end(run_dir.name)


class FakeArtifacts:
    """Bytes by their digest."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        self.data[digest(data)] = data
        return digest(data)

    def get(self, digest: str) -> bytes:
        return self.data[digest]

    def has(self, digest: str) -> bool:
        return digest in self.data

    def path(self, digest: str) -> Path:
        raise NotImplementedError
