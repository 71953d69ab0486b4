"""Moved thresholds decide as the library's own comparison does, for every double."""

from __future__ import annotations

import doctest

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flyball.serving.trees import thresholds
from flyball.serving.trees.ensemble import ZERO

FLOATS = st.one_of(
    st.floats(allow_nan=False),
    st.floats(allow_nan=False, width=32),
    st.sampled_from([0.0, -0.0, ZERO, -ZERO, 5e-324, 1e-45, 3.4028234663852886e38, 3.4028235677973366e38]),
)


def around(*centres: float) -> np.ndarray:
    """The values and their neighbours."""
    with np.errstate(all="ignore"):
        near = [np.nextafter(value, side) for value in centres for side in (-np.inf, np.inf)]
    return np.array([*centres, *near, 0.0, -0.0, ZERO, -ZERO, np.inf, -np.inf])


def single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


@given(threshold=FLOATS, value=FLOATS)
def test_a_value_that_is_rounded_before_it_is_compared(threshold: float, value: float) -> None:
    moved = float(thresholds.rounded_at_most(np.array([threshold]))[0])
    x = around(threshold, moved, value)
    np.testing.assert_array_equal(single(x).astype(np.float64) <= threshold, x <= moved)


@given(threshold=FLOATS, value=FLOATS)
def test_a_rounded_value_below_a_rounded_threshold(threshold: float, value: float) -> None:
    narrow = single(np.array([threshold]))
    moved = float(thresholds.rounded_below(narrow.astype(np.float64))[0])
    x = around(threshold, value, float(narrow[0]), 0.0 if np.isnan(moved) else moved)
    np.testing.assert_array_equal(single(x) < narrow[0], x <= moved)


@given(threshold=FLOATS, value=FLOATS)
def test_values_that_count_as_zero(threshold: float, value: float) -> None:
    moved = float(thresholds.snapped_at_most(np.array([threshold]))[0])
    x = around(threshold, moved, value)
    np.testing.assert_array_equal(np.where(np.abs(x) <= ZERO, 0.0, x) <= threshold, x <= moved)


def test_the_example_holds() -> None:
    assert doctest.testmod(thresholds, extraglobs={"np": np}).failed == 0
