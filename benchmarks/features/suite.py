"""`make bench NAME=features`: the table of speeds and memory, each beside its peer or limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.features.data import dirty_path, events_path, rows_path
from benchmarks.harness import Bar, Work, in_turns, run, say

EVENTS, ROWS = 5_000_000, 500_000
MANY = 50_000_000


def measure(*, only: Sequence[str], times: int) -> list[Bar]:
    """Run all parts, or those named, and give their bars."""
    parts: dict[str, Callable[[int], list[Bar]]] = {
        "sweep": sweep,
        "memory": memory,
        "read": read,
        "apply": apply,
        "files": files,
        "push": push,
        "compaction": compaction,
        "hot": hot,
    }
    unknown = [name for name in only if name not in parts]
    if unknown:
        raise SystemExit(f"there is no part {unknown[0]!r}; there are {', '.join(parts)}")
    bars: list[Bar] = []
    for name, part in parts.items():
        if not only or name in only:
            say(f"\n{name}: {part.__doc__}")
            bars += part(times)
    return bars


def _ours(name: str, script: str, *arguments: object) -> Work:
    return Work(name=name, script=f"features/{script}.py", arguments=[str(a) for a in arguments])


def _ratio(one: dict[str, Any], other: dict[str, Any], key: str) -> float:
    return float(one[key] / other[key])


def sweep(times: int) -> list[Bar]:
    """22 window features for 500 k rows over 5 M events, from Parquet to values."""
    files = [str(events_path(EVENTS)), str(rows_path(EVENTS, ROWS))]
    event = _ours("flyball, mode event", "sweep", EVENTS, ROWS, "event")
    known = _ours("flyball, mode known, 5 % late", "sweep", EVENTS, ROWS, "known")
    peer = Work(
        name="DuckDB RANGE windows", script="features/duckdb_windows.py", arguments=[*files, "2"], peer="duckdb"
    )
    duckdb, ours, late = in_turns([peer, event, known], times=times)
    return [
        Bar(name="sweep_event_vs_duckdb", figure=_ratio(duckdb, ours, "seconds"), bar=20, goal=35),
        Bar(name="sweep_event_rss_gb", figure=ours["rss_gb"], bar=1.5, at_most=True),
        Bar(name="sweep_known_vs_event", figure=_ratio(ours, late, "seconds"), bar=0.7, goal=0.9),
    ]


def memory(times: int) -> list[Bar]:
    """The same over 50 M events, from the lake, in partitions of entities."""
    events_path(MANY), rows_path(MANY, ROWS)  # made in this process, not in the measured one
    found = run(_ours("flyball, 50 M events, mode known", "partitions", MANY, ROWS))
    return [Bar(name="sweep_50m_rss_gb", figure=found["rss_gb"], bar=4, goal=2, at_most=True)]


def read(times: int) -> list[Bar]:
    """An online vector of 22 window features, in process, on LMDB; and Feast's SDK on SQLite."""
    peer = Work(name="Feast on SQLite", script="features/feast_online.py", arguments=["3000"], peer="feast")
    feast, ours = in_turns([peer, _ours("flyball on LMDB", "online", "read")], times=times)
    return [
        Bar(name="online_vector_p50_us", figure=ours["p50_us"], bar=20, goal=6, at_most=True),
        Bar(name="online_vector_vs_feast", figure=feast["p50_us"] / ours["p50_us"], bar=10, goal=40),
    ]


def apply(times: int) -> list[Bar]:
    """Events applied to a 22-feature view, Zipf 0.9, seen by another process."""
    (found,) = in_turns([_ours("flyball on LMDB", "online", "apply")], times=times)
    return [
        Bar(name="applied_events_per_second", figure=found["events_per_second"], bar=60_000, goal=120_000),
        Bar(name="applied_visible_p99_ms", figure=found["visible_p99_ms"], bar=50, at_most=True),
    ]


def files(times: int) -> list[Bar]:
    """Files → validated, quarantined, log, Delta; and a hand-written Polars pipeline to Delta."""
    bars = []
    for kind, goal in (("parquet", 1_100_000), ("csv", 800_000)):
        path = dirty_path(EVENTS, kind)
        peer = Work(
            name=f"hand-written Polars to Delta, {kind}",
            script="features/polars_pipeline.py",
            arguments=[str(path)],
            peer="polars",
        )
        polars, ours = in_turns([peer, _ours(f"flyball, {kind}", "files", path)], times=times)
        if (polars["good"], polars["bad"]) != (ours["good"], ours["bad"]):
            raise SystemExit(f"the pipelines disagree: {polars} and {ours}")
        bars += [
            Bar(name=f"ingest_{kind}_vs_polars", figure=_ratio(polars, ours, "seconds"), bar=0.8),
            Bar(name=f"ingest_{kind}_rows_per_second", figure=EVENTS / ours["seconds"], bar=0.0, goal=goal),
        ]
    return bars


def push(times: int) -> list[Bar]:
    """Batches of 100 over HTTP, each acknowledged when it is on the disk."""
    (found,) = in_turns([_ours("flyball, 32 connections", "push")], times=times)
    return [Bar(name="push_events_per_second", figure=found["events_per_second"], bar=50_000, goal=120_000)]


def compaction(times: int) -> list[Bar]:
    """A table after 24 h of pushes in batches of 100, flushed each minute, against a compacted copy."""
    (found,) = in_turns([_ours("flyball, 1,440 flushes", "compaction")], times=times)
    return [Bar(name="read_after_24h_vs_compacted", figure=found["ratio"], bar=2, at_most=True)]


def hot(times: int) -> list[Bar]:
    """Online state of 50 k entities from history; and Feast's materialize on SQLite, of values computed before."""
    peer = Work(name="Feast materialize on SQLite", script="features/feast_online.py", arguments=["10"], peer="feast")
    ours = _ours("flyball, from 1 M events", "online", "hot", 1_000_000)
    more = _ours("flyball, from 5 M events", "online", "hot", 5_000_000)
    feast, found, _ = in_turns([peer, ours, more], times=times)
    ratio = _ratio(found, feast, "entities_per_second")
    return [Bar(name="hot_start_vs_feast_materialize", figure=ratio, bar=20)]
