"""`make bench NAME=features`: the table of speeds and memory, each beside its peer or limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.features.data import dirty_path, events_path, rows_path
from benchmarks.harness import Bar, Work, in_turns, run, run_parts

EVENTS, ROWS = 5_000_000, 500_000
MANY = 50_000_000


def measure(*, only: Sequence[str], times: int) -> Iterator[Bar]:
    """Run all parts, or those named, and give their bars as they come."""
    parts: dict[str, Callable[[int], list[Bar]]] = {
        "sweep": sweep,
        "memory": memory,
        "read": read,
        "apply": apply,
        "files": files,
        "push": push,
        "hot": hot,
        "compaction": compaction,
    }
    yield from run_parts(parts, only=only, times=times)


def _ours(name: str, script: str, *arguments: object) -> Work:
    return Work(name=name, script=f"features/{script}.py", arguments=[str(a) for a in arguments])


def _as_ingest(work: Work) -> Work:
    """With the memory settings of the ingest process; peers that are compared get them too."""
    return replace(work, keeping=True)


def _ratio(one: dict[str, Any], other: dict[str, Any], key: str) -> float:
    return float(one[key] / other[key])


def sweep(times: int) -> list[Bar]:
    """22 window features for 500 k rows over 5 M events, from Parquet to values; 2,000 rows of them by definition."""
    files = [str(events_path(EVENTS)), str(rows_path(EVENTS, ROWS))]
    event = _ours("flyball, mode event", "sweep", EVENTS, ROWS, "event")
    known = _ours("flyball, mode known, 5 % late", "sweep", EVENTS, ROWS, "known")
    peer = Work(
        name="DuckDB RANGE windows", script="features/duckdb_windows.py", arguments=[*files, "2"], peer="duckdb"
    )
    duckdb, ours, late = in_turns([peer, event, known], times=times)
    for asof in ("event", "known"):
        run(_ours(f"flyball, mode {asof}, beside brute force", "sweep", EVENTS, ROWS, asof, "check"))
    return [
        Bar(name="sweep_event_vs_duckdb", figure=_ratio(duckdb, ours, "seconds"), bar=20, goal=35),
        Bar(name="sweep_event_rss_gb", figure=ours["rss_gb"], bar=1.5, at_most=True),
        Bar(name="sweep_known_vs_event", figure=_ratio(ours, late, "seconds"), bar=0.7, goal=0.9),
    ]


def memory(times: int) -> list[Bar]:
    """The same over 50 M events, from the lake, in partitions of entities; of 5 M, that these change no bit."""
    for events in (EVENTS, MANY):  # made in processes of their own, once
        run(_ours(f"the table of {events:,} events", "lake", events, ROWS))
    run(_ours("flyball, 5 M events, cut and whole", "partitions", EVENTS, ROWS, "check"))
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
    (found,) = in_turns([_as_ingest(_ours("flyball on LMDB", "online", "apply"))], times=times)
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
        same = replace(_as_ingest(peer), name=f"the same pipeline with our memory settings, {kind}")
        works = [peer, same, _as_ingest(_ours(f"flyball, {kind}", "files", path))]
        polars, kept, ours = in_turns(works, times=times)
        if (polars["good"], polars["bad"]) != (ours["good"], ours["bad"]):
            raise SystemExit(f"the pipelines disagree: {polars} and {ours}")
        bars += [
            Bar(name=f"ingest_{kind}_vs_polars", figure=_ratio(polars, ours, "seconds"), bar=0.8),
            Bar(name=f"ingest_{kind}_vs_polars_same_memory", figure=_ratio(kept, ours, "seconds"), bar=None),
            Bar(name=f"ingest_{kind}_rows_per_second", figure=EVENTS / ours["seconds"], bar=None, goal=goal),
        ]
    return bars


def push(times: int) -> list[Bar]:
    """Batches of 100 over HTTP, each acknowledged when it is on the disk: to a source alone, and to one with a view."""
    alone, view = _ours("flyball, 32 connections", "push"), _ours("flyball, and a 22-feature view", "push", "view")
    found, kept = in_turns([_as_ingest(alone), _as_ingest(view)], times=times)
    return [
        Bar(name="push_events_per_second", figure=found["events_per_second"], bar=50_000, goal=120_000),
        Bar(name="push_with_view_events_per_second", figure=kept["events_per_second"], bar=None),
    ]


def hot(times: int) -> list[Bar]:
    """Online state of 50 k entities, computed from their events; Feast's materialize copies finished values to SQLite.

    Feast reads one row of 22 values for each entity from Parquet and stores it. Ours reads every event of the view's
    windows, builds the state of 22 aggregates, tiles among it, and stores that: more work for the same readiness.
    """
    peer = Work(name="Feast materialize on SQLite", script="features/feast_online.py", arguments=["10"], peer="feast")
    ours = _ours("flyball, from 1 M events", "online", "hot", 1_000_000)
    feast, found = in_turns([_as_ingest(peer), _as_ingest(ours)], times=times)
    run(_as_ingest(_ours("flyball, from 5 M events", "online", "hot", 5_000_000)))
    ratio = _ratio(found, feast, "entities_per_second")
    return [Bar(name="hot_start_vs_feast_materialize", figure=ratio, bar=20)]


def compaction(times: int) -> list[Bar]:
    """A table after 24 h of pushes in batches of 100, flushed each minute, beside a compacted copy; once."""
    found = run(_ours("flyball, 1,440 flushes", "compaction"))  # it repeats its reads itself
    return [Bar(name="read_after_24h_vs_compacted", figure=found["ratio"], bar=2, at_most=True)]
