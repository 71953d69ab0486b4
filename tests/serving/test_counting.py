"""What a batch counts: in bulk as one by one, by version, and of bounded size."""

from __future__ import annotations

import re
from bisect import bisect_left
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.serving.cells import CellFile, Key
from flyball.serving.counting import FAMILIES, LATENCY, RATIOS, SECONDS, Counters, Histogram

SOME = st.floats(0.0, 10.0)


def counted(counters: Counters) -> dict[Key, list[float]]:
    return dict(counters._file.values())


@given(batches=st.lists(st.lists(SOME, max_size=40), max_size=5), as_array=st.booleans())
def test_many_values_at_once_count_as_one_by_one(batches: list[list[float]], as_array: bool) -> None:
    block = CellFile(start_bytes=4096).block(("h",), len(SECONDS) + 2)
    histogram = Histogram(block, SECONDS)
    expected = [0] * (len(SECONDS) + 1)
    for batch in batches:
        histogram.add(np.array(batch) if as_array else batch)
        for value in batch:
            expected[bisect_left(SECONDS, value)] += 1
    *counts, total = block.array.tolist()
    assert counts == expected
    assert total == pytest.approx(sum(map(sum, batches)))


def test_a_value_at_a_bound_is_within_it() -> None:
    for count in (1, 100):
        block = CellFile(start_bytes=4096).block(("h",), len(SECONDS) + 2)
        Histogram(block, SECONDS).add([SECONDS[3]] * count)
        assert block.cells[3] == count


def test_a_batch_is_counted_by_its_calls() -> None:
    counters = Counters(CellFile())
    tip = counters.version("tip", "tip/7")
    assert counters.version("tip", "tip/7") is tip
    tip.waited([0.001, 0.002])
    tip.scored(2, 0.004, predicted=0.002)
    tip.answered("model", [0.005, 0.006], within=1)
    tip.failed("model_failed", [0.1])
    tip.looked_up(hits=1, coalesced=2)
    tip.dropped("expired", 3)
    tip.featured("stale", 2)
    tip.breaker("open")
    tip.lane("thread")
    tip.lane("inline")
    counters.requested("tip", "answered", 2)
    counters.refused("bad_json")
    found = counted(counters)
    one = {key: cells[0] for key, cells in found.items() if len(cells) == 1}
    of = ("tip", "tip/7")
    assert one.pop(("flyball_last_prediction_timestamp_seconds", *of)) > 0
    assert one == {
        ("flyball_predictions_total", *of, "model"): 2,
        ("flyball_batch_rows_seconds_total", *of, "2.0"): pytest.approx(0.004),
        ("flyball_prediction_errors_total", *of, "model_failed"): 1,
        ("flyball_goodput_total", *of): 1,
        ("flyball_batch_error_seconds_total", *of): pytest.approx(0.002),
        ("flyball_cache_lookups_total", *of, "hit"): 1,
        ("flyball_cache_lookups_total", *of, "coalesced"): 2,
        ("flyball_dropped_total", *of, "expired"): 3,
        ("flyball_features_total", *of, "stale"): 2,
        ("flyball_breaker_workers", *of, "closed"): 0,
        ("flyball_breaker_workers", *of, "open"): 1,
        ("flyball_breaker_workers", *of, "half_open"): 0,
        ("flyball_lane_workers", *of, "inline"): 1,
        ("flyball_lane_workers", *of, "thread"): 0,
        ("flyball_requests_total", "tip", "answered"): 2,
        ("flyball_refused_total", "bad_json"): 1,
    }
    assert sum(found[LATENCY.name, *of][:-1]) == 3
    assert found["flyball_batch_ratio", *of][RATIOS.index(2.0)] == 1
    assert {key[0] for key in found} == set(FAMILIES)


def test_a_worker_that_starts_again_goes_on_with_its_counts_and_without_its_gauges(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.bin"
    for time in (1, 2):
        counters = Counters(CellFile(path))
        assert counted(counters).get(("flyball_lane_workers", "tip", "tip/7", "thread"), [0.0]) == [0.0]
        counters.version("tip", "tip/7").answered("model", [0.001], within=1)
        counters.version("tip", "tip/7").lane("thread")
        assert counted(counters)["flyball_goodput_total", "tip", "tip/7"] == [time]


def test_counts_are_bounded_by_what_is_served_however_many_versions_pass(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.bin"
    counters = Counters(CellFile(path))
    for number in range(1_000):
        pair = ("tip", f"tip/{number}")
        counters.keep([pair])
        counters.version(*pair).answered("model", [0.001], within=1)
    assert {key[2] for key in counted(counters)} == {"tip/998", "tip/999"}
    assert path.stat().st_size == 64 * 1024


def test_a_rollback_goes_on_with_the_counts_of_the_version_before() -> None:
    counters = Counters(CellFile())
    for served in ("tip/1", "tip/2", "tip/1"):
        counters.keep([("tip", served)])
        counters.version("tip", served).answered("model", [0.001], within=1)
    assert counted(counters)["flyball_goodput_total", "tip", "tip/1"] == [2]


def test_names_have_units_and_counters_end_in_total() -> None:
    for family in FAMILIES.values():
        assert re.fullmatch(r"flyball_[a-z_]+", family.name)
        assert (family.kind == "counter") == family.name.endswith("_total")
        assert (family.kind == "histogram") == bool(family.bounds)
        assert family.text.endswith(".")
