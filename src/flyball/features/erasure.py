"""Online state without rows that are erased: the entities that they touched are built again from what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.features.corrections import newest_versions, version_of
from flyball.features.frames import is_ahead, is_known, once, vectors, words
from flyball.features.index import KeyIndex
from flyball.features.keys import encode_keys
from flyball.features.ports import EventReader, WriteTransaction
from flyball.features.states import held_space, source_state, version_space, view_space
from flyball.features.views import CompiledView

Update = Callable[[WriteTransaction, CompiledView, pl.DataFrame], None]


class Without:
    """`EventReader` that leaves rows out."""

    def __init__(self, history: EventReader, source: str, lsns: Sequence[int]) -> None:
        self._history = history
        self._source = source
        self._lsns = lsns

    def events(self, source: str, columns: Sequence[str] | None, *, through_lsn: int | None) -> pl.DataFrame:
        frame = self._history.events(source, columns, through_lsn=through_lsn)
        return frame if source != self._source else frame.filter(~pl.col("_lsn").is_in(self._lsns))


def touched(view: CompiledView, removed: pl.DataFrame, entities: Mapping[str, bytes]) -> set[bytes]:
    """The keys of the entities of a view that removed rows were counted for. `entities`: column → the key of the
    entity that is the erased value alone, which may have state although none of its rows is kept any more."""
    keys: set[bytes] = set()
    if removed.height:
        frame = removed.select(
            pl.col(name) if name in removed.columns else pl.lit(None).alias(name) for name in view.spec.entity
        )
        columns = {column.name: column for column in view.entity}
        keys |= set(encode_keys(list(vectors(frame, columns).values()), view.entity, removed.height).unique)
    if len(view.spec.entity) == 1 and view.spec.entity[0] in entities:
        keys.add(entities[view.spec.entity[0]])
    return keys


def rebuild(
    transaction: WriteTransaction, view: CompiledView, keys: set[bytes], history: EventReader, update: Update
) -> None:
    """Build the state of these entities again from what `history` has of them."""
    space = view_space(view.definition)
    for key in keys:
        transaction.delete(space, key)
    source = view.source
    state = source_state(transaction, source.name)
    if state.lsn == 0 or not keys:
        return
    frame = history.events(source.name, view.columns, through_lsn=state.lsn)
    frame = once(frame.filter(is_known(state) & ~is_ahead(source, state)))
    encoded = encode_keys(list(vectors(frame, view.spec.entity).values()), view.entity, frame.height)
    among = np.array([key in keys for key in encoded.unique] + [False], np.bool_)  # -1, a null key, is the last
    left = frame.filter(pl.Series(among[encoded.codes]))
    if left.height:
        update(transaction, view, left.sort("_known_at", "_lsn"))


def forget(
    transaction: WriteTransaction, index: KeyIndex, source: SourceSpec, removed: pl.DataFrame, history: EventReader
) -> int:
    """Forget the removed rows' keys and what is held back of them; how many were held back. `history`: what is left."""
    if removed.is_empty():
        return 0
    keys, lsns = set(removed["_key"].to_list()), set(words(removed, "_lsn").tolist())
    index.erase(transaction, sorted(keys))
    _restore_versions(transaction, source, sorted(keys), lsns, history)
    held = 0
    for entry, data in list(transaction.items(held_space(source.name))):
        if msgspec.msgpack.decode(data)["_lsn"] in lsns:
            transaction.delete(held_space(source.name), entry)
            held += 1
    return held


def _restore_versions(
    transaction: WriteTransaction, source: SourceSpec, keys: list[bytes], lsns: set[int], history: EventReader
) -> None:
    """Of keys whose newest version was removed, note which of the others is the newest now: one that comes late and
    was known before it must not take its place."""
    space = version_space(source.name)
    found = zip(keys, transaction.get_many(space, keys), strict=True)
    lost = [key for key, record in found if record is not None and version_of(record)[1] in lsns]
    if not lost:
        return
    for key in lost:
        transaction.delete(space, key)
    state = source_state(transaction, source.name)
    left = history.events(source.name, (), through_lsn=state.lsn)
    left = left.filter(is_known(state) & pl.col("_key").is_in(pl.Series(lost, dtype=pl.Binary).implode()))
    newest_versions(transaction, source.name, left, state.known_through)
