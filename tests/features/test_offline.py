from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import ViewSpec
from flyball.features.offline import sweep
from flyball.features.views import CompiledView
from tests.features.brute import Event
from tests.features.cases import (
    ROW,
    SOURCE,
    assert_equals_brute,
    frame_of,
    histories,
    keys_of,
    latest_views,
    window_views,
)


@st.composite
def requests(draw: st.DrawFn, history: list[Event]) -> list[tuple[int, dict[str, Any]]]:
    """Times and entities of rows; many at, just after, or just before an event or its being known."""
    marks = [m for e in history for m in (e.t, e.known)] or [0]
    offsets = st.sampled_from([0, 0, 1, -1, 1_000_000, 3_600_000_000, 86_400_000_000 * 3])
    rows = st.tuples(st.sampled_from(marks), offsets, ROW)
    return [(mark + offset, row) for mark, offset, row in draw(st.lists(rows, min_size=1, max_size=12))]


def check_sweep(view: ViewSpec, history: list[Event], rows: list[tuple[int, dict[str, Any]]], raw_limit: int) -> None:
    compiled = CompiledView(view, SOURCE, raw_limit=raw_limit)
    t = np.array([at for at, _ in rows], np.int64)
    got = sweep(compiled, frame_of(history), keys_of(compiled, [row for _, row in rows]), t)
    for i, (at, row) in enumerate(rows):
        known = [e for e in history if e.known <= at]
        if raw_limit > 100:
            assert got.exact[i]
        if got.exact[i]:
            assert_equals_brute(compiled, got, i, known, row, at)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_sweep_of_a_window_view_equals_brute_force(data: st.DataObject) -> None:
    history = data.draw(histories())
    limit = data.draw(st.sampled_from([4, 4096]))
    check_sweep(data.draw(window_views()), history, data.draw(requests(history)), limit)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_sweep_of_a_latest_view_equals_brute_force(data: st.DataObject) -> None:
    history = data.draw(histories())
    limit = data.draw(st.sampled_from([4, 4096]))
    check_sweep(data.draw(latest_views()), history, data.draw(requests(history)), limit)
