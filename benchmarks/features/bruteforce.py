"""The sweep's values by definition: DuckDB joins sampled rows with every event in their range, and aggregates.

Knows nothing of tiles, partitions or our own SQL; the interval is [t - window rounded down to the hop, t). Distinct
values are counted up to the view's cap, as it declares; the peer's query counts them all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import polars as pl

from benchmarks.features.view import OPS, VIEW, WINDOWS
from flyball.kernel.times import duration, hop

CAP = next(a.cap for a in VIEW.aggregates if a.name == "merchants_24h")  # where counting ends, as it is declared
CLOSE = 1e-9  # relative, of mean and std: floats are added in another order


def answers(events: Path, rows: pl.DataFrame, asof: Literal["event", "known"]) -> dict[str, np.ndarray]:
    """Per feature its values for the rows (user, at), float64; NaN: null. Amounts are added in cents."""
    with duckdb.connect() as connection:
        connection.register("given", rows.to_arrow())
        columns = connection.execute(_query(events, asof)).fetchnumpy()
    return {name: np.ma.filled(np.ma.asarray(columns[name], np.float64), np.nan) for name in VIEW.features}


def check(found: np.ndarray, events: Path, rows: pl.DataFrame, asof: Literal["event", "known"]) -> int:
    """How many values were compared. Exits where one differs: a float by more than `CLOSE`, any other at all."""
    for k, (name, expected) in enumerate(answers(events, rows, asof).items()):
        mine = found[:, k]
        if name.startswith(("mean", "std")):
            same = np.isclose(mine, expected, rtol=CLOSE, atol=0.0, equal_nan=True)
        else:
            same = (mine == expected) | (np.isnan(mine) & np.isnan(expected))
        if not same.all():
            at = int(np.flatnonzero(~same)[0])
            raise SystemExit(
                f"{name} of user {rows['user'][at]} at {rows['at'][at]}: {mine[at]!r}, by definition {expected[at]!r}; "
                f"{int((~same).sum())} of {len(same)} differ"
            )
    return int(found.size)


def _query(events: Path, asof: Literal["event", "known"]) -> str:
    seen = "e.at < r.at" + (" AND e.known_at <= r.at" if asof == "known" else "")
    return f"""
        WITH rows AS (SELECT row_number() OVER () AS row, "user", "at" FROM given),
        seen AS (
            SELECT r.row, e.at AS e, r.at AS t, e.lsn, round(e.amount * 100)::BIGINT AS cents, e.merchant
            FROM rows AS r JOIN (
                SELECT *, file_row_number AS lsn FROM read_parquet('{events}', file_row_number = true)
            ) AS e ON e."user" = r."user" AND {seen} AND e.at >= {_since("r.at", "30d")}
        )
        SELECT {", ".join(_aggregates())}
        FROM rows LEFT JOIN seen AS s ON s.row = rows.row GROUP BY rows.row ORDER BY rows.row"""


def _since(t: str, window: str) -> str:
    length = duration(window)
    return f"({t} - {length}) // {hop(length)} * {hop(length)}"


def _aggregates() -> list[str]:
    found = []
    for window in WINDOWS:
        inside = f"FILTER (WHERE s.e >= {_since('s.t', window)})"
        n, total = f"count(s.cents) {inside}", f"sum(s.cents) {inside}"
        by_name = {
            "count": n,
            "sum": f"coalesce({total}, 0)::DOUBLE / 100",
            "mean": f"({total})::DOUBLE / nullif({n}, 0) / 100",
            "std": f"(stddev_samp(s.cents) {inside}) / 100",
            "max": f"(max(s.cents) {inside})::DOUBLE / 100",
        }
        found += [f"{by_name[op]} AS {op}_{window}" for op in OPS]
    distinct = f"count(DISTINCT s.merchant) FILTER (WHERE s.e >= {_since('s.t', '24h')})"
    found.append(f"least({distinct}, {CAP}) AS merchants_24h")
    found.append(
        f"(last(s.cents ORDER BY s.e, s.lsn) FILTER (WHERE s.e >= {_since('s.t', '30d')}))::DOUBLE / 100 AS last_30d"
    )
    return found
