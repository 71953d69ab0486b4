"""The join as known: for rows of one source, the newest event of a latest view that happened before and was known.

For a row at time `t` that one heard of at `known`, that is the event of its entity with the greatest (event_time, lsn)
among those with `event_time < t` and `known_at <= known < until`. Unlike in a training set, where a row's time is
also the time that it asks at, the two are independent: so it is not the sweep, but a search in events sorted by entity
and time, and a walk back over those that were not known yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec, ViewSpec
from flyball.features.accumulator import Flags, Words
from flyball.features.evaluate import evaluate
from flyball.features.frames import CURRENT, history, vectors, words
from flyball.features.keys import Keys, encode_keys
from flyball.features.vector import Vector, column_key, logical
from flyball.features.views import CompiledView

_ROW = "_row"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """Events sorted by (entity, event_time, lsn). `start[e]` to `start[e + 1]` are those of entity `e`."""

    frame: pl.DataFrame  # the columns that are read, and `_entity`
    start: Words
    t: Words
    lsn: Words
    known: Words
    until: Words

    def find(self, entity: Words, t: Words, known: Words) -> Words:
        """The place of each row's event; -1: there is none. `entity` -1: the row has none."""
        there = (entity >= 0) & (entity < len(self.start) - 1)
        low = np.where(there, self.start[np.where(there, entity, 0)], 0)
        high = np.where(there, self.start[np.where(there, entity, 0) + 1], 0)
        place = _before(self.t, low, high, t) - 1
        while True:  # as often as an entity's last events were late, at most
            open_ = np.flatnonzero(place >= low)
            at = place[open_]
            late = open_[(self.known[at] > known[open_]) | (self.until[at] <= known[open_])]
            if not len(late):
                return np.where(place >= low, place, -1)
            place[late] -= 1


class LatestJoin:
    """The events of a latest view, in memory: the columns that are read, and five words for each event.

    Events are added as they become known. They are kept as a few sorted runs, each less than half as long as the one
    before, so that adding costs a logarithm.
    """

    def __init__(self, view: ViewSpec, source: SourceSpec) -> None:
        self._view = CompiledView(view, source)
        self._entities: dict[bytes, int] = {}
        self._runs: list[_Run] = []
        self._versions: list[pl.DataFrame] = []  # of a source with corrections: all of them, since one ends another

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the source that are read."""
        return self._view.columns

    def add(self, frame: pl.DataFrame) -> None:
        """Take events of the source (physical, each key once; with corrections, all versions), in LSN order."""
        if frame.is_empty():
            return
        source = self._view.source
        if source.corrections:
            self._versions.append(frame)
            new, self._runs = self._prepared(history(pl.concat(self._versions), source)), []
        else:
            new = self._prepared(frame.with_columns(pl.lit(CURRENT, pl.Int64).alias("_until")))
        if new.is_empty():
            return
        while self._runs and 2 * new.height > self._runs[-1].frame.height:
            new = pl.concat([self._runs.pop().frame, new])
        self._runs.append(self._run(new))

    def read(self, keys: Keys, t: Words, known: Words) -> pl.DataFrame:
        """The view's columns of each row's event, null where there is none.

        Args:
            keys: the rows' entities. t, known: `(n,)` microseconds.
        """
        codes = np.array([self._entities.get(key, -1) for key in keys.unique] + [-1], np.int64)
        entity, n = codes[keys.codes], len(keys)  # a code of -1 is the last
        best, newest = np.full(n, -1, np.int64), (np.full(n, np.iinfo(np.int64).min), np.full(n, -1, np.int64))
        offset, frames = 0, []
        for run in self._runs:
            place = run.find(entity, t, known)
            there = np.flatnonzero(place >= 0)
            at = place[there]
            newer = _newer(run.t[at], run.lsn[at], newest[0][there], newest[1][there])
            there, at = there[newer], at[newer]
            best[there], newest[0][there], newest[1][there] = offset + at, run.t[at], run.lsn[at]
            frames.append(run.frame)
            offset += run.frame.height
        if (
            self._view.spec.ttl is not None
        ):  # asked of the newest alone: what is too old is not replaced by what is older
            best[newest[0] < t - self._view.spec.ttl] = -1
        return self._taken(frames, best)

    def _taken(self, frames: list[pl.DataFrame], best: Words) -> pl.DataFrame:
        """The rows at these places of the frames, one after another; nulls for -1."""
        names = list(self._view.columns)
        wanted = pl.DataFrame({_ROW: best}).with_columns(pl.int_range(pl.len()).alias("_at"))
        parts, offset = [], 0
        for frame in frames:
            here = wanted.filter(pl.col(_ROW).is_between(offset, offset + frame.height - 1))
            parts.append(frame[(here[_ROW] - offset)].select(names).with_columns(here["_at"]))
            offset += frame.height
        if not parts:
            return pl.DataFrame({name: pl.Series([None] * len(best)) for name in names})
        return wanted.join(pl.concat(parts), on="_at", how="left", maintain_order="left").select(names)

    def _prepared(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The columns that are read, with the entity of each event; those that the view leaves out are gone."""
        view, source = self._view, self._view.source
        columns = vectors(frame, view.columns)
        keys = encode_keys([columns[c.name] for c in view.entity], view.entity, frame.height)
        codes = np.array([self._entities.setdefault(key, len(self._entities)) for key in keys.unique] + [-1], np.int64)
        entity, wanted = codes[keys.codes], keys.codes >= 0
        if view.spec.where is not None:
            leaves = {column_key(source.name, name): logical(columns[name], source.column(name)) for name in columns}
            leaves[("time",)] = Vector(words(frame, "_event_time"), np.ones(frame.height, np.bool_))
            condition = evaluate(view.spec.where, leaves, rows=frame.height)
            wanted &= condition.valid & condition.values.astype(np.bool_)
        system = ["_event_time", "_known_at", "_lsn", "_until"]
        kept = frame.select(*view.columns, *system).with_columns(pl.Series("_entity", entity))
        return kept.filter(pl.Series(wanted))

    def _run(self, frame: pl.DataFrame) -> _Run:
        frame = frame.sort("_entity", "_event_time", "_lsn")
        counts = np.bincount(words(frame, "_entity"), minlength=len(self._entities))
        return _Run(
            frame=frame,
            start=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
            t=words(frame, "_event_time"),
            lsn=words(frame, "_lsn"),
            known=words(frame, "_known_at"),
            until=words(frame, "_until"),
        )


def _before(values: Words, low: Words, high: Words, wanted: Words) -> Words:
    """For each row the first place within [low, high) whose value is not below the wanted one; `high`: none."""
    low, high = low.copy(), high.copy()
    while len(open_ := np.flatnonzero(low < high)):
        middle = (low[open_] + high[open_]) // 2
        less = values[middle] < wanted[open_]
        low[open_[less]] = middle[less] + 1
        high[open_[~less]] = middle[~less]
    return low


def _newer(t: Words, lsn: Words, than_t: Words, than_lsn: Words) -> Flags:
    newer: Flags = (t > than_t) | ((t == than_t) & (lsn > than_lsn))
    return newer
