"""Ours, online: `read`, `apply` or `hot`, on LMDB.

read    one entity's vector of 22 window features in process: an entity with full tiles, and any of 50 k
apply   events into a 22-feature view while another process watches when they become visible
hot     the online state of 50 k entities built from history; a second argument says from how many events
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.features.data import USERS, events_path
from benchmarks.features.view import SOURCE, VIEW
from benchmarks.report import Measured
from flyball.features.keys import entity_key
from flyball.features.online import OnlineReader
from flyball.features.states import source_state
from flyball.features.views import CompiledView
from flyball.features.writer import OnlineWriter
from flyball.ingest.keys import event_keys
from flyball.kernel.clock import ManualClock
from flyball.storage.online import LmdbStore

BATCH = 1_250  # events of one transaction: what comes in 20 ms


def physical(events: pl.DataFrame) -> pl.DataFrame:
    """Events as ingestion hands them to the writer: live, so known when they come, with hashed keys."""
    return events.select(
        "id",
        "user",
        "merchant",
        (pl.col("amount") * 100).round().cast(pl.Int64).alias("amount"),
        "kind",
        "status",
        "online",
        "at",
        pl.col("at").alias("_event_time"),
        pl.col("at").alias("_known_at"),
        (pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias("_lsn"),
        event_keys(events, SOURCE),
    )


class History:
    """`EventReader` over a frame."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def events(self, source: str, columns: Sequence[str] | None, *, through_lsn: int | None) -> pl.DataFrame:
        system = ["_event_time", "_known_at", "_lsn", "_key"]
        names = self._frame.columns if columns is None else [*columns, *(c for c in system if c not in columns)]
        frame = self._frame.select(names)
        whole = through_lsn is None or through_lsn >= int(frame["_lsn"][-1])
        return frame if whole else frame.filter(pl.col("_lsn") <= through_lsn)

    def batches(self, source: str, columns: Sequence[str] | None, *, through_lsn: int | None) -> Iterator[pl.DataFrame]:
        yield self.events(source, columns, through_lsn=through_lsn)


def read(folder: Path) -> None:
    """A million events of the last days, applied; then single reads."""
    frame = physical(pl.read_parquet(events_path(5_000_000)).tail(1_800_000))  # a bit more than 30 days
    clock = ManualClock(int(frame["at"][-1]))
    store = LmdbStore(folder)
    writer = OnlineWriter(store, clock, History(frame))
    writer.load_plan([SOURCE], [])
    for start in range(0, frame.height, 100_000):
        writer.apply("Payments", frame[start : start + 100_000])
    writer.load_plan([SOURCE], [VIEW])
    view, reader = CompiledView(VIEW, SOURCE), OnlineReader(store)
    at, column = clock.now() + 1_000_000, SOURCE.column("user")
    busiest = int(frame["user"].value_counts(sort=True)["user"][0])
    everybody = [entity_key((user,), (column,)) for user in range(USERS)]
    full = _read_times(reader, view, [everybody[busiest]] * 1, at, 20_000)
    chosen = np.random.default_rng(3).integers(0, USERS, 20_000)
    anyone = _read_times(reader, view, [everybody[user] for user in chosen], at, 20_000)
    with Measured() as measured:
        pass
    measured.done(
        p50_us=float(np.percentile(full, 50)),
        p99_us=float(np.percentile(full, 99)),
        any_p50_us=float(np.percentile(anyone, 50)),
        any_p99_us=float(np.percentile(anyone, 99)),
    )


def _read_times(reader: OnlineReader, view: CompiledView, keys: list[bytes], at: int, n: int) -> list[float]:
    took = []
    for i in range(n + 500):
        key = keys[i % len(keys)]
        began = time.perf_counter_ns()
        reader.vector(view, key, at)
        took.append((time.perf_counter_ns() - began) / 1_000)
    return took[500:]


def apply(folder: Path) -> None:
    """600 k events on top of a million, in the order of time; a second process polls for what it can see."""
    frame = physical(pl.read_parquet(events_path(5_000_000)).tail(1_600_000))
    clock = ManualClock(int(frame["at"][0]))
    store = LmdbStore(folder)
    writer = OnlineWriter(store, clock, History(frame))
    writer.load_plan([SOURCE], [VIEW])
    for start in range(0, 1_000_000, 50_000):
        batch = frame[start : start + 50_000]
        clock.advance_to(int(batch["at"][-1]))
        writer.apply("Payments", batch)
    rest = frame[1_000_000:]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    watcher = context.Process(target=_watch, args=(str(folder), int(rest["_lsn"][-1]), there))
    watcher.start()
    here.recv()
    handed: dict[int, int] = {}
    with Measured() as measured:
        for start in range(0, rest.height, BATCH):
            batch = rest[start : start + BATCH]
            handed[int(batch["_lsn"][-1])] = time.monotonic_ns()
            clock.advance_to(int(batch["at"][-1]))
            writer.apply("Payments", batch)
    seen: list[tuple[int, int]] = here.recv()
    watcher.join()
    delays = _delays(handed, seen)
    measured.done(
        events_per_second=rest.height / measured.seconds,
        visible_p50_ms=float(np.percentile(delays, 50)),
        visible_p99_ms=float(np.percentile(delays, 99)),
    )


def _watch(folder: str, last: int, out: Connection) -> None:
    """Note when each LSN was first seen."""
    store = LmdbStore(Path(folder), readonly=True)
    out.send("ready")
    seen: list[tuple[int, int]] = []
    newest = 0
    while newest < last:
        with store.read() as transaction:
            lsn = source_state(transaction, "Payments").lsn
        if lsn > newest:
            newest = lsn
            seen.append((lsn, time.monotonic_ns()))
        time.sleep(0.001)
    out.send(seen)


def _delays(handed: dict[int, int], seen: list[tuple[int, int]]) -> list[float]:
    """Per batch: from when it was handed to the writer to when the other process saw it, in ms."""
    lsns = np.array([lsn for lsn, _ in seen])
    return [(seen[int(np.searchsorted(lsns, lsn))][1] - began) / 1e6 for lsn, began in handed.items()]


def hot(folder: Path, events: int) -> None:
    """A new view over history that was applied before: what a first deployment, or a lost store, waits for."""
    frame = physical(pl.read_parquet(events_path(5_000_000)).tail(events))
    missing = USERS - frame["user"].n_unique()
    clock = ManualClock(int(frame["at"][-1]))
    writer = OnlineWriter(LmdbStore(folder), clock, History(frame))
    writer.load_plan([SOURCE], [])
    for start in range(0, frame.height, 100_000):
        writer.apply("Payments", frame[start : start + 100_000])
    with Measured() as measured:
        writer.load_plan([SOURCE], [VIEW])
    entities = USERS - missing
    measured.done(entities=entities, entities_per_second=entities / measured.seconds)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-online-") as name:
        if sys.argv[1] == "read":
            read(Path(name))
        elif sys.argv[1] == "apply":
            apply(Path(name))
        else:
            hot(Path(name), int(sys.argv[2]))
