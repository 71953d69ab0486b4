"""Training sets over more events than fit into memory: events are cut by entity, and entities answered in turn.

Batches of events, in LSN order, are cut by the rows' entity codes; events that no row asks for go at once. What is kept
beyond `budget` bytes is written to a temporary folder (Arrow IPC), and each partition is read back and swept alone. A
row's entity has all of its events in one partition, so the answers are those of one sweep, to the bit.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flyball.features.accumulator import Words
from flyball.features.entities import event_codes
from flyball.features.frames import CURRENT
from flyball.features.keys import Keys
from flyball.features.offline import AsOf, sweep_codes
from flyball.features.views import CompiledView, ViewValues

BUDGET = 1 << 30  # bytes of events that are held at once
PARTITIONS = 32
SYSTEM = ("_event_time", "_known_at", "_lsn", "_until")  # of versions, as `frames.history` gives them


def sweep_batches(
    view: CompiledView,
    batches: Iterable[pl.DataFrame],
    keys: Keys,
    times: Words,
    *,
    asof: AsOf = "known",
    budget: int = BUDGET,
    partitions: int = PARTITIONS,
    folder: Path | None = None,
) -> ViewValues:
    """`offline.sweep` over batches of events, in LSN order, of which about `budget` bytes are in memory at once.

    Args:
        batches: as `sweep` takes events: each once, or versions with `_until`.
        folder: where events are written that do not fit; None: the system's place for temporary files.
    """
    none = none_of(view)
    cut = _Cut(keys, partitions, budget, folder)
    try:
        for batch in chain([none], batches):
            names = [name for name in none.columns if name != "_until"]
            until = pl.col("_until") if "_until" in batch.columns else pl.lit(CURRENT, pl.Int64).alias("_until")
            cut.add(batch.select(*names, until), event_codes(batch, view.entity, keys))
        return cut.sweep(view, times, asof)
    finally:
        cut.close()


def none_of(view: CompiledView) -> pl.DataFrame:
    """No events, with the columns that the view reads."""
    types = {"string": pl.String, "category": pl.String, "float": pl.Float64, "boolean": pl.Boolean}
    schema: dict[str, Any] = {
        c.name: types.get(c.type, pl.Int64) for c in view.source.columns if c.name in view.columns
    }
    return pl.DataFrame(schema=schema | dict.fromkeys(SYSTEM, pl.Int64))


class _Cut:
    """Events by partition: contiguous ranges of entity codes with about as many rows each."""

    def __init__(self, keys: Keys, partitions: int, budget: int, folder: Path | None) -> None:
        self._keys = keys
        self._budget = budget
        self._parent = folder
        self._folder: Path | None = None
        rows = np.bincount(keys.codes[keys.codes >= 0], minlength=keys.entities).cumsum()
        total = int(rows[-1]) if len(rows) else 0
        inner = np.searchsorted(rows, total * np.arange(1, partitions) // partitions, side="right")
        self._bounds = np.unique(np.array([0, *inner, keys.entities], np.int64))
        self._held: list[list[pl.DataFrame]] = [[] for _ in self._bounds[1:]]
        self._none = pl.DataFrame()
        self._files = 0
        self._bytes = 0

    def add(self, events: pl.DataFrame, codes: np.ndarray) -> None:
        coded = events.with_columns(pl.Series("_code", codes, pl.Int32)).filter(pl.col("_code") >= 0)
        self._none = coded.clear()
        if len(self._held) == 1:
            self._held[0].append(coded)
        else:
            part = np.searchsorted(self._bounds, coded["_code"].to_numpy(), side="right") - 1
            order = np.argsort(part, kind="stable")
            ends = np.searchsorted(part[order], np.arange(len(self._held) + 1))
            coded = coded[order]
            for i, held in enumerate(self._held):
                if ends[i + 1] > ends[i]:
                    held.append(coded[ends[i] : ends[i + 1]])
        self._bytes += int(coded.estimated_size())
        if self._bytes > self._budget // 2:
            self._spill()

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = temporary_folder(self._parent)
        for i, held in enumerate(self._held):
            if held:
                pl.concat(held).write_ipc(self._folder / f"{i:04}-{self._files:06}.arrow")
                held.clear()
        self._files += 1
        self._bytes = 0

    def _events(self, i: int) -> list[pl.DataFrame]:
        files = sorted(self._folder.glob(f"{i:04}-*.arrow")) if self._folder is not None else []
        frames = [pl.read_ipc(file) for file in files] + self._held[i]
        self._held[i] = []
        return frames

    def sweep(self, view: CompiledView, times: Words, asof: AsOf) -> ViewValues:
        n, features = len(times), len(view.spec.features)
        values, valid = np.empty((n, features)), np.empty((n, features), np.bool_)
        codes = self._keys.codes
        if self._folder is None:  # all of it is here
            frames = [frame for i in range(len(self._held)) for frame in self._events(i)]
            self._sweep(view, frames, np.arange(n), times, asof, values, valid)
        else:
            order = np.argsort(codes, kind="stable")
            ends = np.searchsorted(codes[order], self._bounds)
            self._sweep(view, [], order[: ends[0]], times, asof, values, valid)  # rows of nobody
            for i in range(len(self._held)):
                self._sweep(view, self._events(i), order[ends[i] : ends[i + 1]], times, asof, values, valid)
        return ViewValues(values=values, valid=valid, exact=np.ones(n, np.bool_))

    def _sweep(
        self,
        view: CompiledView,
        frames: list[pl.DataFrame],
        rows: Words,
        times: Words,
        asof: AsOf,
        values: np.ndarray,
        valid: np.ndarray,
    ) -> None:
        """Answer some rows from the events of a partition, their codes counted from its first."""
        if not len(rows):
            return
        events = pl.concat(frames) if frames else self._none
        frames.clear()
        codes = self._keys.codes[rows]
        low, entities = max(int(codes.min()), 0), int(codes.max()) + 1
        own = events["_code"].to_numpy() - np.int32(low)
        own = np.where((own >= 0) & (own < entities - low), own, np.int32(-1))
        asked = np.where(codes < 0, -1, codes - low)
        answer = sweep_codes(view, events, own, asked, max(entities - low, 0), times[rows], asof=asof)
        values[rows], valid[rows] = answer.values, answer.valid

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def temporary_folder(parent: Path | None) -> Path:
    """A new folder for events in `parent`, which is made where it is missing; None: where the system keeps such."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="flyball-", dir=parent))
