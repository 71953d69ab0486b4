"""Forgetting entities that no exact read needs any more: a few at a time, and never before.

What is older than the longest window of a view, its head and the source's lateness can be in no answer for a time from
`now - lateness` on, and that is what readers are told (`SourceState.evicted`) of entities that are not there.
"""

from __future__ import annotations

import struct

from flyball.define.spec import SourceSpec
from flyball.features.corrections import version_age
from flyball.features.index import GRACE
from flyball.features.kernel import NEWEST
from flyball.features.ports import WriteTransaction
from flyball.features.states import place_space, row_space, unordered, version_space, view_space
from flyball.features.views import CompiledView
from flyball.kernel.times import HOUR

LIMIT = 500  # entries of a space that are looked at in one transaction
_ENTITY, _KEY = 16, 16


class Eviction:
    """Walks through the spaces of a source's views, and begins again after an hour of domain time at the earliest."""

    def __init__(self) -> None:
        self._at: dict[str, bytes] = {}  # how far a space was walked through
        self._next: dict[str, int] = {}  # when the next walk begins

    def sweep(self, transaction: WriteTransaction, source: SourceSpec, views: list[CompiledView], now: int) -> bool:
        """Take one step in each space of a source; was anything of a view forgotten."""
        gone = False
        for view in views:
            if view.reach is not None:
                cut = now - source.lateness - view.reach
                gone |= self._states(transaction, view, cut, now)
                if source.corrections:
                    gone |= self._rows(transaction, view, cut, now)
        if source.corrections and all(view.reach is not None for view in views):
            reach = max((view.reach or 0 for view in views), default=0)
            self._versions(transaction, source, now - source.lateness - reach - GRACE, now)
        return gone

    def _step(
        self, transaction: WriteTransaction, space: str, now: int, *, size: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        if self._next.get(space, now) > now:
            return []
        step = []
        for entry in transaction.items(space, after=self._at.get(space, b""), size=size):
            step.append(entry)
            if len(step) == LIMIT:
                break
        if len(step) < LIMIT:
            self._next[space] = now + HOUR
            self._at.pop(space, None)
        else:
            self._at[space] = step[-1][0]
        return step

    def _states(self, transaction: WriteTransaction, view: CompiledView, cut: int, now: int) -> bool:
        gone, space = False, view_space(view.definition)
        for key, state in self._step(transaction, space, now, size=8 * NEWEST + 8):
            if struct.unpack_from("<q", state, 8 * NEWEST)[0] < cut:
                transaction.delete(space, key)
                gone = True
        return gone

    def _rows(self, transaction: WriteTransaction, view: CompiledView, cut: int, now: int) -> bool:
        gone, space = False, row_space(view.definition)
        for place, row in self._step(transaction, space, now):
            if unordered(place[_ENTITY:], 1)[0] < cut:
                transaction.delete(space, place)
                transaction.delete(place_space(view.definition), row[:_KEY])
                gone = True
        return gone

    def _versions(self, transaction: WriteTransaction, source: SourceSpec, cut: int, now: int) -> None:
        space = version_space(source.name)
        for key, record in self._step(transaction, space, now):
            if version_age(record) < cut:
                transaction.delete(space, key)
