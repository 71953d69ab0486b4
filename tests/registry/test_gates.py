"""The gate: pure, and its reasons name the numbers."""

from __future__ import annotations

import math

import pytest

from flyball.registry.gates import Gate, decide, decide_skew

AUC = Gate(metric="auc", tolerance=0.01)
RMSE = Gate(metric="rmse", higher_is_better=False, tolerance=0.1)


@pytest.mark.parametrize(
    ("candidate", "champion", "passed"),
    [(0.90, 0.90, True), (0.89, 0.90, True), (0.8899, 0.90, False), (0.95, 0.90, True)],
)
def test_a_candidate_may_be_worse_by_the_tolerance_and_no_more(candidate: float, champion: float, passed: bool) -> None:
    result = decide({"auc": candidate}, {"auc": champion}, rows=100, gate=AUC)
    assert result.passed is passed
    assert bool(result.reasons) is not passed
    assert result.values == {"candidate": candidate, "champion": champion}


def test_lower_may_be_better() -> None:
    assert decide({"rmse": 1.05}, {"rmse": 1.0}, rows=100, gate=RMSE).passed
    failed = decide({"rmse": 1.2}, {"rmse": 1.0}, rows=100, gate=RMSE)
    assert failed.reasons == ("rmse 1.2 is worse than the champion’s 1 by 0.2; up to 0.1 is allowed",)


def test_the_first_version_needs_a_finite_metric_and_enough_rows() -> None:
    assert decide({"auc": 0.6}, None, rows=50, gate=AUC).passed
    assert not decide({"auc": 0.6}, None, rows=49, gate=AUC).passed
    for value in (math.nan, math.inf, None, True, "high"):
        assert not decide({"auc": value}, None, rows=50, gate=AUC).passed
    assert len(decide({}, None, rows=0, gate=AUC).reasons) == 2


def test_a_champion_without_a_number_cannot_block() -> None:
    result = decide({"auc": 0.6}, {"auc": math.nan}, rows=50, gate=AUC)
    assert result.passed
    assert "nothing to compare" in result.note


def test_skew_is_judged_by_its_bound_and_the_reason_says_what_to_look_at() -> None:
    passed = decide_skew("tip", "tip/3", compared=30_000, bound=0.0001, limit=0.001)
    assert (passed.passed, passed.reasons) == (True, ())
    assert passed.values == {"skew": 0.0001, "limit": 0.001}
    (reason,) = decide_skew("tip", "tip/3", compared=30_000, bound=0.002, limit=0.001).reasons
    assert "flyball skew tip" in reason
    assert "3000 compared values" not in reason
    (reason,) = decide_skew("tip", "tip/3", compared=0, bound=1.0, limit=0.001).reasons
    assert "nothing compared yet" in reason
    assert "without a mismatch 3000 compared values are enough" in reason
