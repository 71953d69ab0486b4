"""States after events: what the writer and its corrections do with the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl

from flyball.features.accumulator import Words
from flyball.features.batch import apply as kernel_apply
from flyball.features.frames import vectors, words
from flyball.features.kernel import MAP_ROW
from flyball.features.ports import WriteTransaction
from flyball.features.state_keys import frame_keys
from flyball.features.states import join, view_space
from flyball.features.views import CompiledView, Events

_CHUNK = 500_000  # events that the kernel takes at once

Read = Callable[[Sequence[bytes]], Sequence[bytes | None]]


def frame_events(view: CompiledView, frame: pl.DataFrame) -> Events:
    """A physical frame as rows of the kernel."""
    columns = vectors(frame, view.value_columns)
    return view.events(columns, words(frame, "_event_time"), words(frame, "_lsn"), frame_keys(view, frame))


def put_updated(transaction: WriteTransaction, view: CompiledView, events: Events, floor: int) -> None:
    """Apply events, in their order, to the states of their entities."""
    space = view_space(view.definition)
    for keys, states in updated(view, events, lambda keys: transaction.get_many(space, keys), floor):
        transaction.put_many(space, list(zip(keys, states, strict=True)))


def updated(
    view: CompiledView, events: Events, read: Read, floor: int
) -> Iterator[tuple[Sequence[bytes], list[memoryview]]]:
    """The events' entities, in the order of their codes, and their packed states after the events; in parts.

    Args:
        read: the states before; None: a new one, which knows nothing of the time before `floor`.
    """
    codes, unique = events.keys.codes, events.keys.unique
    small = codes.astype(np.uint16) if len(unique) < 1 << 16 else codes  # sorted by radix
    order = np.argsort(small, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    ends = np.append(starts[1:], len(order))
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(ends, starts[first] + _CHUNK, "right")), first + 1)
        begin, end = starts[first], ends[last - 1]
        keys = [unique[code] for code in ordered[starts[first:last]].tolist()]
        event_at = np.append(starts[first:last], end) - begin
        yield keys, _states(view, events.rows[order[begin:end]], event_at, read(keys), floor)
        first = last


def _states(
    view: CompiledView, rows: Words, event_at: Words, blobs: Sequence[bytes | None], floor: int
) -> list[memoryview]:
    plan, n = view.plan, len(blobs)
    words_in, blob_at = join(blobs)
    growth = plan.levels.shape[0] * (1 + plan.acc_words) + plan.row_words + MAP_ROW * len(plan.maps)  # at most
    out = np.empty(len(words_in) + n * plan.fixed + len(rows) * growth, np.int64)
    out_at = np.zeros(n + 1, np.int64)
    kernel_apply(plan, words_in, blob_at, rows.reshape(-1), event_at, out, out_at, floor)
    data, ends = out.data.cast("B"), (8 * out_at).tolist()
    return [data[ends[k] : ends[k + 1]] for k in range(n)]
