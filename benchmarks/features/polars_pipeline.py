"""A hand-written pipeline: read, validate, split, write good rows and bad rows to Delta. Argument: a file.

The same contract, and the same types in the tables, as ours: money as decimals, times as timestamps.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from deltalake import write_deltalake

TYPES = {
    "id": pl.String,
    "user": pl.Int64,
    "merchant": pl.Int64,
    "amount": pl.Float64,
    "kind": pl.String,
    "status": pl.String,
    "online": pl.Boolean,
    "at": pl.Int64,
}


def main(path: str) -> None:
    cpu, started = time.process_time(), time.perf_counter()
    frame = pl.read_parquet(path) if path.endswith(".parquet") else pl.read_csv(path, schema_overrides=TYPES)
    reason = (
        pl.when(pl.any_horizontal(pl.col("id", "user", "merchant", "amount", "at").is_null()))
        .then(pl.lit("null"))
        .when(~pl.col("amount").is_between(0.0, 10_000.0))
        .then(pl.lit("range"))
        .when(~pl.col("kind").is_in(["card", "cash", "transfer", "wallet"]))
        .then(pl.lit("category"))
        .when(~pl.col("status").str.contains(r"^[A-Z]{2}-[0-9]$"))
        .then(pl.lit("pattern"))
    )
    frame = frame.with_columns(
        reason.alias("reason"),
        pl.col("amount").cast(pl.Decimal(18, 2)),
        pl.col("at").cast(pl.Datetime("us", "UTC")),
    )
    good = frame.filter(pl.col("reason").is_null()).drop("reason")
    first = good["id"].is_first_distinct()
    bad = pl.concat(
        [
            frame.filter(pl.col("reason").is_not_null()),
            good.filter(~first).with_columns(pl.lit("duplicate").alias("reason")),
        ]
    )
    good = good.filter(first)
    with tempfile.TemporaryDirectory(prefix="bench-polars-") as folder:
        write_deltalake(str(Path(folder) / "good"), good)
        write_deltalake(str(Path(folder) / "bad"), bad)
        seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": time.process_time() - cpu,
                "rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
                "good": good.height,
                "bad": bad.height,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
