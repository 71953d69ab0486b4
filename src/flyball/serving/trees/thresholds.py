"""Thresholds that are moved, so that `x <= t` on doubles decides as a library's own comparison does.

Each function gives, for a library's threshold, the largest double that the library sends left. Exact for every double
that can be a value: both infinities, both zeros, and the smallest numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flyball.serving.trees.ensemble import ZERO

Floats = npt.NDArray[np.float64]

_BEYOND = 2.0**128  # what would follow the largest float32: from halfway to it on, rounding gives infinity
_INFINITE = 2.0**128 - 2.0**103


@np.errstate(all="ignore")
def rounded_at_most(threshold: Floats) -> Floats:
    """For `float32(x) <= t`: scikit-learn's trees. The value is rounded to nearest, ties to even.

    >>> float(rounded_at_most(np.array([0.1]))[0]) > 0.1  # the float32 below 0.1 is reached from beyond 0.1
    False
    """
    single = threshold.astype(np.float32)
    single = np.where(single.astype(np.float64) > threshold, np.nextafter(single, np.float32(-np.inf)), single)
    return _last_rounded_to(single)


@np.errstate(all="ignore")
def rounded_below(threshold: Floats) -> Floats:
    """For `float32(x) < t`, where `t` is a float32: XGBoost's. NaN for what is below nothing, minus infinity."""
    single = threshold.astype(np.float32)
    before = np.nextafter(single, np.float32(-np.inf))
    return np.where(np.isneginf(single), np.nan, _last_rounded_to(before))


def snapped_at_most(threshold: Floats) -> Floats:
    """For `x <= t` where values within LightGBM's zero count as 0: its reading of a dense row drops them."""
    moved = np.where((threshold >= 0.0) & (threshold < ZERO), ZERO, threshold)
    return np.where((threshold < 0.0) & (threshold >= -ZERO), np.nextafter(-ZERO, -np.inf), moved)


def _last_rounded_to(single: npt.NDArray[np.float32]) -> Floats:
    """The largest double that rounds to `single` or below it."""
    following = np.nextafter(single, np.float32(np.inf))
    value = single.astype(np.float64)
    after = np.where(np.isposinf(following), _BEYOND, following.astype(np.float64))
    middle = value / 2 + after / 2  # exact: a float32's distance to the next, halved, fits a double
    even = (np.ascontiguousarray(single).view(np.int32) & 1) == 0
    largest = np.where(even, middle, np.nextafter(middle, -np.inf))
    return np.where(np.isposinf(single), np.inf, np.where(np.isneginf(single), -_INFINITE, largest))
