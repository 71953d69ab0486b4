"""Ours: 22 window features for rows over events in the lake, by the path of a training run, in bounded memory.

Arguments: events, rows, and `check` to compare instead: partitions of entities against one sweep of everything, bit
for bit. The table and the rows are there before (`lake.py`, `data.py`).
"""

from __future__ import annotations

import sys

import numpy as np
import polars as pl

from benchmarks.features.data import rows_path
from benchmarks.features.lake import lake_path
from benchmarks.features.view import SOURCE, VIEW
from benchmarks.report import Measured
from flyball.define.spec import ColumnSpec, FeatureSpec, ProjectSpec, SourceSpec
from flyball.features.assemble import stack
from flyball.features.frames import words
from flyball.features.histories import Histories
from flyball.features.keys import encode_keys
from flyball.features.offline import sweep
from flyball.features.partitions import sweep_batches
from flyball.features.training_set import features_of
from flyball.features.vector import Vector
from flyball.features.views import CompiledView, ViewValues
from flyball.storage.events import LakeEvents
from flyball.storage.lake import DeltaLake

ROWS = SourceSpec(name="Asked", columns=(ColumnSpec(name="user", type="integer"),), event_time="at")
PROJECT = ProjectSpec(name="Bench", sources=(SOURCE, ROWS), views=(VIEW,))
FEATURES = tuple(FeatureSpec(name=name, expr=["view", VIEW.name, name, ["user"]]) for name in VIEW.features)
NEVER = 1 << 61
SMALL = 64 << 20  # bytes: 5 M events are several times as much


def main(events: int, rows: int) -> None:
    spine = _spine(events, rows)
    reader = LakeEvents(DeltaLake(lake_path(events)), PROJECT, {"Payments": events})
    first = LakeEvents(DeltaLake(lake_path(events)), PROJECT, {"Payments": 2_000})
    _features(first, spine[:100], 2_000)  # compiled before
    with Measured() as measured:
        values = _features(reader, spine, events)
    measured.done(rows_per_second=rows / measured.seconds, total=float(np.nansum(values)))


def check(events: int, rows: int) -> None:
    """Exit with a message where a bit differs."""
    spine, view = _spine(events, rows), CompiledView(VIEW, SOURCE)
    reader = LakeEvents(DeltaLake(lake_path(events)), PROJECT, {"Payments": events})
    users, times = spine["user"].to_numpy(), words(spine, "_event_time")
    keys = encode_keys([Vector(users, np.ones(len(users), np.bool_))], [SOURCE.column("user")], len(users))
    with Measured() as measured:
        plain = sweep(view, reader.events("Payments", list(view.columns), through_lsn=None), keys, times)
        columns = {"Payments": list(view.columns)}
        with Histories(reader, PROJECT, columns, horizon={"Payments": events}, at=NEVER, budget=SMALL) as histories:
            if histories.whole("Payments") is not None:
                raise SystemExit(f"{events} events fit into {SMALL} bytes: nothing was partitioned")
            cut = sweep_batches(view, histories.events("Payments"), keys, times, budget=SMALL)
        trained = _features(reader, spine, events)
    if not _same(plain, cut):
        raise SystemExit("partitions of entities give other bits than one sweep")
    asked = np.where(plain.valid, plain.values, np.nan)
    if asked.tobytes() != trained.tobytes():
        raise SystemExit("a training run gives other bits than one sweep")
    measured.done(same_values=int(plain.values.size))


def _spine(events: int, rows: int) -> pl.DataFrame:
    return pl.read_parquet(rows_path(events, rows)).select("user", pl.col("at").alias("_event_time"))


def _features(reader: LakeEvents, spine: pl.DataFrame, lsn: int) -> np.ndarray:
    found = features_of(FEATURES, PROJECT, ROWS, spine, reader, horizon={"Payments": lsn}, at=NEVER)
    return stack(FEATURES, found.vectors, len(spine))


def _same(one: ViewValues, other: ViewValues) -> bool:
    """To the bit where there is a value; what stands beside a null says nothing."""
    a, b = (np.where(found.valid, found.values, 0.0).tobytes() for found in (one, other))
    return a == b and np.array_equal(one.valid, other.valid)


if __name__ == "__main__":
    (check if sys.argv[3:] == ["check"] else main)(int(sys.argv[1]), int(sys.argv[2]))
