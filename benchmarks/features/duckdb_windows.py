"""DuckDB: the same 22 features by RANGE windows over events and rows. Arguments: events file, rows file, threads.

Windows here are exact at both ends; ours are aligned at the old end. The work is the same, some values differ by that.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import duckdb

HOUR = 3_600_000_000
WINDOWS = {"1h": HOUR, "24h": 24 * HOUR, "7d": 7 * 24 * HOUR, "30d": 30 * 24 * HOUR}


def query(events: str, rows: str) -> str:
    parts = []
    for name in WINDOWS:
        parts += [f"{f}(amount) OVER w_{name} AS {f}_{name}" for f in ("count", "sum", "avg", "stddev_samp", "max")]
    parts.append("count(DISTINCT merchant) OVER w_24h AS merchants_24h")
    parts.append("last_value(amount IGNORE NULLS) OVER w_30d AS last_30d")
    windows = ", ".join(
        f"w_{name} AS (PARTITION BY user_id ORDER BY t RANGE BETWEEN {length} PRECEDING AND 1 PRECEDING)"
        for name, length in WINDOWS.items()
    )
    return f"""
        WITH joined AS (
            SELECT "user" AS user_id, "at" AS t, amount, merchant, false AS is_row
            FROM read_parquet('{events}')
            UNION ALL SELECT "user", "at", NULL, NULL, true FROM read_parquet('{rows}')
        )
        SELECT {", ".join(parts)} FROM joined WINDOW {windows} QUALIFY is_row"""


def main(events: str, rows: str, threads: str) -> None:
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    cpu, started = time.process_time(), time.perf_counter()
    columns = connection.execute(query(events, rows)).fetchnumpy()
    seconds = time.perf_counter() - started
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    found = len(columns["count_1h"])
    used = time.process_time() - cpu
    print(
        json.dumps({"seconds": seconds, "cpu": used, "rss_gb": rss, "rows": found, "rows_per_second": found / seconds})
    )


if __name__ == "__main__":
    main(*sys.argv[1:4])
