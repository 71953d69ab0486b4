"""Corrections and deletions in online state: the newest version of each event counts, and none before it.

Versions of a key follow each other by (known_at, lsn), in whatever order they come. Of each view the raw rows that
count are kept, by entity and time; where a version takes the place of another, its entity's state is built again from
them, in the same transaction. An event without an earlier version costs no more than one of any other source.
"""

from __future__ import annotations

import struct

import numpy as np
import polars as pl

from flyball.features.accumulator import Words
from flyball.features.frames import words
from flyball.features.ports import WriteTransaction
from flyball.features.states import ordered, place_space, row_space, version_space, view_space
from flyball.features.updating import frame_events, put_updated
from flyball.features.views import CompiledView, Events

_VERSION = struct.Struct("<3q")  # known_at, lsn, age: when it came or happened, whichever is later
_ENTITY, _KEY = 16, 16


def newest_versions(transaction: WriteTransaction, source: str, frame: pl.DataFrame, now: int) -> pl.DataFrame:
    """Of events that are known by now those that count from now on, one per key, deletions among them."""
    frame = frame.sort("_known_at", "_lsn").unique("_key", keep="last", maintain_order=True)
    space, keys = version_space(source), frame["_key"].to_list()
    known, lsns, times = (words(frame, name).tolist() for name in ("_known_at", "_lsn", "_event_time"))
    found = transaction.get_many(space, keys)
    counts = np.zeros(len(keys), np.bool_)
    for i, before in enumerate(found):
        if before is None or (known[i], lsns[i]) >= _VERSION.unpack(before)[:2]:
            counts[i] = True
            transaction.put(space, keys[i], _VERSION.pack(known[i], lsns[i], max(times[i], now)))
    return frame.filter(pl.Series(counts, dtype=pl.Boolean))


def version_of(record: bytes) -> tuple[int, int]:
    """`(known_at, lsn)` of the version."""
    known_at, lsn, _ = _VERSION.unpack(record)
    return known_at, lsn


def version_age(record: bytes) -> int:
    """When the version came or happened, whichever is later."""
    age: int = _VERSION.unpack(record)[2]
    return age


def replace_versions(
    transaction: WriteTransaction, view: CompiledView, gone: list[bytes], frame: pl.DataFrame, floor: int
) -> None:
    """Take the events of the keys `gone` out of a view, and those of `frame` in.

    Args:
        floor: before this time there may be rows that are kept no more.
    """
    touched = _remove(transaction, view, gone)
    added = frame_events(view, frame)
    _insert(transaction, view, added, frame["_key"].to_list())
    grown = np.array([entity not in touched for entity in added.keys.unique], np.bool_)
    put_updated(transaction, view, added.take(np.flatnonzero(grown[added.keys.codes])), floor)
    space = view_space(view.definition)
    for entity in sorted(touched):
        transaction.delete(space, entity)
        rows = _rows(transaction, view, entity)
        put_updated(transaction, view, Events.of_one(rows, entity), floor)


def _remove(transaction: WriteTransaction, view: CompiledView, keys: list[bytes]) -> set[bytes]:
    """Forget the rows of events; the entities that they were of."""
    places, rows = place_space(view.definition), row_space(view.definition)
    touched = set()
    for key, place in zip(keys, transaction.get_many(places, keys), strict=True):
        if place is not None:
            transaction.delete(rows, place)
            transaction.delete(places, key)
            touched.add(place[:_ENTITY])
    return touched


def _insert(transaction: WriteTransaction, view: CompiledView, events: Events, keys: list[bytes]) -> None:
    places, rows = place_space(view.definition), row_space(view.definition)
    data, size = np.ascontiguousarray(events.rows).tobytes(), 8 * view.plan.row_words
    for i, (code, index) in enumerate(zip(events.keys.codes.tolist(), events.index.tolist(), strict=True)):
        place = events.keys.unique[code] + ordered(int(events.rows[i, 0]), int(events.rows[i, 1]))
        transaction.put(rows, place, keys[index] + data[i * size : (i + 1) * size])
        transaction.put(places, keys[index], place)


def _rows(transaction: WriteTransaction, view: CompiledView, entity: bytes) -> Words:
    """The raw rows of an entity by (event_time, lsn), `(n, words)`."""
    found = []
    for place, data in transaction.items(row_space(view.definition), after=entity):
        if not place.startswith(entity):
            break
        found.append(data[_KEY:])
    return np.frombuffer(b"".join(found), np.int64).reshape(-1, view.plan.row_words)
