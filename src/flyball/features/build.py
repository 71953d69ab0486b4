"""Building a view beside those that are there: by ranges of LSNs, each in a transaction of its own.

Between two ranges events are applied and read as ever. A range is what the lake and the log have of it, as known so
far; what becomes known later among the rows that were read reaches the new view with the old ones. When it has caught
up with its source, it is announced in the transaction of its last range, and from then on is one of the views. How far
it is stands in the store, so that a build that a crash cut short goes on where it stood.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import polars as pl

from flyball.features.ports import OnlineStore, ReadTransaction, WriteTransaction
from flyball.features.states import META, build_key, encode, source_state, view_space
from flyball.features.views import CompiledView

AT_ONCE = 100_000  # events: what is not longer is built within the plan's own transaction
CHUNK = 50_000
COUNTED = 100_000  # entities whose size is added up after a build; where there are more, no size is measured
ENOUGH = 1_000  # rows from which a build says something about the next one

Update = Callable[[WriteTransaction, CompiledView, pl.DataFrame], None]
Seen = Callable[[str, pl.Series], pl.Series]


class RangeReader(Protocol):
    """Events of a source by ranges of LSNs."""

    def span(self, source: str, columns: Iterable[str], *, after_lsn: int, through_lsn: int) -> pl.DataFrame:
        """The good events with `after_lsn < _lsn <= through_lsn` as a physical frame with the system columns, in LSN
        order. A key may come twice."""
        ...


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """A build under way: `lsn` is what it has taken, `head` what the view's plan held when it began."""

    source: str
    head: int
    lsn: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a finished build took, for the estimates of later ones. `bytes` None: there were too many entities."""

    view: str
    source: str
    rows: int
    features: int
    seconds: float
    bytes: int | None

    def to_data(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Measured.__dataclass_fields__}


@dataclass
class Builds:
    """The builds of one writer. Called by the writer's thread.

    Args:
        ranges: None builds everything at once.
        note: told when a build begins, moves on or ends: `{"running": […], "measured": {…} or None}`.
    """

    store: OnlineStore
    ranges: RangeReader | None = None
    at_once: int = AT_ONCE
    chunk: int = CHUNK
    note: Callable[[dict[str, Any]], None] = lambda said: None
    clock: Callable[[], float] = time.perf_counter
    _views: dict[str, CompiledView] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=dict)

    def belongs(self, view: CompiledView, lsn: int) -> bool:
        """Whether a view is built here, beside the others: its source is long, and takes no corrections (a
        correction of a row that was read before needs all of its versions at once)."""
        return self.ranges is not None and lsn > self.at_once and not view.source.corrections

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Around a transaction that begins and drops builds: where it is given up, none was begun or dropped."""
        before = dict(self._views), dict(self._spent)
        try:
            yield
        except BaseException:
            self._views, self._spent = before
            raise

    def over(self, source: str) -> list[CompiledView]:
        """The views on a source that are being built."""
        return [view for view in self._views.values() if view.source.name == source]

    def begin(self, transaction: WriteTransaction, view: CompiledView) -> None:
        """Begin a build, or go on with one that was begun under the same plan."""
        stored = stored_build(transaction, view.definition)
        if stored is None or stored.head != view.plan.head:
            transaction.clear(view_space(view.definition))
            transaction.put(
                META, build_key(view.definition), encode(Build(source=view.source.name, head=view.plan.head))
            )
        self._views[view.definition] = view

    def drop(self, transaction: WriteTransaction, definition: str) -> None:
        """Forget a build, and what it has built."""
        if stored_build(transaction, definition) is not None:
            transaction.clear(view_space(definition))
            transaction.delete(META, build_key(definition))
        self._views.pop(definition, None)

    def restart(self, transaction: WriteTransaction, source: str) -> None:
        """Begin the builds over a source anew: rows that they have read are erased."""
        for definition, view in list(self._views.items()):
            if view.source.name == source:
                self.drop(transaction, definition)
                self.begin(transaction, view)

    def keep(self, transaction: WriteTransaction, definitions: Iterable[str]) -> None:
        """Forget the builds of views that nobody wants any more."""
        for definition in (named(transaction, "build/") | set(self._views)) - set(definitions):
            self.drop(transaction, definition)

    def update(self, transaction: WriteTransaction, source: str, frame: pl.DataFrame, update: Update) -> None:
        """Give events that became known to the builds that have passed them already."""
        for definition, view in self._views.items():
            if view.source.name == source and frame.height:
                reached = stored_build(transaction, definition)
                passed = frame.filter(pl.col("_lsn") <= (reached.lsn if reached is not None else 0))
                if passed.height:
                    update(transaction, view, passed)

    def step(self, update: Update, seen_first: Seen, announce: Callable[[WriteTransaction, CompiledView], None]) -> str:
        """Build one range of one view; the definition of the view that it completed, else ""."""
        if not self._views or self.ranges is None:
            return ""
        definition, view = next(iter(self._views.items()))
        source, started = view.source.name, self.clock()
        with self.store.read() as look:
            state, build = source_state(look, source), stored_build(look, definition)
        assert build is not None  # it was begun in the transaction that made the view wanted
        through = min(build.lsn + self.chunk, state.lsn)
        frame = self.ranges.span(source, view.columns, after_lsn=build.lsn, through_lsn=through)
        if frame.height:
            frame = frame.filter(seen_first(source, frame["_lsn"]))
            known = pl.max_horizontal("_known_at", pl.col("_event_time") - view.source.skew)
            frame = frame.filter(known <= state.known_through).sort("_known_at", "_lsn")
        done = through >= state.lsn
        with self.store.write() as transaction:
            if frame.height:
                update(transaction, view, frame)
            if done:
                transaction.delete(META, build_key(definition))
                announce(transaction, view)
            else:
                moved = Build(source=source, head=build.head, lsn=through)
                transaction.put(META, build_key(definition), encode(moved))
        self._spent[definition] = self._spent.get(definition, 0.0) + self.clock() - started
        if done:
            del self._views[definition]
            self.measure(view, rows=state.lsn, seconds=self._spent.pop(definition))
        else:
            self.note({"running": self.progress(), "measured": None})
        return definition if done else ""

    def measure(self, view: CompiledView, *, rows: int, seconds: float) -> None:
        """Say what a build took."""
        measured = None
        if rows >= ENOUGH:
            measured = Measured(
                view=view.spec.name,
                source=view.source.name,
                rows=rows,
                features=len(view.spec.features),
                seconds=seconds,
                bytes=self._size(view),
            ).to_data()
        self.note({"running": self.progress(), "measured": measured})

    def progress(self) -> list[dict[str, Any]]:
        """The builds under way, in the order in which they are done."""
        found = []
        with self.store.read() as look:
            for definition, view in self._views.items():
                build = stored_build(look, definition)
                total = source_state(look, view.source.name).lsn
                done = build.lsn if build is not None else 0
                spent = self._spent.get(definition, 0.0)
                found.append(
                    {
                        "view": view.spec.name,
                        "source": view.source.name,
                        "definition": definition,
                        "rows": done,
                        "of": total,
                        "seconds_left": spent * (total - done) / done if done else None,
                    }
                )
        return found

    def _size(self, view: CompiledView) -> int | None:
        total = 0
        with self.store.read() as look:
            for count, (key, value) in enumerate(look.items(view_space(view.definition))):
                if count == COUNTED:
                    return None
                total += len(key) + len(value)
        return total


def stored_build(transaction: ReadTransaction, definition: str) -> Build | None:
    data = transaction.get(META, build_key(definition))
    return None if data is None else msgspec.msgpack.decode(data, type=Build)


def named(transaction: ReadTransaction, prefix: str) -> set[str]:
    """The definitions in META under a prefix."""
    start = prefix.encode()
    return {key[len(start) :].decode() for key, _ in transaction.items(META) if key.startswith(start)}
