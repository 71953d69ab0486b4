from __future__ import annotations

import random
from itertools import cycle
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import AggregateSpec, LatestSpec, SourceSpec, ViewSpec
from flyball.features.frames import history
from flyball.features.offline import sweep
from flyball.features.views import CompiledView
from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND
from tests.features.brute import Event, seen_at
from tests.features.cases import (
    BIG,
    CORRECTED,
    ROW,
    SOURCE,
    VALUES,
    WINDOWS,
    aggregate,
    assert_equals_brute,
    frame_of,
    histories,
    keys_of,
    latest_views,
    window_views,
)


@st.composite
def requests(draw: st.DrawFn, events: list[Event]) -> list[tuple[int, dict[str, Any]]]:
    """Times and entities of rows; many at, just after, or just before an event or its being known."""
    marks = [m for e in events for m in (e.t, e.known)] or [0]
    offsets = st.sampled_from([0, 0, 1, -1, 1_000_000, 3_600_000_000, 86_400_000_000 * 3])
    rows = st.tuples(st.sampled_from(marks), offsets, ROW)
    return [(mark + offset, row) for mark, offset, row in draw(st.lists(rows, min_size=1, max_size=12))]


def check_sweep(
    view: ViewSpec,
    events: list[Event],
    rows: list[tuple[int, dict[str, Any]]],
    source: SourceSpec = SOURCE,
    *,
    final: int | None = None,
) -> None:
    """Both modes at all rows; `final` is the time whose versions the mode `event` sees (None: the end)."""
    compiled = CompiledView(view, source)
    frame = frame_of(events, source)
    t = np.array([at for at, _ in rows], np.int64)
    keys = keys_of(compiled, [row for _, row in rows])
    known = sweep(compiled, history(frame, source), keys, t)
    end = max((e.known for e in events), default=0) if final is None else final
    by_end = history(frame.filter(pl.col("_known_at") <= end), source)
    as_final = sweep(compiled, by_end, keys, t, asof="event")
    for i, (at, row) in enumerate(rows):
        assert_equals_brute(compiled, known, i, seen_at(events, source, at), row, at, whole_std=True)
        whole = seen_at([e for e in events if e.known <= end], source, at, final=end)
        assert_equals_brute(compiled, as_final, i, whole, row, at, whole_std=True)
    assert known.exact.all()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_sweep_of_a_window_view_equals_brute_force(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from([SOURCE, CORRECTED]))
    events = data.draw(histories(again=True))
    check_sweep(data.draw(window_views()), events, data.draw(requests(events)), source)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_sweep_of_a_latest_view_equals_brute_force(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from([SOURCE, CORRECTED]))
    events = data.draw(histories(again=True))
    check_sweep(data.draw(latest_views()), events, data.draw(requests(events)), source)


EVERYTHING = ViewSpec(
    name="V",
    kind="window",
    source="Payments",
    entity=("card",),
    aggregates=tuple(
        aggregate(f"f{i}", op, window, value, where)
        for i, (window, (op, value, where)) in enumerate(
            zip(
                cycle(WINDOWS),
                [(op, value, where) for value, ops in VALUES for op in ops for where in (None, BIG)] * 2,
                strict=False,
            )
        )
    ),
)
NEWEST = ViewSpec(
    name="L",
    kind="latest",
    source="Payments",
    entity=("card",),
    latest=tuple(LatestSpec(name=n, column=n, type=SOURCE.column(n).type) for n in ("amount", "kind", "score")),
)


def dense(seed: int, *, versions: bool = False) -> tuple[list[Event], list[tuple[int, dict[str, Any]]]]:
    """Many events of two entities, in bursts with many ties, early, late and out of order; and rows among them."""
    rng = random.Random(seed)
    starts = [-DAY, -HOUR, 0, 4 * MINUTE, 40 * MINUTE, HOUR, DAY, 3 * DAY, 30 * DAY]

    def time() -> int:
        unit = rng.choice([1, SECOND, 20 * SECOND, MINUTE])
        return rng.choice(starts) + rng.randint(-10, 10) * unit

    def row() -> dict[str, Any]:
        return {
            "card": rng.choice("xxxy"),
            "shop": 1,
            "amount": rng.choice([None, rng.randint(-1000, 1000)]),
            "count": rng.randint(-(2**50), 2**50),
            "score": rng.uniform(-1e3, 1e3),
            "online": rng.random() < 0.5,
            "kind": rng.choice("abc"),
        }

    events = []
    for lsn in range(250):
        t = time()
        known = t + rng.choice([0, 0, 1, SECOND, MINUTE, DAY, -MINUTE])
        key = rng.randrange(200) if versions else None
        events.append(Event(lsn=lsn, t=t, known=known, values=row(), key=key, deleted=versions and rng.random() < 0.1))
    marks = [rng.choice([e.t, e.t + 1, e.known, e.known + HOUR]) for e in rng.choices(events, k=25)]
    return events, [(mark, row()) for mark in [*marks, 33 * DAY]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("source", [SOURCE, CORRECTED])
def test_bursts_of_ties_and_late_events_equal_brute_force(seed: int, source: SourceSpec) -> None:
    events, rows = dense(seed, versions=source.corrections)
    check_sweep(EVERYTHING, events, rows, source)
    check_sweep(NEWEST, events, rows, source)


ODD = ViewSpec(
    name="O",
    kind="window",
    source="Payments",
    entity=("card",),
    aggregates=tuple(
        AggregateSpec(name=f"n{i}", op="count", window=window, hop=hop)
        for i, (window, hop) in enumerate(
            [(10 * DAY, HOUR), (DAY, DAY), (3 * SECOND, 5 * SECOND), (30 * DAY, 5 * MINUTE)]
        )
    ),
)


@pytest.mark.parametrize("seed", range(3))
def test_any_hops_that_divide_each_other_will_do(seed: int) -> None:
    events, rows = dense(seed)
    check_sweep(ODD, events, rows)


def values(**given: Any) -> dict[str, Any]:
    return dict.fromkeys((c.name for c in SOURCE.columns), None) | {"card": "x"} | given
