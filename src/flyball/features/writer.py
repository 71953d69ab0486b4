"""The writer of online state: events from the log in, one transaction a batch.

It is what ingestion calls its applier. Each transaction holds the key index, the states of all views on the source, the
held-back history and the applied LSN, so that after a crash the log goes on exactly where the state stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec, ViewSpec
from flyball.features.accumulator import Words
from flyball.features.build import Builds, named
from flyball.features.corrections import newest_versions, replace_versions
from flyball.features.erasure import Without, forget, rebuild, touched
from flyball.features.eviction import Eviction
from flyball.features.frames import CURRENT, history, is_ahead, is_known, words
from flyball.features.index import KeyIndex, first_of_keys
from flyball.features.kernel import FORMAT_VERSION
from flyball.features.ports import EventReader, OnlineStore, WriteTransaction
from flyball.features.states import (
    META,
    PULSE,
    REBUILDING,
    SourceState,
    encode,
    encode_state,
    held_space,
    hidden_key,
    ordered,
    place_space,
    row_space,
    source_key,
    source_state,
    unordered,
    view_key,
    view_space,
)
from flyball.features.updating import frame_events, put_updated
from flyball.features.views import CompiledView
from flyball.features.warm import warm_updates
from flyball.kernel.clock import Clock
from flyball.kernel.errors import NotFoundError
from flyball.kernel.times import SECOND

_NEVER = 1 << 62
PULSE_EVERY = SECOND // 4  # of domain time
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
        builds: how views over long sources are built beside the others; without it, all are built at once.
    """

    def __init__(self, store: OnlineStore, clock: Clock, history: EventReader, *, builds: Builds | None = None) -> None:
        self._store = store
        self._builds = builds or Builds(store=store)
        self._clock = clock
        self._history = history
        self._sources: dict[str, SourceSpec] = {}
        self._views: dict[str, CompiledView] = {}
        self._index: dict[str, KeyIndex] = {}
        self._announced: dict[str, CompiledView] = {}  # whose build was completed in the transaction at hand
        self._eviction = Eviction()
        self._pulsed: int | None = None
        self._next_held: dict[str, int] = {}  # when the next held-back event becomes known
        warm_updates()
        if store.needs_rebuild():
            store.reset()

    def conceal(self) -> None:
        """Show no view until all that was logged has been applied again: the state was lost, and what there is of it
        meanwhile would be old without anyone knowing. Survives a restart; `release` ends it."""
        with self._store.write() as transaction:
            transaction.put(META, REBUILDING, b"")

    def load_plan(
        self,
        sources: Sequence[SourceSpec],
        views: Sequence[ViewSpec],
        earlier: Sequence[tuple[ViewSpec, SourceSpec]] = (),
    ) -> None:
        """Take these sources and views: build what is new from history, drop the state of what is gone.

        `earlier` are views that served versions read as their source was declared then. All or nothing: where a view
        cannot be built, the earlier plan stays in force. A view over a long source is built beside the others, by
        `release`, and is not there for readers until then.
        """
        by_name = {source.name: source for source in sources}
        compiled = [CompiledView(view, by_name[view.source]) for view in views]
        compiled += [CompiledView(view, source) for view, source in earlier if _there(view, source, by_name)]
        wanted = {view.definition: view for view in reversed(compiled)}
        with self._builds.all_or_nothing(), self._store.write() as transaction:
            concealed = transaction.get(META, REBUILDING) is not None
            stored = named(transaction, "view/") | named(transaction, "hidden/")
            stale = {name for name in stored & set(wanted) if not _same_head(transaction, wanted[name])}
            for gone in (stored - set(wanted)) | stale:
                for space in (view_space, row_space, place_space):
                    transaction.clear(space(gone))
                transaction.delete(META, view_key(gone))
                transaction.delete(META, hidden_key(gone))
            self._builds.keep(transaction, wanted)
            ready = stored - stale
            for view in wanted.values():
                lsn = source_state(transaction, view.source.name).lsn
                if view.definition in ready:
                    continue
                if self._builds.belongs(view, lsn):
                    self._builds.begin(transaction, view)
                else:
                    self._builds.drop(transaction, view.definition)
                    self._build(transaction, view, hidden_key if concealed else view_key)
                    ready.add(view.definition)
            held = {name: self._first_held(transaction, name) for name in by_name}
        self._sources, self._next_held = by_name, held
        self._views = {name: view for name, view in wanted.items() if name in ready}
        self._index = {name: self._index.get(name) or KeyIndex(name) for name in by_name}

    def apply(self, source: str, frame: pl.DataFrame) -> int:
        """Apply a physical frame and remember its keys, in one transaction; how many rows were new.

        Idempotent: rows up to `applied_lsn` are skipped. A key that was seen before changes nothing, or is corrected,
        and an event that is not known yet is held back.
        """
        spec, now = self._source(source), self._clock.now()
        with self._store.write() as transaction:
            state = source_state(transaction, source)
            fresh = _after(frame, state.lsn)
            if fresh.is_empty():
                return 0
            held = self._release(transaction, spec, now)[1]
            events, known = self._accept(transaction, spec, fresh, now)
            later = known > now
            if later.any():
                self._hold(transaction, source, events.filter(pl.Series(later)), known[later])
                held = min(held, int(known[later].min()))
            held = min(held, self._update(transaction, spec, events.filter(pl.Series(~later)), now))
            lsn = int(words(fresh, "_lsn")[-1])
            state = state._replace(lsn=lsn, known_through=max(state.known_through, now))
            self._save(transaction, source, self._evict(transaction, spec, state, now, fresh.height))
        self._next_held[source] = held
        return fresh.height

    def columns(self, source: str) -> list[str]:
        """The columns that the views on a source read."""
        views = [view for view in self._views.values() if view.source.name == source] + self._builds.over(source)
        return sorted({name for view in views for name in view.columns})

    def _accept(
        self, transaction: WriteTransaction, spec: SourceSpec, fresh: pl.DataFrame, now: int
    ) -> tuple[pl.DataFrame, Words]:
        """The events that may count, and from when on they may be seen."""
        known = words(fresh, "_known_at")
        if spec.corrections:  # what is ahead of its time is held back later: it may still take another's place now
            return fresh, known
        first = self._index[spec.name].add(transaction, fresh, now=now, horizon=spec.lateness)
        known = np.maximum(known, words(fresh, "_event_time") - spec.skew)
        return fresh.filter(pl.Series(first)), known[first]

    def _evict(
        self, transaction: WriteTransaction, spec: SourceSpec, state: SourceState, now: int, events: int
    ) -> SourceState:
        """Drop a few of the entities that nobody can need; the state of the source, which then says so."""
        mine = [view for view in self._views.values() if view.source.name == spec.name]
        if self._eviction.sweep(transaction, spec, mine, now, events=events):
            return state._replace(evicted=max(state.evicted, now - spec.lateness))
        return state

    def release(self, now: int) -> int:
        """Make the held-back history visible that is known by `now`; how many events.

        To be called when all that was logged is applied: it says so to readers (the state's pulse), shows the views
        where they were concealed until then, and goes on with a build, one range a call.
        """
        count = 0
        for name, spec in self._sources.items():
            if self._next_held.get(name, _NEVER) > now:
                continue
            with self._store.write() as transaction:
                released, held = self._release(transaction, spec, now)
                state = source_state(transaction, name)
                through = max(state.known_through, now)
                self._save(transaction, name, state._replace(known_through=through))
            self._next_held[name] = held
            count += released
        self._pulse(now)
        completed = self._builds.step(self._update_view, self.seen_first, self._announce)
        if completed:
            self._views = {**self._views, completed: self._announced.pop(completed)}
        return count

    def _pulse(self, now: int) -> None:
        if self._pulsed is not None and 0 <= now - self._pulsed < PULSE_EVERY:
            return
        with self._store.write() as transaction:
            transaction.put(META, PULSE, encode(now))
            if transaction.get(META, REBUILDING) is not None:
                for name in named(transaction, "hidden/"):
                    transaction.put(META, view_key(name), transaction.get(META, hidden_key(name)) or b"")
                    transaction.delete(META, hidden_key(name))
                transaction.delete(META, REBUILDING)
        self._pulsed = now

    def _announce(self, transaction: WriteTransaction, view: CompiledView) -> None:
        """A build is complete: from the next event on the view is one of the others."""
        transaction.put(META, view_key(view.definition), encode(_built(view)))
        self._announced[view.definition] = view

    def seen_first(self, source: str, lsns: pl.Series) -> pl.Series:
        """Boolean: is the event with this LSN the first with its key. A key that was forgotten counts as first.

        Of a source that takes corrections, all are: each is a version of its own.
        """
        if self._source(source).corrections:
            return pl.Series([True]).new_from_index(0, len(lsns))
        with self._store.read() as transaction:
            return pl.Series(self._index[source].is_first(transaction, lsns.to_numpy()))

    @property
    def views(self) -> tuple[CompiledView, ...]:
        """The views that are kept."""
        return tuple(self._views.values())

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

    def erase(self, source: str, removed: pl.DataFrame, entities: Mapping[str, bytes]) -> None:
        """Make the views what they would be without the removed rows (a physical frame), and forget their keys.

        To be called while log and lake still have them. Idempotent. Views that are being built begin anew.
        """
        spec = self._source(source)
        history, lsns = self._history, removed["_lsn"].to_list()
        self._history = Without(history, source, lsns)
        try:
            with self._builds.all_or_nothing(), self._store.write() as transaction:
                for view in [view for view in self._views.values() if view.source.name == source]:
                    if view.source.corrections:
                        for space in (view_space, row_space, place_space):
                            transaction.clear(space(view.definition))
                        self._build(transaction, view)
                    else:
                        keys = touched(view, removed, entities)
                        rebuild(transaction, view, keys, self._history, self._update_view)
                self._builds.restart(transaction, source)
                forget(transaction, self._index[source], spec, removed, self._history)
        finally:
            self._history = history

    # --- inside a transaction

    def _source(self, name: str) -> SourceSpec:
        try:
            return self._sources[name]
        except KeyError:
            raise NotFoundError(f"the ingest plan has no source {name!r}", code="source_not_found") from None

    def _save(self, transaction: WriteTransaction, source: str, state: SourceState) -> None:
        transaction.put(META, source_key(source), encode_state(state))

    def _build(self, transaction: WriteTransaction, view: CompiledView, key: Callable[[str], bytes] = view_key) -> None:
        """Build a new view from what was applied and is known, up to the LSN that the source stands at."""
        source = view.source
        state = source_state(transaction, source.name)
        if state.lsn > 0:
            build = self._build_versions if source.corrections else self._build_events
            floor = build(transaction, view, state)
            self._save(transaction, source.name, state._replace(evicted=max(state.evicted, floor)))
        transaction.put(META, key(view.definition), encode(_built(view)))

    def _build_events(self, transaction: WriteTransaction, view: CompiledView, state: SourceState) -> int:
        """Build from the events that count; the time before which some would be missed."""
        source = view.source
        frame = self._history.events(source.name, view.columns, through_lsn=state.lsn)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(frame_events, view, frame)  # meanwhile
            counts = frame.select(is_known(state) & ~is_ahead(source, state)).to_series().to_numpy()
            counts &= first_of_keys(frame["_key"])
        events, times = future.result(), words(frame, "_event_time")
        floor = _floor(times[counts], view, state)
        if view.reach is not None:
            counts &= times >= floor - view.reach
        which = counts[events.index]
        put_updated(transaction, view, events if which.all() else events.take(np.flatnonzero(which)), floor, new=True)
        return floor

    def _build_versions(self, transaction: WriteTransaction, view: CompiledView, state: SourceState) -> int:
        """The same of a source that takes corrections."""
        source = view.source
        frame = self._history.events(source.name, view.columns, through_lsn=state.lsn).filter(is_known(state))
        frame = history(frame, source).filter((pl.col("_until") == CURRENT) & ~is_ahead(source, state))
        floor = _floor(words(frame, "_event_time"), view, state)
        if view.reach is not None:
            frame = frame.filter(pl.col("_event_time") >= floor - view.reach)
        replace_versions(transaction, view, [], frame, floor)
        return floor

    def _update(self, transaction: WriteTransaction, spec: SourceSpec, frame: pl.DataFrame, now: int) -> int:
        """Let events be seen that are known; when the next of them that are ahead of their time will be."""
        if frame.is_empty():
            return _NEVER
        floor = source_state(transaction, spec.name).evicted
        mine = [view for view in self._views.values() if view.source.name == spec.name]
        if not spec.corrections:
            for view in mine:
                put_updated(transaction, view, frame_events(view, frame), floor)
            self._builds.update(transaction, spec.name, frame, self._update_view)
            return _NEVER
        frame = newest_versions(transaction, spec.name, frame, now)
        gone, held = frame["_key"].to_list(), _NEVER
        frame = frame.filter(~pl.col("_deleted").fill_null(False))
        seen_from = words(frame, "_event_time") - spec.skew
        if (ahead := seen_from > now).any():
            self._hold(transaction, spec.name, frame.filter(pl.Series(ahead)), seen_from[ahead])
            held = int(seen_from[ahead].min())
        for view in mine:
            replace_versions(transaction, view, gone, frame.filter(pl.Series(~ahead)), floor)
        return held

    def _update_view(self, transaction: WriteTransaction, view: CompiledView, frame: pl.DataFrame) -> None:
        """Apply events, in the frame's order, to the states of their entities."""
        floor = source_state(transaction, view.source.name).evicted
        put_updated(transaction, view, frame_events(view, frame), floor)

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
        if spec.corrections:
            schema["_deleted"] = pl.Boolean()
        names = list(schema)
        frame = pl.DataFrame([[row.get(name) for name in names] for row in rows], schema=schema, orient="row")
        following = min(following, self._update(transaction, spec, frame, now))
        return len(rows), following


def _after(frame: pl.DataFrame, lsn: int) -> pl.DataFrame:
    """The events beyond an LSN, in order: as a rule all of them, as they stand."""
    lsns = frame["_lsn"]
    if frame.height and lsns.is_sorted() and lsns[0] > lsn:
        return frame
    return frame.filter(pl.col("_lsn") > lsn).sort("_lsn")


def _there(view: ViewSpec, source: SourceSpec, declared: Mapping[str, SourceSpec]) -> bool:
    """Whether events of a source still have all that a view of its earlier declaration reads."""
    now = declared.get(view.source)
    have = {column.name for column in now.columns} if now is not None else set()
    return now is not None and have.issuperset(CompiledView(view, source).columns)


def _floor(times: Words, view: CompiledView, state: SourceState) -> int:
    """The time before which events are missed: those would have been evicted by now that are older by the reach."""
    if view.reach is None or not len(times):
        return state.evicted
    return min(state.known_through, int(times.max())) - view.source.lateness


def _built(view: CompiledView) -> dict[str, Any]:
    """What is noted of a view that was built. Its head follows the source's skew, and says what a state still holds."""
    return {"source": view.source.name, "head": view.plan.head, "format": FORMAT_VERSION}


def _same_head(transaction: WriteTransaction, view: CompiledView) -> bool:
    data = transaction.get(META, view_key(view.definition)) or transaction.get(META, hidden_key(view.definition))
    return data is not None and msgspec.msgpack.decode(data) == _built(view)
