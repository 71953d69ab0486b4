"""States after events: what the writer and its corrections do with the kernel."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

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

_CHUNK = 50_000  # events that the kernel takes at once
_THREADS = 2  # that compute parts of a long build, while the caller writes what is done
_KEPT = 1 << 23  # words of memory that a thread keeps from batch to batch

Read = Callable[[Sequence[bytes]], Sequence[bytes | memoryview | None] | None]
States = list[memoryview]
_kept = threading.local()


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
    which is valid until the next one is asked for.

    Args:
        read: the states before; None: a new one, which knows nothing of the time before `floor`, or all are new.
    """
    parts = deque(_parts(events))
    if len(parts) <= 1:
        for keys, rows, event_at in parts:
            before, at = _join(read(keys), len(keys), keep=True)
            out = _memory("out", _most(view, len(before), len(at), event_at), keep=True)
            yield keys, _states(view, rows(), event_at, before, at, floor, out)
        return
    spare = _Spare()
    with ThreadPoolExecutor(_THREADS) as pool:
        running = deque[tuple[Sequence[bytes], Future[tuple[States, Words]]]]()
        while parts or running:
            while parts and len(running) <= _THREADS:
                keys, rows, event_at = parts.popleft()
                before, at = _join(read(keys), len(keys), keep=False)
                running.append((keys, pool.submit(_states_in, spare, view, rows, event_at, before, at, floor)))
            keys, future = running.popleft()
            states, out = future.result()
            yield keys, states
            spare.give(out)


def _parts(events: Events) -> Iterator[tuple[Sequence[bytes], Callable[[], Words], Words]]:
    """Entities of about so many events as are taken at once, what gathers their rows, and where those of each begin."""
    codes, unique = events.keys.codes, events.keys.unique
    small = codes.astype(np.uint16) if len(unique) < 1 << 16 else codes  # sorted by radix
    order = np.argsort(small, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    ends = np.append(starts[1:], len(order))
    every = len(starts) == len(unique)  # then they are asked for as they stand
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(ends, starts[first] + _CHUNK, "right")), first + 1)
        begin, end = starts[first], ends[last - 1]
        keys = unique[first:last] if every else [unique[code] for code in ordered[starts[first:last]].tolist()]
        gather = partial(np.take, events.rows, order[begin:end], axis=0)  # by the thread that needs them
        yield keys, gather, np.append(starts[first:last], end) - begin
        first = last


class _Spare:
    """Memory for results, used again: fresh pages cost more than what is written to them. For several threads."""

    def __init__(self) -> None:
        self._arrays = deque[Words]()

    def take(self, words: int) -> Words:
        try:
            array = self._arrays.popleft()
        except IndexError:
            return np.empty(words, np.int64)
        return array if len(array) >= words else np.empty(words, np.int64)

    def give(self, array: Words) -> None:
        self._arrays.append(array)


def _states_in(
    spare: _Spare, view: CompiledView, rows: Callable[[], Words], event_at: Words, before: Words, at: Words, floor: int
) -> tuple[States, Words]:
    out = spare.take(_most(view, len(before), len(at), event_at))
    return _states(view, rows(), event_at, before, at, floor, out), out


def _most(view: CompiledView, before: int, entities: int, event_at: Words) -> int:
    """How many words the states may have after the events."""
    plan = view.plan
    growth = plan.levels.shape[0] * (1 + plan.acc_words) + plan.row_words + MAP_ROW * len(plan.maps)  # at most
    most: int = before + entities * plan.fixed + int(event_at[-1]) * growth
    return most


def _states(
    view: CompiledView, rows: Words, event_at: Words, before: Words, at: Words, floor: int, out: Words
) -> States:
    plan, n = view.plan, len(at)
    out_at = np.zeros(n + 1, np.int64)
    kernel_apply(plan, before, at, rows.reshape(-1), event_at, out, out_at, floor)
    data, ends = out.data.cast("B"), (8 * out_at).tolist()
    return [data[ends[k] : ends[k + 1]] for k in range(n)]


def _join(blobs: Sequence[bytes | memoryview | None] | None, count: int, *, keep: bool) -> tuple[Words, Words]:
    """Packed states one after another, and where each of the `count` begins (-1: there is none)."""
    if blobs is None:
        return np.empty(0, np.int64), np.full(count, -1, np.int64)
    sizes = np.fromiter((-1 if blob is None else len(blob) // 8 for blob in blobs), np.int64, len(blobs))
    ends = np.cumsum(np.maximum(sizes, 0))
    at = np.where(sizes < 0, -1, ends - sizes)
    joined = _memory("before", int(ends[-1]), keep=keep)
    data = joined.data.cast("B")
    for blob, begin, end in zip(blobs, (8 * at).tolist(), (8 * ends).tolist(), strict=True):
        if blob is not None:
            data[begin:end] = blob
    return joined, at


def _memory(name: str, words: int, *, keep: bool) -> Words:
    """Memory of a thread: fresh pages for each batch would cost more than what is written to them."""
    if not keep or words > _KEPT:
        return np.empty(words, np.int64)
    there: Words | None = getattr(_kept, name, None)
    if there is None or len(there) < words:
        there = np.empty(min(2 * words, _KEPT), np.int64)
        setattr(_kept, name, there)
    return there[:words]
