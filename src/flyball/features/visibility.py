"""Which events a row sees: an index range of its entity's events, less those that are not visible at its time.

An entity's events are sorted by (event_time, lsn), its rows by time. A window at a row is a range of events whose ends
only move forward from row to row. Most events are visible to every row after them. The others, *dynamic* ones, come
late, or another version takes their place: they are visible from row `first` up to row `last`, and stand in lists of
events that appear and disappear at each row. All indices count from the first event and row of the `Part`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flyball.features.accumulator import Flags, Plan, Words
from flyball.features.compiled import compiled

Indices = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Events and rows of some entities, entity by entity.

    Args:
        t, known, until: per event, microseconds; `known` is None where all events are visible after their time, and
            `until` where no version takes another's place.
        values: per group 64-bit words per event (None: not kept). present: whether there is one (None: everywhere).
        event_at, row_at: per entity where its events and rows begin; one more at the end.
        times, to: per row its time, and where its answers go.
    """

    t: Words
    known: Words | None
    until: Words | None
    values: list[Words | None]
    present: list[Flags | None]
    event_at: Words
    row_at: Words
    times: Words
    to: Indices


class Changes(NamedTuple):
    """The dynamic events of a part.

    Args:
        entity: per entity, whether it has any.
        first, last: per event the rows that see it. late: is that not from the first row after it on.
        appears, disappears: per row the first event of its list (-1: none); `next_…` continues a list, per event.
    """

    entity: Flags
    first: Indices
    last: Indices
    late: Flags
    appears: Indices
    disappears: Indices
    next_appears: Indices
    next_disappears: Indices


def ranges(part: Part, plan: Plan) -> tuple[Indices, Indices]:
    """`(windows, rows)` and `(rows,)`: the window at a row is the events `start` to `stop`."""
    start = np.empty((max(len(plan.windows), 1), len(part.times)), np.int32)
    stop = np.empty(len(part.times), np.int32)
    hops = plan.levels[plan.windows[:, 1], 0] if len(plan.windows) else np.ones(1, np.int64)
    lengths = plan.windows[:, 0].copy() if len(plan.windows) else np.full(1, -1, np.int64)
    _find_ranges(part.t, part.times, part.event_at, part.row_at, lengths, hops, start, stop)
    return start, stop


def changes(part: Part) -> Changes:
    known = part.known is not None
    events, rows = (len(part.t), len(part.times)) if known else (0, 0)
    found = Changes(
        entity=np.zeros(len(part.row_at) - 1, np.bool_),
        first=np.empty(events, np.int32),
        last=np.empty(events, np.int32),
        late=np.empty(events, np.bool_),
        appears=np.full(rows, -1, np.int32),
        disappears=np.full(rows, -1, np.int32),
        next_appears=np.empty(events, np.int32),
        next_disappears=np.empty(events, np.int32),
    )
    if part.known is not None:
        until = np.zeros(0, np.int64) if part.until is None else part.until
        _find_changes(part.t, part.known, until, part.times, part.event_at, part.row_at, found)
    return found


@compiled
def _find_ranges(
    t: Words,
    times: Words,
    event_at: Words,
    row_at: Words,
    lengths: Words,
    hops: Words,
    start: Indices,
    stop: Indices,
) -> None:
    """A negative length is no bound."""
    for k in range(row_at.shape[0] - 1):
        e1 = event_at[k + 1]
        e = event_at[k]
        for r in range(row_at[k], row_at[k + 1]):
            while e < e1 and t[e] < times[r]:
                e += 1
            stop[r] = e
        for w in range(lengths.shape[0]):
            length, hop = lengths[w], hops[w]
            e = event_at[k]
            for r in range(row_at[k], row_at[k + 1]):
                if length >= 0:
                    since = (times[r] - length) // hop * hop
                    while e < e1 and t[e] < since:
                        e += 1
                start[w, r] = e


@compiled
def _lower_bound(times: Words, low: int, high: int, value: int) -> int:
    """The first of `times[low:high]` (ascending) that is at least `value`; `high` where there is none."""
    while low < high:
        middle = (low + high) // 2
        if times[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _find_changes(
    t: Words, known: Words, until: Words, times: Words, event_at: Words, row_at: Words, found: Changes
) -> None:
    versions = until.shape[0] > 0
    for k in range(row_at.shape[0] - 1):
        r, r1 = row_at[k], row_at[k + 1]
        if r == r1:
            continue
        r0 = r
        for e in range(event_at[k], event_at[k + 1]):
            while r < r1 and times[r] <= t[e]:
                r += 1
            first, last = r, r1
            if r < r1 and known[e] > times[r]:
                first = _lower_bound(times, r, r1, known[e])
            if versions and until[e] <= times[r1 - 1]:
                last = _lower_bound(times, r0, r1, until[e])
            found.first[e], found.last[e], found.late[e] = first, last, first > r or first >= last
            if first == r and last == r1:
                continue
            found.entity[k] = True
            if first >= last:
                continue  # no row sees it
            if first > r:
                found.next_appears[e] = found.appears[first]
                found.appears[first] = e
            if last < r1:
                found.next_disappears[e] = found.disappears[last]
                found.disappears[last] = e
