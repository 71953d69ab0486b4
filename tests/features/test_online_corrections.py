from __future__ import annotations

from dataclasses import replace
from functools import partial
from unittest import mock

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.features.online import OnlineReader
from flyball.features.views import CompiledView
from flyball.features.writer import OnlineWriter
from flyball.kernel.clock import ManualClock
from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND
from flyball.storage.online import MemoryStore
from tests.features.brute import Event, seen_at
from tests.features.cases import (
    CORRECTED,
    ROW,
    SOURCE,
    assert_equals_brute,
    frame_of,
    histories,
    keys_of,
    latest_views,
    window_views,
)
from tests.features.test_online import COUNT, Past, check_rows, check_vectors

PATIENT = msgspec.structs.replace(CORRECTED, lateness=400 * DAY)  # no version is forgotten


def started(now: int) -> tuple[MemoryStore, ManualClock, OnlineWriter, Past]:
    store, clock, past = MemoryStore(), ManualClock(now), Past()
    past.frame = frame_of([], CORRECTED)
    writer = OnlineWriter(store, clock, past)
    return store, clock, writer, past


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_served_values_equal_brute_force_with_corrections_and_deletions(data: st.DataObject) -> None:
    history = [replace(e, lsn=e.lsn + 1) for e in data.draw(histories(again=True))]
    view = data.draw(st.one_of(window_views(), latest_views()))
    compiled = CompiledView(view, PATIENT)
    late = data.draw(st.booleans())
    frame = frame_of(history, CORRECTED)
    now = min((e.t for e in history), default=0) - DAY
    store, clock, writer, past = started(now)
    writer.load_plan([PATIENT], [] if late else [view])
    done = 0
    for size in data.draw(st.lists(st.integers(0, 15), min_size=1, max_size=6)):
        now += data.draw(st.sampled_from([0, 1, SECOND, HOUR, DAY, 3 * DAY, 25 * DAY]))
        clock.advance_to(now)
        batch = frame.slice(done, size)
        past.frame = pl.concat([past.frame, batch])
        writer.apply(PATIENT.name, batch)
        assert writer.apply(PATIENT.name, batch) == 0
        assert writer.seen_first(PATIENT.name, batch["_lsn"]).all()
        done = min(done + size, len(history))
        writer.release(now)
        if data.draw(st.booleans()):
            writer = OnlineWriter(store, clock, past)
        if data.draw(st.booleans()):
            store = rebuilt(store, writer, clock, past, data)
            writer = OnlineWriter(store, clock, past)
        writer.load_plan([PATIENT], [view])
        asked = data.draw(st.lists(st.tuples(st.sampled_from([0, 0, 1, SECOND, 2 * MINUTE, HOUR]), ROW), min_size=1))
        rows, at = [row for _, row in asked], np.array([now - back for back, _ in asked], np.int64)
        got = OnlineReader(store).read(compiled, keys_of(compiled, rows), at)
        seen = [e for e in seen_at([e for e in history if e.lsn <= done], PATIENT, now) if e.t - PATIENT.skew <= now]
        check_rows(compiled, got, seen, rows, at)
        check_vectors(OnlineReader(store), compiled, got, rows, at)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_head_that_overflows_is_exact_from_where_it_says(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from([SOURCE, CORRECTED]))
    source = msgspec.structs.replace(source, lateness=400 * DAY)
    history = [replace(e, lsn=e.lsn + 1) for e in data.draw(histories(again=True))]
    view = data.draw(st.one_of(window_views(), latest_views()))
    now = max((e.known for e in history), default=0) + DAY
    store, past = MemoryStore(), Past()
    limited = partial(CompiledView, raw_limit=data.draw(st.integers(2, 6)))
    with mock.patch("flyball.features.writer.CompiledView", limited):
        writer = OnlineWriter(store, ManualClock(now), past)
        writer.load_plan([source], [view])
        frame, size = frame_of(history, source), data.draw(st.integers(1, 20))
        for start in range(0, len(history), size):
            writer.apply(source.name, frame.slice(start, size))
    compiled = CompiledView(view, source)
    rows = data.draw(st.lists(ROW, min_size=1, max_size=4))
    newest = max((e.t for e in history), default=0)
    at = np.array([data.draw(st.sampled_from([1, 0, -SECOND, -MINUTE])) + newest for _ in rows], np.int64)
    got = OnlineReader(store).read(compiled, keys_of(compiled, rows), at)
    for i, row in enumerate(rows):
        assert got.exact[i] or at[i] <= newest
        if got.exact[i]:
            assert_equals_brute(compiled, got, i, seen_at(history, source, now), row, int(at[i]))


def rebuilt(
    store: MemoryStore, writer: OnlineWriter, clock: ManualClock, past: Past, data: st.DataObject
) -> MemoryStore:
    """The store is lost, and the log replayed in other batches."""
    again = MemoryStore()
    other = OnlineWriter(again, clock, past)
    views = [view.spec for view in writer.views]
    other.load_plan([PATIENT], views)
    size = data.draw(st.integers(1, 20))
    for start in range(0, past.frame.height, size):
        other.apply(PATIENT.name, past.frame.slice(start, size))
    return again


def event(lsn: int, t: int, key: int, *, known: int | None = None, card: str = "x", deleted: bool = False) -> Event:
    values = dict.fromkeys((c.name for c in CORRECTED.columns), None) | {"card": card, "amount": 100}
    return Event(lsn=lsn, t=t, known=t if known is None else known, values=values, key=key, deleted=deleted)


def count(store: MemoryStore, at: int, card: str = "x") -> float:
    compiled = CompiledView(COUNT, PATIENT)
    row = dict.fromkeys((c.name for c in CORRECTED.columns), None) | {"card": card}
    return float(OnlineReader(store).read(compiled, keys_of(compiled, [row]), at).values[0, 0])


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_correction_moves_an_event_to_another_entity(cut: int) -> None:
    store, _, writer, _ = started(HOUR)
    writer.load_plan([PATIENT], [COUNT])
    frame = frame_of(
        [event(1, HOUR - 9, 7), event(2, HOUR - 9, 7, known=HOUR - 5, card="y"), event(3, HOUR - 8, 8)], CORRECTED
    )
    for part in (frame.head(cut), frame.slice(cut)):
        writer.apply(PATIENT.name, part)
    assert (count(store, HOUR), count(store, HOUR, "y")) == (1, 1)


def test_a_deletion_that_comes_before_its_event_holds() -> None:
    store, _, writer, _ = started(HOUR)
    writer.load_plan([PATIENT], [COUNT])
    writer.apply(PATIENT.name, frame_of([event(1, HOUR - 9, 7, known=HOUR - 1, deleted=True)], CORRECTED))
    writer.apply(PATIENT.name, frame_of([event(2, HOUR - 9, 7, known=HOUR - 5)], CORRECTED))
    assert count(store, HOUR) == 0
    writer.apply(PATIENT.name, frame_of([event(3, HOUR - 9, 7, known=HOUR)], CORRECTED))
    assert count(store, HOUR) == 1


@pytest.mark.parametrize("late_known", [HOUR - 5, HOUR - 3])
def test_erasing_one_version_of_an_event_leaves_the_newest_of_the_others(late_known: int) -> None:
    """What comes late is judged against the version that is left, as it is offline."""
    store, clock, writer, past = started(HOUR)
    writer.load_plan([PATIENT], [COUNT])
    rows = [event(1, HOUR - 9, 7, known=HOUR - 8), event(2, HOUR - 9, 7, known=HOUR - 4)]
    rows += [event(3, HOUR - 9, 7, known=HOUR - 2, card="erased"), event(4, HOUR - 9, 8)]
    frame = frame_of(rows, CORRECTED)
    past.frame = frame
    writer.apply(PATIENT.name, frame)
    writer.erase(PATIENT.name, frame[2:3], {})
    past.frame = frame.filter(pl.col("_lsn") != 3)
    assert (count(store, HOUR), count(store, HOUR, "erased")) == (2, 0)
    for _ in range(2):
        late = frame_of([event(5, HOUR - 9, 7, known=late_known, card="late")], CORRECTED)
        writer.apply(PATIENT.name, late)
        older = late_known < HOUR - 4
        assert (count(store, HOUR), count(store, HOUR, "late")) == ((2, 0) if older else (1, 1))
        writer = OnlineWriter(store, clock, past)
        writer.load_plan([PATIENT], [COUNT])


def test_erasing_an_old_version_or_all_of_them_is_judged_by_what_is_left() -> None:
    store, _, writer, past = started(HOUR)
    writer.load_plan([PATIENT], [COUNT])
    rows = [event(1, HOUR - 9, 7, known=HOUR - 8, card="erased"), event(2, HOUR - 9, 7, known=HOUR - 4)]
    frame = frame_of([*rows, event(3, HOUR - 9, 8, known=HOUR - 4, card="erased")], CORRECTED)
    past.frame = frame
    writer.apply(PATIENT.name, frame)
    writer.erase(PATIENT.name, frame.filter(pl.col("_lsn") != 2), {})
    past.frame = frame[1:2]
    late = [event(n, HOUR - 9, key, known=HOUR - 5, card="late") for n, key in ((4, 7), (5, 8))]
    writer.apply(PATIENT.name, frame_of(late, CORRECTED))
    assert (count(store, HOUR), count(store, HOUR, "late")) == (1, 1)
