from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import LatestSpec, ViewSpec
from flyball.features.offline import sweep
from flyball.features.online import OnlineReader
from flyball.features.states import view_space
from flyball.features.views import CompiledView, ViewValues
from flyball.features.writer import OnlineWriter
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import UnavailableError
from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND
from flyball.storage.online import MemoryStore
from tests.features.brute import Event
from tests.features.cases import (
    ROW,
    SCHEMA,
    SOURCE,
    aggregate,
    assert_equals_brute,
    col,
    frame_of,
    histories,
    keys_of,
    latest_views,
    window_views,
)

START = -100 * DAY
# Time goes on by up to 25 days between batches here, whatever the source would refuse as too late; a key is forgotten 7
# days after the lateness, and its copy would count again then.
PATIENT = msgspec.structs.replace(SOURCE, lateness=400 * DAY)


class Past:
    """History for a writer: the events that were handed to it."""

    def __init__(self) -> None:
        self.frame = pl.DataFrame(schema=SCHEMA)

    def events(self, source: str, columns: Any, *, through_lsn: int | None) -> pl.DataFrame:
        assert source == SOURCE.name
        return self.frame if through_lsn is None else self.frame.filter(pl.col("_lsn") <= through_lsn)


def numbered(history: list[Event]) -> list[Event]:
    return [replace(event, lsn=event.lsn + 1) for event in history]


def with_keys(events: list[Event], keys: list[int]) -> pl.DataFrame:
    return frame_of(events).with_columns(pl.Series("_key", [k.to_bytes(16, "big") for k in keys], pl.Binary))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_served_values_equal_brute_force_and_the_sweep(data: st.DataObject) -> None:
    history = numbered(data.draw(histories()))
    view: ViewSpec = data.draw(st.one_of(window_views(), latest_views()))
    compiled = CompiledView(view, SOURCE)
    late = data.draw(st.booleans())  # the view comes into a running platform, and is built from its past
    keys = [data.draw(st.sampled_from([e.lsn, e.lsn, max(1, e.lsn - 3)])) for e in history]
    frame = with_keys(history, keys)
    firsts = [e for i, e in enumerate(history) if keys[i] not in keys[:i]]
    store, past = MemoryStore(), Past()
    now = min((e.t for e in history), default=0) - DAY
    clock = ManualClock(now)
    writer = OnlineWriter(store, clock, past)
    writer.load_plan([PATIENT], [] if late else [view])
    done = 0
    for size in data.draw(st.lists(st.integers(0, 15), min_size=1, max_size=6)):
        now += data.draw(st.sampled_from([0, 1, SECOND, HOUR, DAY, 3 * DAY, 25 * DAY]))
        clock.advance_to(now)
        batch = frame.slice(done, size)
        past.frame = pl.concat([past.frame, batch])
        writer.apply(SOURCE.name, batch)
        assert writer.apply(SOURCE.name, batch) == 0
        done = min(done + size, len(history))
        writer.release(now)
        if data.draw(st.booleans()):
            writer = OnlineWriter(store, clock, past)
        writer.load_plan([PATIENT], [view])
        asked = data.draw(st.lists(st.tuples(st.sampled_from([0, 0, 1, SECOND, 2 * MINUTE, HOUR]), ROW), min_size=1))
        at = np.array([now - back for back, _ in asked], np.int64)
        got = OnlineReader(store).read(compiled, keys_of(compiled, [row for _, row in asked]), at)
        assert got.lsn == writer.applied_lsn(SOURCE.name) == done
        seen = [e for e in firsts if e.lsn <= done and e.known <= now]
        check_rows(compiled, got, seen, [row for _, row in asked], at)
        check_vectors(OnlineReader(store), compiled, got, [row for _, row in asked], at)
        check_against_the_sweep(compiled, got, frame_of([e for e in firsts if e.lsn <= done]), asked, now)


def check_rows(view: CompiledView, got: ViewValues, seen: list[Event], rows: list[dict[str, Any]], at: Any) -> None:
    newest = max((e.t for e in seen), default=-(1 << 62))
    for i, row in enumerate(rows):
        assert got.exact[i] or at[i] < newest - 5 * MINUTE
        if got.exact[i]:
            assert_equals_brute(view, got, i, seen, row, int(at[i]))


def check_vectors(
    reader: OnlineReader, view: CompiledView, got: ViewValues, rows: list[dict[str, Any]], at: Any
) -> None:
    """One entity alone has the values that it has among many."""
    keys = keys_of(view, rows)
    for i, t in enumerate(at.tolist()):
        one = reader.vector(view, keys.unique[keys.codes[i]] if keys.codes[i] >= 0 else None, t)
        np.testing.assert_array_equal(one.values, got.values[i])
        np.testing.assert_array_equal(one.valid, got.valid[i])
        assert (one.exact, one.lsn, one.known_through) == (got.exact[i], got.lsn, got.known_through)


def check_against_the_sweep(
    view: CompiledView, got: ViewValues, frame: pl.DataFrame, asked: list[tuple[int, dict[str, Any]]], now: int
) -> None:
    """A training row at the time of serving has the values that were served."""
    current = [i for i, (back, _) in enumerate(asked) if back == 0]
    keys = keys_of(view, [asked[i][1] for i in current])
    offline = sweep(view, frame, keys, np.full(len(current), now, np.int64))
    np.testing.assert_array_equal(offline.valid, got.valid[current])
    np.testing.assert_allclose(offline.values, got.values[current], rtol=1e-12, atol=1e-18)


COUNT = ViewSpec(
    name="Card",
    kind="window",
    source=SOURCE.name,
    entity=("card",),
    aggregates=(aggregate("n", "count", "1h"), aggregate("total", "sum", "1h", col("amount"))),
)


def event(lsn: int, t: int, *, known: int | None = None, amount: int = 100) -> Event:
    values = dict.fromkeys((c.name for c in SOURCE.columns), None) | {"card": "x", "amount": amount}
    return Event(lsn=lsn, t=t, known=t if known is None else known, values=values)


def read(store: MemoryStore, at: int, view: ViewSpec = COUNT, card: str | None = "x") -> list[float]:
    compiled = CompiledView(view, SOURCE)
    row = dict.fromkeys((c.name for c in SOURCE.columns), None) | {"card": card}
    values: list[float] = OnlineReader(store).read(compiled, keys_of(compiled, [row]), at).values[0].tolist()
    return values


def started(now: int, views: tuple[ViewSpec, ...] = (COUNT,)) -> tuple[MemoryStore, ManualClock, OnlineWriter, Past]:
    store, clock, past = MemoryStore(), ManualClock(now), Past()
    writer = OnlineWriter(store, clock, past)
    writer.load_plan([SOURCE], views)
    return store, clock, writer, past


def test_an_event_at_the_time_of_the_request_is_not_seen() -> None:
    store, _, writer, _ = started(HOUR)
    writer.apply(SOURCE.name, frame_of([event(1, HOUR - 1), event(2, HOUR)]))
    assert read(store, HOUR) == [1.0, 1.0]
    assert read(store, HOUR + 1) == [2.0, 2.0]


def test_a_null_key_and_an_unknown_entity_get_the_defaults() -> None:
    store, _, writer, _ = started(HOUR)
    writer.apply(SOURCE.name, frame_of([event(1, HOUR - 1)]))
    assert read(store, HOUR, card=None) == read(store, HOUR, card="unknown") == [0.0, 0.0]


def test_history_is_held_back_until_it_is_known() -> None:
    store, clock, writer, _ = started(HOUR)
    writer.apply(SOURCE.name, frame_of([event(1, HOUR - 2), event(2, HOUR - 1, known=HOUR + MINUTE)]))
    assert (writer.held(SOURCE.name), read(store, HOUR)) == (1, [1.0, 1.0])
    assert writer.release(HOUR + MINUTE - 1) == 0
    clock.advance_to(HOUR + MINUTE)
    assert writer.release(HOUR + MINUTE) == 1
    assert writer.known_through(SOURCE.name) == HOUR + MINUTE
    assert (writer.held(SOURCE.name), read(store, HOUR + MINUTE)) == (0, [2.0, 2.0])


def test_a_key_counts_once_and_the_index_says_which_event_it_was() -> None:
    store, _, writer, _ = started(HOUR)
    frame = with_keys([event(n, HOUR - n) for n in (1, 2, 3, 4)], [7, 8, 7, 8])
    writer.apply(SOURCE.name, frame.head(2))
    writer.apply(SOURCE.name, frame)
    first = writer.seen_first(SOURCE.name, frame["_lsn"])
    assert first.to_list() == [True, True, False, False]
    assert read(store, HOUR)[0] == 2.0


def test_keys_are_forgotten_after_lateness_and_a_week() -> None:
    _, clock, writer, _ = started(0)
    writer.apply(SOURCE.name, with_keys([event(1, 0)], [7]))
    for day in range(1, 12):
        clock.advance_to(day * DAY)
        writer.apply(SOURCE.name, with_keys([event(2 * day, day * DAY), event(2 * day + 1, day * DAY)], [100 + day, 7]))
        again = writer.seen_first(SOURCE.name, pl.Series([2 * day + 1])).to_list()
        assert again == [day == 9], "forgotten after 8 days, and then remembered anew"


def test_a_changed_view_is_built_beside_the_old_one_and_goes_when_nobody_needs_it() -> None:
    store, _, writer, past = started(HOUR)
    longer = ViewSpec(
        name="Card", kind="window", source=SOURCE.name, entity=("card",), aggregates=(aggregate("n", "count", "2d"),)
    )
    past.frame = frame_of([event(1, -DAY), event(2, HOUR - 1)])
    writer.apply(SOURCE.name, past.frame)
    with pytest.raises(UnavailableError) as error:
        read(store, HOUR, longer)
    assert error.value.code == "view_not_built"
    writer.load_plan([SOURCE], [COUNT, longer])
    assert (read(store, HOUR), read(store, HOUR, longer)) == ([1.0, 1.0], [2.0])
    writer.apply(SOURCE.name, frame_of([event(3, HOUR - 2)]))
    assert (read(store, HOUR)[0], read(store, HOUR, longer)) == (2.0, [3.0])
    writer.load_plan([SOURCE], [longer])
    with pytest.raises(UnavailableError):
        read(store, HOUR)


def test_a_lost_store_is_built_again_from_the_log() -> None:
    store, clock, writer, past = started(HOUR)
    frame = frame_of([event(n, HOUR - n) for n in range(1, 50)])
    writer.apply(SOURCE.name, frame)
    served = read(store, HOUR)
    again = MemoryStore()
    writer = OnlineWriter(again, clock, past)
    writer.load_plan([SOURCE], [COUNT])
    assert writer.applied_lsn(SOURCE.name) == 0
    for start in range(0, 49, 10):
        writer.apply(SOURCE.name, frame.slice(start, 10))
    assert read(again, HOUR) == served == [49.0, 49.0]


def test_a_busy_entity_keeps_exact_answers_at_its_newest_time() -> None:
    compiled = CompiledView(COUNT, SOURCE)
    store, _, writer, _ = started(HOUR)
    n = 10_000
    frame = frame_of([event(i + 1, HOUR - n + i) for i in range(n)])
    for start in range(0, n, 999):
        writer.apply(SOURCE.name, frame.slice(start, 999))
    row = dict.fromkeys((c.name for c in SOURCE.columns), None) | {"card": "x"}
    at = np.array([HOUR, HOUR - 100, HOUR - 9_000], np.int64)
    got = OnlineReader(store).read(compiled, keys_of(compiled, [row, row, row]), at)
    assert got.exact.tolist() == [True, True, False]
    assert got.values[:2, 0].tolist() == [n, n - 100]


def test_a_late_event_does_not_take_the_place_of_a_newer_latest_value() -> None:
    view = ViewSpec(
        name="L",
        kind="latest",
        source=SOURCE.name,
        entity=("card",),
        latest=(LatestSpec(name="amount", column="amount", type="decimal", scale=2),),
    )
    store, _, writer, _ = started(2 * HOUR, (view,))
    writer.apply(SOURCE.name, frame_of([event(1, 0, amount=1), event(2, HOUR, amount=2), event(3, -HOUR, amount=3)]))
    assert read(store, HOUR, view) == [0.01]
    assert read(store, HOUR + 1, view) == [0.02]


@pytest.mark.parametrize("skews", [(0, DAY), (DAY, 0)])
def test_another_skew_of_the_source_builds_its_views_again(skews: tuple[int, int]) -> None:
    row = dict.fromkeys(c.name for c in SOURCE.columns) | {"shop": 1}
    view = ViewSpec(
        name="V",
        source=SOURCE.name,
        entity=("shop",),
        kind="window",
        aggregates=(aggregate("n", "count", "1h"),),
    )
    history = [Event(t=START + i * MINUTE, known=-HOUR, lsn=i + 1, values=row) for i in range(2 * 24 * 60)]
    store, past, clock = MemoryStore(), Past(), ManualClock(0)
    writer = OnlineWriter(store, clock, past)
    before, after = (msgspec.structs.replace(SOURCE, skew=skew) for skew in skews)
    writer.load_plan([before], [view])
    past.frame = with_keys(history, [e.lsn for e in history])
    writer.apply(SOURCE.name, past.frame)
    writer.load_plan([after], [view])
    compiled = CompiledView(view, after)
    more = [Event(t=history[-1].t + MINUTE, known=-HOUR, lsn=len(history) + 1, values=row)]
    writer.apply(SOURCE.name, with_keys(more, [e.lsn for e in more]))
    times = np.array([more[-1].t + SECOND, more[-1].t - 12 * HOUR], np.int64)
    answer = OnlineReader(store).read(compiled, keys_of(compiled, [row] * 2), times)
    assert [v for v, exact in zip(answer.values[:, 0].tolist(), answer.exact, strict=True) if exact] == (
        [61.0, 60.0] if after.skew else [61.0]
    )


def test_a_state_of_another_format_is_built_again_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store, past, clock = MemoryStore(), Past(), ManualClock(HOUR)
    with monkeypatch.context() as patch:
        patch.setattr("flyball.features.writer.FORMAT_VERSION", 1)
        writer = OnlineWriter(store, clock, past)
        writer.load_plan([SOURCE], [COUNT])
        past.frame = frame_of([event(1, 0), event(2, MINUTE)])
        writer.apply(SOURCE.name, past.frame)
    compiled = CompiledView(COUNT, SOURCE)
    space = view_space(compiled.definition)
    with store.write() as transaction:  # words that the present kernel would take for something else
        for key, state in list(transaction.items(space)):
            transaction.put(space, key, b"\x07" * len(state))
    OnlineWriter(store, clock, past).load_plan([SOURCE], [COUNT])
    assert read(store, HOUR) == [2.0, 2.0]


def test_a_batch_in_parts_is_what_small_batches_are() -> None:
    values = [
        dict.fromkeys((c.name for c in SOURCE.columns), None) | {"card": f"{i % 211}", "amount": i}
        for i in range(3_000)
    ]
    frame = frame_of([Event(lsn=i + 1, t=i * SECOND, known=i * SECOND, values=row) for i, row in enumerate(values)])
    names = [("n", "count"), ("s", "sum"), ("m", "max")]
    view = ViewSpec(
        name="Card",
        kind="window",
        source=SOURCE.name,
        entity=("card",),
        aggregates=tuple(aggregate(name, op, "1h", None if op == "count" else col("amount")) for name, op in names),
    )
    compiled, found = CompiledView(view, SOURCE), []
    for size in (100, 1_500):
        store, clock = MemoryStore(), ManualClock(frame.height * SECOND)
        writer = OnlineWriter(store, clock, Past())
        writer.load_plan([SOURCE], [view])
        for start in range(0, frame.height, size):
            writer.apply(SOURCE.name, frame[start : start + size])
        got = OnlineReader(store).read(compiled, keys_of(compiled, values[:211]), frame.height * SECOND)
        assert got.values[:, 0].sum() == frame.height
        found.append(got.values.tolist())
    assert found[0] == found[1]
