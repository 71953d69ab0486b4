"""Ours: 22 window features for rows, from Parquet to values.

Arguments: events, rows, `event` or `known`, and `check` to compare 2,000 of the rows with their values by definition.
"""

from __future__ import annotations

import sys
from typing import cast

import numpy as np
import polars as pl

from benchmarks.features import bruteforce
from benchmarks.features.data import SEED, events_path, rows_path
from benchmarks.features.view import SOURCE, VIEW
from benchmarks.report import Measured
from flyball.features.frames import CURRENT
from flyball.features.keys import encode_keys
from flyball.features.offline import AsOf, sweep
from flyball.features.vector import Vector
from flyball.features.views import CompiledView, ViewValues

SAMPLE = 2_000  # rows that are compared


def physical(n: int) -> pl.DataFrame:
    """The events as ingestion would have stored them, of the columns that the view reads."""
    frame = pl.read_parquet(events_path(n), columns=["user", "merchant", "amount", "at", "known_at"])
    return frame.select(
        "user",
        "merchant",
        (pl.col("amount") * 100).round().cast(pl.Int64).alias("amount"),
        pl.col("at").alias("_event_time"),
        pl.col("known_at").alias("_known_at"),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("_lsn"),
        pl.lit(CURRENT, pl.Int64).alias("_until"),
    )


def main(events: int, rows: int, asof: AsOf, *, check: bool) -> None:
    view = CompiledView(VIEW, SOURCE)
    _compute(view, physical(events)[:2_000], pl.read_parquet(rows_path(events, rows))[:100], asof)  # compiled before
    with Measured() as measured:
        spine = pl.read_parquet(rows_path(events, rows))
        found = _compute(view, physical(events), spine, asof)
    more: dict[str, int] = {}
    if check:
        chosen = np.sort(np.random.default_rng(SEED + 3).choice(rows, SAMPLE, replace=False))
        sampled = np.where(found.valid, found.values, np.nan)[chosen]
        more = {"checked": bruteforce.check(sampled, events_path(events), spine[chosen], asof)}
    measured.done(rows_per_second=rows / measured.seconds, total=float(np.nansum(found.values)), **more)


def _compute(view: CompiledView, events: pl.DataFrame, rows: pl.DataFrame, asof: AsOf) -> ViewValues:
    users = rows["user"].to_numpy()
    keys = encode_keys([Vector(users, np.ones(len(users), np.bool_))], [SOURCE.column("user")], len(users))
    return sweep(view, events, keys, rows["at"].to_numpy().astype(np.int64), asof=asof)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), cast(AsOf, sys.argv[3]), check=sys.argv[4:] == ["check"])
