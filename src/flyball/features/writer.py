"""The writer of online state: events from the log in, one transaction a batch.

It is what ingestion calls its applier. Each transaction holds the key index, the states of all views on the source, the
held-back history and the applied LSN, so that after a crash the log goes on exactly where the state stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec, ViewSpec
from flyball.features.batch import apply as kernel_apply
from flyball.features.frames import once, vectors, words
from flyball.features.index import KeyIndex
from flyball.features.kernel import LEVELS
from flyball.features.ports import EventReader, OnlineStore, WriteTransaction
from flyball.features.states import (
    META,
    SourceState,
    encode,
    held_space,
    join,
    ordered,
    source_key,
    source_state,
    unordered,
    view_key,
    view_space,
)
from flyball.features.views import CompiledView, Events
from flyball.kernel.clock import Clock
from flyball.kernel.errors import NotFoundError

_NEVER = 1 << 62
_PHYSICAL: dict[str, pl.DataType] = {
    "string": pl.String(),
    "category": pl.String(),
    "float": pl.Float64(),
    "boolean": pl.Boolean(),
}
_SYSTEM: dict[str, pl.DataType] = {
    "_event_time": pl.Int64(),
    "_known_at": pl.Int64(),
    "_lsn": pl.Int64(),
    "_key": pl.Binary(),
}


class OnlineWriter:
    """Keeps the online state of the views in the plan. Called by one thread at a time.

    Args:
        store: a store that needs a rebuild is emptied; every source then begins at LSN 0 again.
        history: gives back what was applied, to build views that come later.
    """

    def __init__(self, store: OnlineStore, clock: Clock, history: EventReader) -> None:
        self._store = store
        self._clock = clock
        self._history = history
        self._sources: dict[str, SourceSpec] = {}
        self._views: dict[str, CompiledView] = {}
        self._index: dict[str, KeyIndex] = {}
        self._next_held: dict[str, int] = {}  # when the next held-back event becomes known
        if store.needs_rebuild():
            store.reset()

    def load_plan(self, sources: Sequence[SourceSpec], views: Sequence[ViewSpec]) -> None:
        """Take these sources and views: build what is new from history, drop the state of what is gone.

        All or nothing: where a view cannot be built, the earlier plan stays in force.
        """
        by_name = {source.name: source for source in sources}
        compiled = [CompiledView(view, by_name[view.source]) for view in views]
        wanted = {view.definition: view for view in compiled}
        with self._store.write() as transaction:
            stored = {key[len(b"view/") :].decode() for key, _ in transaction.items(META) if key.startswith(b"view/")}
            stale = {name for name in stored & set(wanted) if not _same_head(transaction, wanted[name])}
            for gone in (stored - set(wanted)) | stale:
                transaction.clear(view_space(gone))
                transaction.delete(META, view_key(gone))
            for view in wanted.values():
                if view.definition not in stored - stale:
                    self._build(transaction, view)
            held = {name: self._first_held(transaction, name) for name in by_name}
        self._sources, self._views, self._next_held = by_name, wanted, held
        self._index = {name: self._index.get(name) or KeyIndex(name) for name in by_name}

    def apply(self, source: str, frame: pl.DataFrame) -> int:
        """Apply a physical frame and remember its keys, in one transaction; how many rows were new.

        Idempotent: rows up to `applied_lsn` are skipped. A key that was seen before changes nothing, and an event that
        is not known yet is held back.
        """
        spec, now = self._source(source), self._clock.now()
        with self._store.write() as transaction:
            state = source_state(transaction, source)
            fresh = frame.filter(pl.col("_lsn") > state.lsn).sort("_lsn")
            if fresh.is_empty():
                return 0
            held = self._release(transaction, spec, now)[1]
            first = self._index[source].add(transaction, fresh, now=now, horizon=spec.lateness)
            events = fresh.filter(pl.Series(first))
            known = np.maximum(words(events, "_known_at"), words(events, "_event_time") - spec.skew)
            later = known > now
            if later.any():
                self._hold(transaction, source, events.filter(pl.Series(later)), known[later])
                held = min(held, int(known[later].min()))
            self._update(transaction, source, events.filter(pl.Series(~later)))
            lsn = int(words(fresh, "_lsn")[-1])
            self._save(transaction, source, SourceState(lsn=lsn, known_through=max(state.known_through, now)))
        self._next_held[source] = held
        return fresh.height

    def columns(self, source: str) -> list[str]:
        """The columns that the views on a source read."""
        views = (view for view in self._views.values() if view.source.name == source)
        return sorted({name for view in views for name in view.columns})

    def release(self, now: int) -> int:
        """Make the held-back history visible that is known by `now`; how many events."""
        count = 0
        for name, spec in self._sources.items():
            if self._next_held.get(name, _NEVER) > now:
                continue
            with self._store.write() as transaction:
                released, held = self._release(transaction, spec, now)
                state = source_state(transaction, name)
                through = max(state.known_through, now)
                self._save(transaction, name, SourceState(lsn=state.lsn, known_through=through))
            self._next_held[name] = held
            count += released
        return count

    def seen_first(self, source: str, keys: pl.Series, lsns: pl.Series) -> pl.Series:
        """Boolean: is the event with this LSN the first with its key. A key that was forgotten counts as first."""
        self._source(source)
        with self._store.read() as transaction:
            return pl.Series(self._index[source].is_first(transaction, keys, lsns.to_numpy()))

    def applied_lsn(self, source: str) -> int:
        """The last LSN applied; 0: none."""
        with self._store.read() as transaction:
            return source_state(transaction, source).lsn

    def known_through(self, source: str) -> int:
        """History known by then is visible."""
        with self._store.read() as transaction:
            return source_state(transaction, source).known_through

    def held(self, source: str) -> int:
        """How many events are held back."""
        with self._store.read() as transaction:
            return sum(1 for _ in transaction.items(held_space(source)))

    # --- inside a transaction

    def _source(self, name: str) -> SourceSpec:
        try:
            return self._sources[name]
        except KeyError:
            raise NotFoundError(f"the ingest plan has no source {name!r}", code="source_not_found") from None

    def _save(self, transaction: WriteTransaction, source: str, state: SourceState) -> None:
        transaction.put(META, source_key(source), encode(state))

    def _build(self, transaction: WriteTransaction, view: CompiledView) -> None:
        """Build a new view from what was applied and is known, up to the LSN that the source stands at."""
        source = view.source
        state = source_state(transaction, source.name)
        if state.lsn > 0:
            frame = self._history.events(source.name, view.columns, through_lsn=state.lsn)
            known = pl.max_horizontal("_known_at", pl.col("_event_time") - source.skew)
            frame = once(frame.filter((pl.col("_lsn") <= state.lsn) & (known <= state.known_through)))
            self._update_view(transaction, view, frame.sort("_known_at", "_lsn"))
        transaction.put(META, view_key(view.definition), encode(_built(view)))

    def _update(self, transaction: WriteTransaction, source: str, frame: pl.DataFrame) -> None:
        for view in self._views.values():
            if view.source.name == source and frame.height:
                self._update_view(transaction, view, frame)

    def _update_view(self, transaction: WriteTransaction, view: CompiledView, frame: pl.DataFrame) -> None:
        """Apply events, in the frame's order, to the states of their entities."""
        columns = vectors(frame, view.columns)
        events = view.events(columns, words(frame, "_event_time"), words(frame, "_lsn"))
        if len(events.keys) == 0:
            return
        codes = np.unique(events.keys.codes)
        keys = [events.keys.unique[code] for code in codes]
        space = view_space(view.definition)
        for key, state in zip(keys, _updated(view, events, transaction.get_many(space, keys)), strict=True):
            transaction.put(space, key, state)

    def _hold(self, transaction: WriteTransaction, source: str, frame: pl.DataFrame, known: np.ndarray) -> None:
        space = held_space(source)
        for at, row in zip(known.tolist(), frame.iter_rows(named=True), strict=True):
            transaction.put(space, ordered(at, row["_lsn"]), encode(row))

    def _first_held(self, transaction: WriteTransaction, source: str) -> int:
        for key, _ in transaction.items(held_space(source)):
            return unordered(key, 1)[0]
        return _NEVER

    def _release(self, transaction: WriteTransaction, spec: SourceSpec, now: int) -> tuple[int, int]:
        """Apply what is known by now, in the order in which it became known; how many, and when the next is known."""
        following = self._next_held.get(spec.name, _NEVER)
        if following > now:
            return 0, following
        space, rows, following = held_space(spec.name), [], _NEVER
        for key, data in transaction.items(space):
            known = unordered(key, 1)[0]
            if known > now:
                following = known
                break
            rows.append(msgspec.msgpack.decode(data))
            transaction.delete(space, key)
        schema = {c.name: _PHYSICAL.get(c.type, pl.Int64()) for c in spec.columns} | _SYSTEM
        names = list(schema)
        frame = pl.DataFrame([[row.get(name) for name in names] for row in rows], schema=schema, orient="row")
        self._update(transaction, spec.name, frame)
        return len(rows), following


def _built(view: CompiledView) -> dict[str, Any]:
    """What is noted of a view that was built. Its head follows the source's skew, and says what a state still holds."""
    return {"source": view.source.name, "head": view.plan.head}


def _same_head(transaction: WriteTransaction, view: CompiledView) -> bool:
    data = transaction.get(META, view_key(view.definition))
    return data is not None and msgspec.msgpack.decode(data) == _built(view)


def _updated(view: CompiledView, events: Events, blobs: list[bytes | None]) -> list[bytes]:
    """The packed states of the events' entities (ascending by code) after the events."""
    plan = view.plan
    codes, n = events.keys.codes, len(blobs)
    order = np.argsort(codes, kind="stable")
    event_at = np.append(np.flatnonzero(np.diff(codes[order], prepend=-1)), len(order))
    words_in, blob_at = join(blobs)
    fixed = LEVELS + 2 * plan.levels.shape[0] + plan.acc_words + plan.row_words
    growth = plan.levels.shape[0] * (1 + plan.acc_words) + plan.row_words  # at most, per event
    out = np.empty(len(words_in) + n * fixed + len(order) * growth, np.int64)
    out_at = np.zeros(n + 1, np.int64)
    kernel_apply(plan, words_in, blob_at, events.rows[order].reshape(-1), event_at, out, out_at)
    data, ends = out.tobytes(), (8 * out_at).tolist()
    return [data[ends[k] : ends[k + 1]] for k in range(n)]
