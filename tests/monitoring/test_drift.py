"""Distances on bins, and the rule over them."""

from __future__ import annotations

import doctest

import flyball.monitoring.counts as counts
import flyball.monitoring.drift as drift
from flyball.monitoring.drift import Binned, DriftRule, judge, newest
from flyball.monitoring.ports import DriftPeriod

REFERENCE = {
    "fare": Binned(counts=(100, 100, 100, 100)),
    "kind": Binned(counts=(50, 50), categorical=True),
}


def period(rows: int, start: int = 0) -> DriftPeriod:
    return DriftPeriod(service="tip", version="tip/1", start=start, rows=rows)


def test_the_docstrings_are_true() -> None:
    assert doctest.testmod(drift).failed == doctest.testmod(counts).failed == 0


def test_the_same_shape_is_no_drift() -> None:
    served = {"fare": Binned(counts=(10, 10, 10, 10)), "kind": Binned(counts=(7, 7), categorical=True)}
    report = judge(REFERENCE, served, period(1_000), DriftRule())
    assert not report.drifted
    assert report.to_data()["uncalibrated"] is True


def test_features_are_ranked_by_distance() -> None:
    served = {"fare": Binned(counts=(0, 0, 10, 10)), "kind": Binned(counts=(8, 2), categorical=True)}
    report = judge(REFERENCE, served, period(1_000), DriftRule())
    assert [(f.feature, round(f.distance, 9), f.test, f.drifted) for f in report.features] == [
        ("fare", 0.5, "ks", True),
        ("kind", 0.3, "tvd", True),
    ]


def test_too_few_rows_say_nothing() -> None:
    report = judge(REFERENCE, {"fare": Binned(counts=(0, 0, 0, 9))}, period(499), DriftRule())
    assert not report.enough
    assert not report.drifted
    assert newest([report]) is None


def test_a_feature_that_became_null_has_drifted() -> None:
    served = {"fare": Binned(counts=(5, 5, 5, 5), nulls=10)}
    assert judge(REFERENCE, served, period(500), DriftRule()).features[0].distance == 10 / 30


def test_the_newest_period_with_enough_rows_speaks() -> None:
    reports = [judge(REFERENCE, {}, period(rows, start), DriftRule()) for rows, start in ((900, 1), (800, 2), (3, 3))]
    found = newest(reports)
    assert found is not None
    assert found.start == 2
