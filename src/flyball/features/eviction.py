"""Forgetting entities that no exact read needs any more: a few at a time, and never before.

What is older than the longest window of a view, its head and the source's lateness can be in no answer for a time from
`now - lateness` on, and that is what readers are told (`SourceState.evicted`) of entities that are not there.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import NamedTuple

from flyball.define.spec import SourceSpec
from flyball.features.corrections import version_age
from flyball.features.index import GRACE
from flyball.features.kernel import NEWEST
from flyball.features.ports import WriteTransaction
from flyball.features.states import place_space, row_space, unordered, version_space, view_space
from flyball.features.views import CompiledView
from flyball.kernel.times import HOUR

LEAST = 500  # entries of a space that are looked at in one transaction, or twice as many as it has events
REST = 8  # a walk begins after this share of the time for which an entry is kept
_ENTITY, _KEY = 16, 16


class _Walk(NamedTuple):
    """What a step is told: the time, for how long entries are kept, and how many are looked at."""

    now: int
    kept: int
    limit: int

    @property
    def cut(self) -> int:
        """What is older can go."""
        return self.now - self.kept


class Eviction:
    """Walks through the spaces of a source's views, and rests between two walks.

    A walk keeps up with whatever comes: a step looks at more entries than a batch can add. What could go stands for
    an eighth longer than it must, or an hour where that is more, and for as long as a walk takes.
    """

    def __init__(self) -> None:
        self._at: dict[str, bytes] = {}  # how far a space was walked through
        self._next: dict[str, int] = {}  # when the next walk begins

    def sweep(
        self, transaction: WriteTransaction, source: SourceSpec, views: list[CompiledView], now: int, *, events: int
    ) -> bool:
        """Take one step in each space of a source, after so many events; was anything of a view forgotten."""
        gone, limit = False, max(LEAST, 2 * events)
        for view in views:
            if view.reach is not None:
                walk = _Walk(now, source.lateness + view.reach, limit)
                gone |= self._states(transaction, view, walk)
                if source.corrections:
                    gone |= self._rows(transaction, view, walk)
        if source.corrections and all(view.reach is not None for view in views):
            reach = max((view.reach or 0 for view in views), default=0)
            self._versions(transaction, source, _Walk(now, source.lateness + reach + GRACE, limit))
        return gone

    def _step(
        self, transaction: WriteTransaction, space: str, walk: _Walk, *, size: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        if self._next.get(space, walk.now) > walk.now:
            return []
        entries = transaction.items(space, after=self._at.get(space, b""), size=size)
        step = list(islice(entries, walk.limit))
        if len(step) < walk.limit:
            self._next[space] = walk.now + max(HOUR, walk.kept // REST)
            self._at.pop(space, None)
        else:
            self._at[space] = step[-1][0]
        return step

    def _states(self, transaction: WriteTransaction, view: CompiledView, walk: _Walk) -> bool:
        gone, space = False, view_space(view.definition)
        for key, state in self._step(transaction, space, walk, size=8 * NEWEST + 8):
            if struct.unpack_from("<q", state, 8 * NEWEST)[0] < walk.cut:
                transaction.delete(space, key)
                gone = True
        return gone

    def _rows(self, transaction: WriteTransaction, view: CompiledView, walk: _Walk) -> bool:
        gone, space = False, row_space(view.definition)
        for place, row in self._step(transaction, space, walk):
            if unordered(place[_ENTITY:], 1)[0] < walk.cut:
                transaction.delete(space, place)
                transaction.delete(place_space(view.definition), row[:_KEY])
                gone = True
        return gone

    def _versions(self, transaction: WriteTransaction, source: SourceSpec, walk: _Walk) -> None:
        space = version_space(source.name)
        for key, record in self._step(transaction, space, walk):
            if version_age(record) < walk.cut:
                transaction.delete(space, key)
