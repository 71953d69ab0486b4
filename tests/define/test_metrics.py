"""Metrics equal scikit-learn's, ties and all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import flyball as fb
from flyball.define.metrics import auc, metrics_of
from flyball.define.spec import TaskSpec
from flyball.define.task import METRICS, default_metric, higher_is_better
from flyball.kernel.errors import InvalidError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_binary_metrics_equal_scikit_learn_with_ties(rows: list[tuple[bool, int]]) -> None:
    y = np.array([float(a) for a, _ in rows])
    score = np.array([b / 6 for _, b in rows])
    found = metrics_of(fb.Binary(), y, score)
    both = 0 < y.sum() < len(y)
    expected: dict[str, Any] = {
        "auc": sk.roc_auc_score(y, score) if both else None,
        "average_precision": sk.average_precision_score(y, score) if y.any() else None,
        "log_loss": sk.log_loss(y, score, labels=[0, 1]),
        "brier": np.mean((y - score) ** 2),
        "accuracy": sk.accuracy_score(y, score >= 0.5),
        "precision": sk.precision_score(y, score >= 0.5, zero_division=0),
        "recall": sk.recall_score(y, score >= 0.5, zero_division=0),
        "f1": sk.f1_score(y, score >= 0.5, zero_division=0),
    }
    assert list(found) == list(METRICS["binary"])
    assert found == pytest.approx(expected, abs=1e-12)


def test_multiclass_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(7)
    y = rng.integers(0, 3, 200)
    score = rng.dirichlet([1, 2, 3], 200)
    found = metrics_of(fb.MultiClass("a", "b", "c"), y, score)
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, score))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, score.argmax(1)))
    assert found["f1"] == pytest.approx(sk.f1_score(y, score.argmax(1), average="macro"))


def test_regression_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(7)
    y = rng.normal(size=200)
    score = y + rng.normal(size=200)
    found = metrics_of(fb.Regression(), y, score)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(y, score))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, score))
    assert found["r2"] == pytest.approx(sk.r2_score(y, score))


def test_what_is_not_defined_is_none() -> None:
    assert metrics_of(fb.Binary(), [1, 1], [0.2, 0.9])["auc"] is None
    assert metrics_of(fb.Binary(), [0, 0], [0.2, 0.9])["average_precision"] is None
    assert metrics_of(fb.Regression(), [2, 2], [1, 3])["r2"] is None
    assert set(metrics_of(fb.Binary(), [], []).values()) == {None}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(-5, 5)), min_size=2, max_size=30))
def test_auc_of_turned_scores_is_its_complement(rows: list[tuple[bool, float]]) -> None:
    y = np.array([float(a) for a, _ in rows])
    score = np.array([b for _, b in rows])
    if 0 < y.sum() < len(y):
        assert auc(y, score) + auc(y, -score) == pytest.approx(1)


@pytest.mark.parametrize(
    ("task", "y", "score", "says"),
    [
        (fb.Binary(), [0, 1], [0.5], "needs scores of shape (2,), not (1,)"),
        (fb.MultiClass("a", "b"), [0, 1], [0.5, 0.5], "needs scores of shape (2, 2)"),
        (fb.Binary(), [0, np.nan], [0.5, 0.5], "must be finite"),
        (fb.Binary(), [0, 2], [0.5, 0.5], "are 0 to 1"),
    ],
)
def test_wrong_input_says_what_is_wrong(task: TaskSpec, y: Any, score: Any, says: str) -> None:
    with pytest.raises(InvalidError) as error:
        metrics_of(task, y, score)
    assert says in str(error.value)


def test_each_task_has_its_own_metric_and_each_metric_a_direction() -> None:
    assert [default_metric(t) for t in (fb.Binary(), fb.MultiClass("a", "b"), fb.Regression())] == [
        "auc",
        "log_loss",
        "rmse",
    ]
    assert default_metric(fb.Binary(metric="brier")) == "brier"
    assert higher_is_better("auc")
    assert not higher_is_better("rmse")
    with pytest.raises(InvalidError, match="did you mean 'rmse'"):
        higher_is_better("rsme")
