"""Buckets never lose a threshold: a bucket's range holds the rank of each value that falls into it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flyball.serving.trees.columns import FEW_STEPS, MOST_BUCKETS, bucket_of, buckets_of

FLOATS = st.floats(allow_nan=False)


@given(thresholds=st.lists(FLOATS, min_size=1, max_size=60, unique=True), values=st.lists(FLOATS, max_size=20))
def test_a_values_rank_is_within_its_bucket(thresholds: list[float], values: list[float]) -> None:
    cuts = np.unique(np.array(thresholds))
    low, scale, starts, steps = buckets_of(cuts)
    with np.errstate(over="ignore"):
        near = [np.nextafter(cuts, np.inf), np.nextafter(cuts, -np.inf)]
    x = np.concatenate([cuts, *near, np.array(values, dtype=float)])
    rank = np.searchsorted(cuts, x)
    start = starts[bucket_of(x, low, scale, len(starts))]
    assert (start <= rank).all()
    assert (rank < start + 2**steps).all()


def test_even_thresholds_take_two_comparisons_and_few_buckets() -> None:
    _, _, starts, steps = buckets_of(np.linspace(-3.0, 3.0, 200))
    assert steps <= FEW_STEPS
    assert len(starts) <= MOST_BUCKETS // 4


def test_missing_values_are_in_the_first_bucket() -> None:
    low, scale, starts, _ = buckets_of(np.linspace(-3.0, 3.0, 200))
    assert bucket_of(np.array([np.nan]), low, scale, len(starts))[0] == 0
    assert starts[0] == 0
