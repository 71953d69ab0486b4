"""Views as serving sees them: packed states read from the online store, through the kernel that training uses.

No Polars here: a worker loads NumPy and the compiled kernel alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flyball.features.accumulator import Words
from flyball.features.batch import read_states
from flyball.features.keys import Keys
from flyball.features.ports import OnlineStore, ReadTransaction
from flyball.features.states import META, join, source_state, view_key, view_space
from flyball.features.views import CompiledView, ViewValues
from flyball.kernel.errors import UnavailableError


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """A view and the entities that rows look up in it."""

    view: CompiledView
    keys: Keys


class OnlineReader:
    """Reads views. Holds no transaction beyond a call."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store

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
    blob_at[blob_at < 0] = blob_at[nobody]
    values, valid, exact = np.zeros((n, features)), np.zeros((n, features), np.bool_), np.ones(n, np.bool_)
    entity = np.where(keys.codes < 0, nobody, keys.codes)
    times = np.broadcast_to(np.asarray(at, np.int64), (n,)).copy()
    read_states(view.plan, words, blob_at, entity, times, values, valid, exact)
    state = source_state(transaction, view.source.name)
    return view.values(values, valid, exact, lsn=state.lsn, known_through=state.known_through)
