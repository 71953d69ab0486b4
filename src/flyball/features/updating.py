"""States after events: what the writer and its corrections do with the kernel."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import polars as pl

from flyball.features.accumulator import Words
from flyball.features.batch import apply as kernel_apply
from flyball.features.frames import vectors, words
from flyball.features.kernel import MAP_ROW
from flyball.features.ports import WriteTransaction
from flyball.features.state_keys import frame_keys
from flyball.features.states import view_space
from flyball.features.views import CompiledView, Events

_CHUNK, _LEAST = 50_000, 400  # events of a part, at most and at least
_THREADS = 2  # that compute parts, while the caller writes what is done
_SPARE = 2 * (_THREADS + 2)  # arrays that are kept to be used again
_KEPT = 1 << 24  # words of them in all

Read = Callable[[Sequence[bytes]], Sequence[bytes | memoryview | None] | None]
States = list[memoryview]


def frame_events(view: CompiledView, frame: pl.DataFrame) -> Events:
    """A physical frame as rows of the kernel."""
    columns = vectors(frame, view.value_columns)
    return view.events(columns, words(frame, "_event_time"), words(frame, "_lsn"), frame_keys(view, frame))


def put_updated(
    transaction: WriteTransaction, view: CompiledView, events: Events, floor: int, *, new: bool = False
) -> None:
    """Apply events, in their order, to the states of their entities. `new`: there are none yet."""
    space = view_space(view.definition)

    def read(keys: Sequence[bytes]) -> Sequence[memoryview | None] | None:
        return None if new else transaction.look(space, keys)

    for keys, states in updated(view, events, read, floor):
        transaction.put_many(space, zip(keys, states, strict=True))


def updated(view: CompiledView, events: Events, read: Read, floor: int) -> Iterator[tuple[Sequence[bytes], States]]:
    """The events' entities, in the order of their codes, and their packed states after the events; in parts, each of
    which is valid until the next one is asked for. The following ones are computed while the caller has one.

    Args:
        read: the states before; None: a new one, which knows nothing of the time before `floor`, or all are new.
    """
    parts, running = deque(_parts(events)), deque[_Running]()
    spare = _spare() if len(events.rows) <= _CHUNK else _Spare()
    if len(parts) == 1:
        ((keys, rows, event_at),) = parts
        before, at = _join(read(keys), len(keys), spare)
        states, out = _states(spare, view, rows, event_at, before, at, floor)
        yield keys, states
        spare.give(before, out)
        return
    while parts or running:
        while parts and len(running) <= _THREADS:
            keys, rows, event_at = parts.popleft()
            before, at = _join(read(keys), len(keys), spare)
            future = _pool().submit(_states, spare, view, rows, event_at, before, at, floor)
            running.append(_Running(keys, before, future))
        keys, before, future = running.popleft()
        states, out = future.result()
        yield keys, states
        spare.give(before, out)


def _parts(events: Events) -> Iterator[tuple[Sequence[bytes], Callable[[], Words], Words]]:
    """Entities of about so many events as are taken at once, what gathers their rows, and where those of each begin."""
    codes, unique = events.keys.codes, events.keys.unique
    chunk = _CHUNK if len(codes) > _CHUNK else max(_LEAST, -(-len(codes) // (_THREADS + 1)))
    small = codes.astype(np.uint16) if len(unique) < 1 << 16 else codes  # sorted by radix
    order = np.argsort(small, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    ends = np.append(starts[1:], len(order))
    every = len(starts) == len(unique)  # then they are asked for as they stand
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(ends, starts[first] + chunk, "right")), first + 1)
        begin, end = starts[first], ends[last - 1]
        keys = unique[first:last] if every else [unique[code] for code in ordered[starts[first:last]].tolist()]
        gather = partial(np.take, events.rows, order[begin:end], axis=0)  # by the thread that needs them
        yield keys, gather, np.append(starts[first:last], end) - begin
        first = last


class _Running(NamedTuple):
    """A part that is being computed."""

    keys: Sequence[bytes]
    before: Words
    future: Future[tuple[States, Words]]


class _Spare:
    """Memory that is used again: fresh pages cost more than what is written to them. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrays: list[Words] = []  # ascending in size

    def take(self, words: int) -> Words:
        """An array of at least so many words, whatever is in it."""
        with self._lock:
            for i, array in enumerate(self._arrays):
                if len(array) >= words:
                    return self._arrays.pop(i)
        return np.empty(words + words // 2, np.int64)

    def give(self, *arrays: Words) -> None:
        """Give back what was taken, or a part of it for the whole."""
        whole = [array if array.base is None else array.base for array in arrays if len(array)]
        kept, room = list[Words](), _KEPT
        with self._lock:
            for array in sorted([*self._arrays, *whole], key=len, reverse=True)[:_SPARE]:
                if len(array) <= room:
                    kept.append(array)
                    room -= len(array)
            self._arrays = kept[::-1]


@cache
def _spare() -> _Spare:
    """What a process keeps from batch to batch."""
    return _Spare()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "states")


def _begin_anew() -> None:
    """After a fork: the threads stayed behind, and a lock may be held by one of them."""
    _pool.cache_clear()
    _spare.cache_clear()


os.register_at_fork(after_in_child=_begin_anew)


def _most(view: CompiledView, before: int, entities: int, event_at: Words) -> int:
    """How many words the states may have after the events."""
    plan = view.plan
    growth = plan.levels.shape[0] * (1 + plan.acc_words) + plan.row_words + MAP_ROW * len(plan.maps)  # at most
    most: int = before + entities * plan.fixed + int(event_at[-1]) * growth
    return most


def _states(
    spare: _Spare, view: CompiledView, rows: Callable[[], Words], event_at: Words, before: Words, at: Words, floor: int
) -> tuple[States, Words]:
    """The states of a part, and the memory that they lie in."""
    plan, n = view.plan, len(at)
    out, out_at = spare.take(_most(view, len(before), n, event_at)), np.zeros(n + 1, np.int64)
    kernel_apply(plan, before, at, rows().reshape(-1), event_at, out, out_at, floor)
    data, ends = out.data.cast("B"), (8 * out_at).tolist()
    return [data[ends[k] : ends[k + 1]] for k in range(n)], out


def _join(blobs: Sequence[bytes | memoryview | None] | None, count: int, spare: _Spare) -> tuple[Words, Words]:
    """Packed states one after another, and where each of the `count` begins (-1: there is none)."""
    if blobs is None:
        return np.empty(0, np.int64), np.full(count, -1, np.int64)
    sizes = np.fromiter((-1 if blob is None else len(blob) // 8 for blob in blobs), np.int64, len(blobs))
    ends = np.cumsum(np.maximum(sizes, 0))
    at = np.where(sizes < 0, -1, ends - sizes)
    joined = spare.take(int(ends[-1]))
    data = joined.data.cast("B")
    for blob, begin, end in zip(blobs, (8 * at).tolist(), (8 * ends).tolist(), strict=True):
        if blob is not None:
            data[begin:end] = blob
    return joined[: ends[-1]], at
