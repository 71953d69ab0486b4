"""The data of this benchmark: payments of Zipf-distributed users over 90 days, and rows to compute features for.

Written once to `.bench/data`, by seeded generators; every script reads the same files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import CACHE

USERS, MERCHANTS, DAYS = 50_000, 5_000, 90
START = 1_750_000_000_000_000
DAY = 86_400_000_000
HOUR = 3_600_000_000
LATE, LATENESS = 0.05, 3 * HOUR  # share of late events, and their mean delay
SEED = 20_261_124
PART = 5_000_000  # events that are made at once


def events_path(n: int) -> Path:
    """`n` events in Parquet, in the order of time: id, user, merchant, amount, kind, status, online, at, known_at.

    One file, or beyond `PART` events a folder of them; readers of Parquet take either.
    """
    parts = max(1, n // PART)
    path = CACHE / "data" / (f"events_{n}.parquet" if parts == 1 else f"events_{n}")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f"{path.name}.making")
        if parts == 1:
            _write(_events(n, 0, 1), made)
        else:
            made.mkdir(exist_ok=True)
            for part in range(parts):  # one at a time: ten of them are more than is there
                _write(_events(n, part, parts), made / f"part-{part:02}.parquet")
        made.rename(path)
    return path


def rows_path(n_events: int, n: int) -> Path:
    """`n` rows (user, at): users in proportion to their activity; a fifth of the times are those of an event."""
    path = CACHE / "data" / f"rows_{n_events}_{n}.parquet"
    if not path.exists():
        rng = np.random.default_rng(SEED + 1)
        events = pl.read_parquet(events_path(n_events), columns=["user", "at"])
        chosen = events[rng.integers(0, events.height, n)]
        moved = np.where(rng.random(n) < 0.2, 0, rng.integers(1, 12 * HOUR, n))
        chosen.with_columns(at=pl.Series(chosen["at"].to_numpy() + moved)).sort("at").write_parquet(path)
    return path


def dirty_path(n: int, kind: str) -> Path:
    """`n` events of which 0.5 % break the contract: null, range, category, pattern, and an id that came before."""
    path = CACHE / "data" / f"dirty_{n}.{kind}"
    if not path.exists():
        rng = np.random.default_rng(SEED + 2)
        frame = pl.read_parquet(events_path(n)).drop("known_at")
        broken = np.where(rng.random(n) < 0.005, rng.integers(1, 6, n), 0)
        broken[0] = 0
        frame = frame.with_columns(pl.Series("broken", broken)).with_columns(
            merchant=pl.when(pl.col("broken") == 1).then(None).otherwise("merchant"),
            amount=pl.when(pl.col("broken") == 2).then(-1.0).otherwise("amount"),
            kind=pl.when(pl.col("broken") == 3).then(pl.lit("barter")).otherwise("kind"),
            status=pl.when(pl.col("broken") == 4).then(pl.lit("??")).otherwise("status"),
            id=pl.when(pl.col("broken") == 5).then(pl.col("id").shift(1)).otherwise("id"),
        )
        frame = frame.drop("broken")
        if kind == "parquet":
            _write(frame, path)
        else:
            frame.write_csv(path)
    return path


def _write(frame: pl.DataFrame, path: Path) -> None:
    frame.write_parquet(path, compression="zstd", row_group_size=250_000)


def _events(n: int, part: int, parts: int) -> pl.DataFrame:
    """One part of the events: an equal stretch of time."""
    rng = np.random.default_rng([SEED, part])
    size = n // parts
    weights = np.arange(1, USERS + 1) ** -0.9
    names = np.random.default_rng(SEED).permutation(USERS)
    users = names[np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(size))]
    at = np.sort(START + (part + rng.random(size)) / parts * DAYS * DAY).astype(np.int64)
    late = np.where(rng.random(size) < LATE, rng.exponential(LATENESS, size), 0).astype(np.int64)
    return pl.DataFrame(
        {
            "id": pl.Series(np.arange(part * size, part * size + size)).cast(pl.String).str.zfill(12),
            "user": users.astype(np.int64),
            "merchant": rng.integers(0, MERCHANTS, size),
            "amount": np.round(rng.lognormal(3.0, 1.0, size), 2).clip(0.01, 9_999.0),
            "kind": np.array(["card", "cash", "transfer", "wallet"])[rng.integers(0, 4, size)],
            "status": np.array(["OK-1", "OK-2", "NO-1"])[rng.integers(0, 3, size)],
            "online": rng.random(size) < 0.4,
            "at": at,
            "known_at": at + late,
        }
    )
