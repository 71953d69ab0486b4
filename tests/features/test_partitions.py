from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import SourceSpec
from flyball.features.frames import history
from flyball.features.offline import AsOf, sweep
from flyball.features.partitions import sweep_batches
from flyball.features.versions import versions
from flyball.features.views import CompiledView
from tests.features.cases import CORRECTED, SOURCE, frame_of, histories, keys_of
from tests.features.test_offline import EVERYTHING, NEWEST, dense


@pytest.mark.parametrize("source", [SOURCE, CORRECTED])
@pytest.mark.parametrize("asof", ["known", "event"])
def test_events_that_do_not_fit_are_cut_by_entity_and_answered_to_the_bit(
    tmp_path: Path, source: SourceSpec, asof: AsOf
) -> None:
    events, rows = dense(5, versions=source.corrections)
    rows.append((rows[0][0], rows[0][1] | {"card": None}))
    rows.append((rows[0][0], rows[0][1] | {"card": "nobody"}))
    whole = history(frame_of(events, source), source)
    times = np.array([at for at, _ in rows], np.int64)
    for spec in (EVERYTHING, NEWEST):
        view = CompiledView(spec, source)
        keys = keys_of(view, [row for _, row in rows])
        expected = sweep(view, whole, keys, times, asof=asof)
        for budget in (1 << 30, 5_000, 1):
            batches = whole.iter_slices(40)
            got = sweep_batches(view, batches, keys, times, asof=asof, budget=budget, partitions=3, folder=tmp_path)
            np.testing.assert_array_equal(got.values, expected.values)
            np.testing.assert_array_equal(got.valid, expected.valid)
    assert not list(tmp_path.iterdir())


def test_no_events_give_the_defaults() -> None:
    _, rows = dense(1)
    view = CompiledView(EVERYTHING, SOURCE)
    keys, times = keys_of(view, [row for _, row in rows]), np.array([at for at, _ in rows], np.int64)
    expected = sweep(view, history(frame_of([]), SOURCE), keys, times)
    np.testing.assert_array_equal(sweep_batches(view, [], keys, times).values, expected.values)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_versions_by_batches_are_those_of_the_whole(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from([SOURCE, CORRECTED]))
    events = data.draw(histories(again=True))
    frame = frame_of(events, source)
    known_by = data.draw(st.sampled_from([None, *(e.known for e in events)]))
    size = data.draw(st.integers(1, 50))

    def batches() -> list[pl.DataFrame]:
        return list(frame.iter_slices(size)) or [frame]

    got = pl.concat(versions(batches, source, known_by=known_by))
    if known_by is None:
        expected = history(frame, source)
    elif source.corrections:
        expected = history(frame.filter(pl.col("_known_at") <= known_by), source)
    else:
        expected = history(frame, source).filter(pl.col("_known_at") <= known_by)
    assert got.sort("_lsn").equals(expected.select(got.columns).sort("_lsn"))
