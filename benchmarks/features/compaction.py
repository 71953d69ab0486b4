"""Ours: a table after 1,440 flushes of pushes of 100 rows, one a minute for 24 h, read beside a compacted copy.

Events go the platform's own way: log, online state, lake; only the minutes pass faster. A read opens the table anew and
takes all of it, as who comes with a query does; the two tables are read in turns. Argument: how many flushes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from benchmarks.features.data import START
from benchmarks.features.view import SOURCE
from benchmarks.harness import CACHE
from benchmarks.report import Measured
from flyball.kernel.clock import ManualClock
from flyball.kernel.settings import Settings
from flyball.platform.wiring import open_ingest
from flyball.storage.lake import DeltaLake

ROWS, MINUTE = 100, 60_000_000
READS = 25


def main(flushes: int) -> None:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="compaction-", dir=CACHE) as folder:
        state, copy = Path(folder) / "state", Path(folder) / "copy"
        with Measured() as measured:
            lake = _push(state, flushes)
        whole = DeltaLake(lake).scan(SOURCE.name).collect()
        if whole.height != flushes * ROWS:
            raise SystemExit(f"{flushes * ROWS} rows were pushed, and {whole.height} are in the table")
        compacted = DeltaLake(copy)
        compacted.append(SOURCE.name, whole, app_id=SOURCE.name, version=whole.height)
        if compacted.files(SOURCE.name) != 1:
            raise SystemExit("the copy is not one file")
        took, alone = _read_in_turns(lake, copy)
        measured.done(
            ratio=took / alone,
            read_ms=took,
            copy_ms=alone,
            files=DeltaLake(lake).files(SOURCE.name),
            bytes=_bytes(lake),
            copy_bytes=_bytes(copy),
            minute_ms=measured.seconds * 1e3 / flushes,
        )


def _push(state: Path, flushes: int) -> Path:
    """The folder of the lake after that many minutes."""
    clock = ManualClock(START)
    ingest = open_ingest(Settings(state=state), clock=clock)
    ingest.load_plan({"epoch": 1, "digest": "bench", "sources": [SOURCE.to_data()], "views": []})
    rng = np.random.default_rng(5)
    for n in range(flushes):
        began = clock.now()
        clock.advance_to(began + MINUTE)
        receipt = ingest.append(SOURCE.name, _rows(rng, n * ROWS, began))
        if receipt.accepted != ROWS:
            raise SystemExit(f"of {ROWS} rows {receipt.accepted} were accepted")
        ingest.apply()
        ingest.flush([SOURCE.name])
    return state / "lake"


def _rows(rng: np.random.Generator, first: int, began: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": pl.Series(np.arange(first, first + ROWS)).cast(pl.String).str.zfill(12),
            "user": rng.zipf(1.3, ROWS) % 50_000,
            "merchant": rng.integers(0, 5_000, ROWS),
            "amount": np.round(rng.lognormal(3.0, 1.0, ROWS), 2).clip(0.01, 9_999.0),
            "kind": np.array(["card", "cash", "transfer", "wallet"])[rng.integers(0, 4, ROWS)],
            "status": np.array(["OK-1", "OK-2", "NO-1"])[rng.integers(0, 3, ROWS)],
            "online": rng.random(ROWS) < 0.4,
            "at": began + np.sort(rng.integers(0, MINUTE, ROWS)),
        }
    )


def _read_in_turns(table: Path, copy: Path) -> tuple[float, float]:
    """The median of reading either, ms."""
    took: tuple[list[float], list[float]] = ([], [])
    for n in range(READS + 1):
        for folder, found in zip((table, copy), took, strict=True):
            began = time.perf_counter()
            DeltaLake(folder).scan(SOURCE.name).collect()
            if n:  # the first of each warms up
                found.append((time.perf_counter() - began) * 1e3)
    return median(took[0]), median(took[1])


def _bytes(folder: Path) -> int:
    """Of the data files in the folder of the table, also of those that are kept for readers of older versions."""
    return sum(file.stat().st_size for file in (folder / SOURCE.name).glob("*.parquet"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1_440)
