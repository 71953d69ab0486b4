"""Views that are built beside the others, and state that is concealed while it is built again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import LatestSpec, ViewSpec
from flyball.features.build import Builds
from flyball.features.online import OnlineReader
from flyball.features.views import CompiledView
from flyball.features.writer import OnlineWriter
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import UnavailableError
from flyball.kernel.times import DAY, HOUR, MINUTE
from flyball.storage.online import MemoryStore
from tests.features.brute import Event
from tests.features.cases import SOURCE, aggregate, col, frame_of, histories, keys_of, window_views
from tests.features.test_online import Past, check_rows, numbered

CARD = ViewSpec(
    name="Card",
    kind="window",
    source="Payments",
    entity=("card",),
    aggregates=(aggregate("n", "count", "2d"), aggregate("total", "sum", "2d", col("amount"))),
)
OTHER = ViewSpec(
    name="Card", kind="window", source="Payments", entity=("card",), aggregates=(aggregate("n", "count", "3h"),)
)
ROW: dict[str, Any] = dict.fromkeys(("shop", "count", "score", "online", "kind"))


class Ranges(Past):
    def span(self, source: str, columns: Iterable[str], *, after_lsn: int, through_lsn: int) -> pl.DataFrame:
        return self.frame.filter((pl.col("_lsn") > after_lsn) & (pl.col("_lsn") <= through_lsn))


def event(lsn: int, t: int, *, known: int | None = None, card: str = "x", amount: int = 100) -> Event:
    return Event(lsn=lsn, t=t, known=t if known is None else known, values={**ROW, "card": card, "amount": amount})


class Bench:
    """A writer whose builds take two events a range."""

    def __init__(self, now: int) -> None:
        self.clock, self.store, self.past = ManualClock(now), MemoryStore(), Ranges()
        self.said: list[dict[str, Any]] = []
        self.open()

    def open(self) -> None:
        builds = Builds(store=self.store, ranges=self.past, at_once=1, chunk=2, note=self.said.append)
        self.writer = OnlineWriter(self.store, self.clock, self.past, builds=builds)

    def take(self, events: list[Event]) -> None:
        frame = frame_of(events)
        self.past.frame = pl.concat([self.past.frame, frame])
        self.writer.apply("Payments", frame)

    def read(self, view: ViewSpec, card: str = "x") -> list[float]:
        compiled = CompiledView(view, SOURCE)
        row = {**ROW, "card": card, "amount": None}
        got = OnlineReader(self.store).read(compiled, keys_of(compiled, [row]), self.clock.now())
        return [float(value) for value in got.values[0]]


def test_a_view_over_a_long_source_is_built_beside_the_old_one_which_goes_on() -> None:
    bench = Bench(0)
    bench.writer.load_plan([SOURCE], [OTHER])
    bench.take([event(i, -HOUR + i) for i in range(1, 6)])
    bench.writer.load_plan([SOURCE], [OTHER, CARD])
    with pytest.raises(UnavailableError) as caught:
        bench.read(CARD)
    assert caught.value.code == "view_not_built"
    bench.writer.release(0)
    bench.take([event(6, -MINUTE, amount=50)])
    assert bench.read(OTHER) == [6.0]
    assert bench.said[-1]["running"][0]["rows"] == 2
    bench.writer.release(0)
    bench.writer.release(0)
    assert bench.read(CARD) == [6.0, 5.5]
    bench.take([event(7, -1, amount=25)])
    assert bench.read(CARD) == [7.0, 5.75]
    assert bench.said[-1]["running"] == []


def test_history_that_becomes_known_during_a_build_is_in_the_view_once() -> None:
    bench = Bench(0)
    bench.writer.load_plan([SOURCE], [])
    late = event(1, -HOUR, known=MINUTE, amount=700)
    bench.take([late, *[event(i, -HOUR + i) for i in range(2, 6)]])
    bench.writer.load_plan([SOURCE], [CARD])
    bench.writer.release(0)  # the range that the late event is in was read
    bench.clock.advance_to(MINUTE)
    for _ in range(3):
        bench.writer.release(MINUTE)
    assert bench.read(CARD) == [5.0, 11.0]


def test_a_build_that_a_crash_cut_short_goes_on_where_it_stood() -> None:
    bench = Bench(0)
    bench.writer.load_plan([SOURCE], [])
    bench.take([event(i, -HOUR + i) for i in range(1, 8)])
    bench.writer.load_plan([SOURCE], [CARD])
    bench.writer.release(0)
    bench.open()
    bench.writer.load_plan([SOURCE], [CARD])
    for _ in range(3):
        bench.writer.release(0)
    assert bench.read(CARD) == [7.0, 7.0]


def test_a_view_that_nobody_wants_any_more_leaves_nothing_half_built() -> None:
    bench = Bench(0)
    bench.writer.load_plan([SOURCE], [])
    bench.take([event(i, -HOUR + i) for i in range(1, 8)])
    bench.writer.load_plan([SOURCE], [CARD])
    bench.writer.release(0)
    bench.writer.load_plan([SOURCE], [])
    with bench.store.read() as look:
        assert list(look.items(f"view/{CompiledView(CARD, SOURCE).definition}")) == []
        assert [key for key, _ in look.items("meta") if key.startswith((b"build/", b"view/"))] == []


def test_a_plan_that_is_refused_leaves_the_builds_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    latest = ViewSpec(
        name="Newest",
        kind="latest",
        source="Corrected",
        entity=("card",),
        latest=(LatestSpec(name="amount", column="amount", type="decimal", scale=2),),
    )
    corrected = msgspec.structs.replace(SOURCE, name="Corrected", corrections=True)
    bench = Bench(0)
    bench.writer.load_plan([SOURCE, corrected], [])
    bench.take([event(i, -HOUR + i) for i in range(1, 8)])
    bench.writer.load_plan([SOURCE, corrected], [OTHER])
    bench.writer.release(0)

    def fail(*_: object) -> None:
        raise UnavailableError("the lake cannot be read now", code="lake_unavailable")

    monkeypatch.setattr(bench.writer, "_build", fail)
    with pytest.raises(UnavailableError):
        bench.writer.load_plan([SOURCE, corrected], [CARD, latest])  # begins one build, drops the other, and fails
    monkeypatch.undo()
    for _ in range(3):
        bench.writer.release(0)
    assert bench.read(OTHER) == [7.0]
    bench.writer.load_plan([SOURCE, corrected], [OTHER, CARD, latest])
    for _ in range(4):
        bench.writer.release(0)
    assert bench.read(CARD) == [7.0, 7.0]


def test_concealed_state_is_shown_when_all_was_applied_again() -> None:
    bench = Bench(0)
    bench.writer.conceal()
    bench.writer.load_plan([SOURCE], [CARD])
    bench.take([event(1, -HOUR)])
    bench.open()  # a crash in the middle of it
    bench.writer.load_plan([SOURCE], [CARD])
    with pytest.raises(UnavailableError):
        bench.read(CARD)
    bench.take([event(2, -MINUTE)])
    bench.writer.release(0)
    assert bench.read(CARD) == [2.0, 2.0]


def test_an_earlier_declaration_of_a_source_keeps_its_own_state() -> None:
    kind = aggregate("a", "last", "2d", col("kind"))
    view = msgspec.structs.replace(CARD, aggregates=(kind,))
    columns = tuple(
        msgspec.structs.replace(c, categories=("z", "a", "b", "c")) if c.name == "kind" else c for c in SOURCE.columns
    )
    changed = msgspec.structs.replace(SOURCE, columns=columns)
    bench = Bench(0)
    bench.writer.load_plan([changed], [view], [(view, SOURCE)])
    bench.take([Event(lsn=1, t=-HOUR, known=-HOUR, values={**ROW, "card": "x", "amount": 1, "kind": "b"})])
    assert bench.read(view) == [1.0]  # a code of the old declaration
    now = CompiledView(view, changed)
    row = {**ROW, "card": "x", "amount": None}
    assert OnlineReader(bench.store).read(now, keys_of(now, [row]), 0).values[0][0] == 2.0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_view_built_by_ranges_equals_brute_force(data: st.DataObject) -> None:
    history = numbered(data.draw(histories(max_events=20)))
    view = data.draw(window_views())
    compiled = CompiledView(view, SOURCE)
    now = max((e.t for e in history), default=0) + DAY
    bench = Bench(now)
    bench.writer.load_plan([SOURCE], [])
    cut = data.draw(st.integers(0, len(history)))
    if history[:cut]:
        bench.take(history[:cut])
    bench.writer.load_plan([SOURCE], [view])
    steps = data.draw(st.integers(0, 4))
    for _ in range(steps):
        bench.writer.release(now)
    if history[cut:]:
        bench.take(history[cut:])
    now += data.draw(st.sampled_from([0, HOUR, 3 * DAY]))
    bench.clock.advance_to(now)
    for _ in range(12):
        bench.writer.release(now)
    rows = [{**ROW, "card": "x", "shop": 1, "amount": 0}, {**ROW, "card": "y", "shop": 2, "amount": 0}]
    at = np.array([now, now], np.int64)
    got = OnlineReader(bench.store).read(compiled, keys_of(compiled, rows), at)
    check_rows(compiled, got, [e for e in history if e.known <= now], rows, at)
