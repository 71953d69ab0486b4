"""Views as serving sees them: packed states read from the online store, through the kernel that training uses.

No Polars here: a worker loads NumPy and the compiled kernel alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flyball.features.accumulator import Flags, Floats, Words
from flyball.features.batch import read_one, read_states
from flyball.features.keys import Keys
from flyball.features.ports import OnlineStore, ReadTransaction
from flyball.features.reading import scratch_words
from flyball.features.states import META, join, source_state, view_key, view_space
from flyball.features.views import CompiledView, ViewValues
from flyball.kernel.errors import UnavailableError


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """A view and the entities that rows look up in it."""

    view: CompiledView
    keys: Keys


class ViewVector(NamedTuple):
    """What a view says about one entity: as a row of `ViewValues`, `values` and `valid` `(features,)`."""

    values: Floats
    valid: Flags
    exact: bool
    lsn: int
    known_through: int

    def as_row(self) -> ViewValues:
        """The same as the answer for one row."""
        return ViewValues(
            values=self.values.reshape(1, -1),
            valid=self.valid.reshape(1, -1),
            exact=np.array([self.exact]),
            lsn=self.lsn,
            known_through=self.known_through,
        )


class _Seat:
    """Memory that one thread reads one view with."""

    __slots__ = ("acc", "flat", "mark", "memory", "none", "source", "space", "words")

    def __init__(self, view: CompiledView) -> None:
        self.flat = view.flat
        self.acc = np.zeros(scratch_words(view.plan), np.int64)
        self.none = view.empty_state
        self.space, self.mark, self.source = view_space(view.definition), view_key(view.definition), view.source.name
        self.grow(1 << 16)

    def grow(self, size: int) -> None:
        self.words = np.zeros(size // 8, np.int64)
        self.memory = self.words.data.cast("B")


class OnlineReader:
    """Reads views. Holds no transaction beyond a call; any thread may call."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self._local = threading.local()

    def vector(self, view: CompiledView, key: bytes | None, at: int) -> ViewVector:
        """One view for one entity, by its key (`entity_key`; None: null), at the time `at`. The fast way.

        Raises:
            UnavailableError: `view_not_built`.
        """
        with self._store.read() as transaction:
            return self._vector(transaction, view, key, at)

    def vectors(self, lookups: Sequence[tuple[CompiledView, bytes | None]], at: int) -> list[ViewVector]:
        """`vector` for several views, all from one moment of the store."""
        with self._store.read() as transaction:
            return [self._vector(transaction, view, key, at) for view, key in lookups]

    def _vector(self, transaction: ReadTransaction, view: CompiledView, key: bytes | None, at: int) -> ViewVector:
        try:
            seat: _Seat = self._local.seats[view]
        except (AttributeError, KeyError):
            seat = self._sit(view)
        if transaction.get(META, seat.mark) is None:
            raise not_built(view.spec.name)
        size = -1 if key is None else transaction.get_into(seat.space, key, seat.memory)
        if key is not None and size > 8 * len(seat.words):
            seat.grow(2 * size)
            size = transaction.get_into(seat.space, key, seat.memory)
        words = seat.none if size < 0 else seat.words
        values, valid = np.empty(len(view.defaults)), np.empty(len(view.defaults), np.bool_)
        exact = read_one(seat.flat, words, at, seat.acc, values, valid)
        state = source_state(transaction, seat.source)
        if size < 0 and key is not None:
            exact = at >= state.evicted
        return ViewVector(values, valid, exact, state.lsn, state.known_through)

    def _sit(self, view: CompiledView) -> _Seat:
        seats: dict[CompiledView, _Seat] = self._local.__dict__.setdefault("seats", {})
        seat = seats[view] = _Seat(view)
        return seat

    def read(self, view: CompiledView, keys: Keys, at: int | Words) -> ViewValues:
        """One view for `n` rows at the times `at` (one for all, or `(n,)`)."""
        return self.read_all([Lookup(view=view, keys=keys)], at)[0]

    def read_all(self, lookups: Sequence[Lookup], at: int | Words) -> list[ViewValues]:
        """Several lookups for the same rows, all from one moment of the store.

        Raises:
            UnavailableError: `view_not_built`.
        """
        with self._store.read() as transaction:
            return [_read(transaction, lookup, at) for lookup in lookups]


def not_built(view: str) -> UnavailableError:
    return UnavailableError(
        f"the view {view} is not built yet in this definition",
        code="view_not_built",
        hint="wait for the ingest process; flyball status shows how far it is",
    )


def _read(transaction: ReadTransaction, lookup: Lookup, at: int | Words) -> ViewValues:
    view, keys = lookup.view, lookup.keys
    if transaction.get(META, view_key(view.definition)) is None:
        raise not_built(view.spec.name)
    n, features = len(keys), len(view.spec.features)
    blobs = transaction.get_many(view_space(view.definition), keys.unique)
    words, blob_at = join(blobs, view.empty_state.tobytes())
    nobody = len(keys.unique)  # the empty state stands last, for null keys and for entities that saw nothing
    unseen = blob_at < 0
    blob_at[unseen] = blob_at[nobody]
    values, valid, exact = np.zeros((n, features)), np.zeros((n, features), np.bool_), np.ones(n, np.bool_)
    entity = np.where(keys.codes < 0, nobody, keys.codes)
    times = np.broadcast_to(np.asarray(at, np.int64), (n,)).copy()
    read_states(view.plan, words, blob_at, entity, times, values, valid, exact)
    state = source_state(transaction, view.source.name)
    exact &= ~unseen[entity] | (times >= state.evicted)
    return view.values(values, valid, exact, lsn=state.lsn, known_through=state.known_through)
