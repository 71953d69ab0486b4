"""The events in a table of the lake, as ingestion leaves them, and rows over them: made once. Arguments: how many.

The table has the columns that the view reads, those of the system among them, and commits of 250 k rows, which the lake
merges as it does everywhere.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from benchmarks.features.data import events_path, rows_path
from benchmarks.features.view import SOURCE
from benchmarks.harness import CACHE
from flyball.ingest.frames import meanings, to_lake
from flyball.ingest.keys import event_keys
from flyball.storage.lake import DeltaLake

COMMIT = 250_000
COLUMNS = ("user", "merchant", "amount", "_event_time", "_known_at", "_lsn", "_key")


def lake_path(n: int) -> Path:
    """The lake's folder; `make` it before."""
    return CACHE / "data" / f"lake_{n}"


def make(n: int) -> Path:
    """The lake's folder, with the source's table of `n` events in it."""
    path = lake_path(n)
    if not path.exists():
        made = path.with_name(f"{path.name}.making")
        shutil.rmtree(made, ignore_errors=True)
        lake, lsn = DeltaLake(made), 0
        for events in _parts(events_path(n)):
            frame = to_lake(_physical(events, lsn), meanings(SOURCE))
            for start in range(0, frame.height, COMMIT):
                commit = frame[start : start + COMMIT]
                lsn += commit.height
                lake.append(SOURCE.name, commit, app_id=SOURCE.name, version=lsn)
        made.rename(path)
    return path


def _parts(path: Path) -> Iterator[pl.DataFrame]:
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        yield pl.read_parquet(file, columns=["id", "user", "merchant", "amount", "at", "known_at"])


def _physical(events: pl.DataFrame, after_lsn: int) -> pl.DataFrame:
    frame = events.with_columns(
        (pl.col("amount") * 100).round().cast(pl.Int64),
        pl.col("at").alias("_event_time"),
        pl.col("known_at").alias("_known_at"),
        (pl.int_range(pl.len(), dtype=pl.Int64) + after_lsn + 1).alias("_lsn"),
    )
    return frame.with_columns(event_keys(frame, SOURCE)).select(COLUMNS)


if __name__ == "__main__":
    rows_path(int(sys.argv[1]), int(sys.argv[2]))
    files = list((make(int(sys.argv[1])) / SOURCE.name).glob("*.parquet"))
    print(json.dumps({"files": len(files), "gb": sum(file.stat().st_size for file in files) / 1e9}))
