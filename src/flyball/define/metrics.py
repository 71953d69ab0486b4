"""Metrics of tasks, computed with NumPy, so only rooms import this; names and directions are in `task`.

Definitions are scikit-learn's; ties are counted right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.define.spec import TaskSpec
from flyball.define.task import METRICS
from flyball.kernel.errors import InvalidError

Floats = npt.NDArray[np.float64]


def metrics_of(task: TaskSpec, y: npt.ArrayLike, score: npt.ArrayLike) -> dict[str, float | None]:
    """All metrics of a task.

    Args:
        y: shape [rows]; 0 or 1, the index of the class, or the number.
        score: shape [rows]: probability of true, or the prediction; [rows, classes] for multi-class.

    Returns:
        A value for each name in `METRICS[task.kind]`; None where it is not defined, such as the AUC of one class.

    Raises:
        InvalidError: the shapes do not fit, or a value is not finite.
    """
    truth, given = _checked(task, y, score)
    if task.kind == "binary":
        values = _binary(truth, given, task.threshold)
    elif task.kind == "multiclass":
        values = _multiclass(truth, given)
    else:
        values = _regression(truth, given)
    return {name: _plain(values[name]()) if truth.size else None for name in METRICS[task.kind]}


def _checked(task: TaskSpec, y: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Floats, Floats]:
    truth, given = np.asarray(y, np.float64), np.asarray(score, np.float64)
    shape = (truth.size, len(task.classes)) if task.kind == "multiclass" else (truth.size,)
    if truth.ndim != 1 or given.shape != shape:
        raise InvalidError(
            f"a {task.kind} task with {truth.size} labels needs scores of shape {shape}, not {given.shape}",
            code="bad_scores",
        )
    if not (np.isfinite(truth).all() and np.isfinite(given).all()):
        raise InvalidError("labels and scores must be finite; leave out rows that have no label", code="bad_scores")
    classes = 2 if task.kind == "binary" else len(task.classes)
    if task.kind != "regression" and not np.isin(truth, np.arange(classes)).all():
        raise InvalidError(f"labels of a {task.kind} task are 0 to {classes - 1}", code="bad_scores")
    return truth, given


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _binary(y: Floats, score: Floats, threshold: float) -> dict[str, Callable[[], float]]:
    guess = score >= threshold
    true = y == 1
    return {
        "auc": lambda: auc(y, score),
        "average_precision": lambda: average_precision(y, score),
        "log_loss": lambda: log_loss(y, np.column_stack([1 - score, score])),
        "brier": lambda: float(np.mean((score - y) ** 2)),
        "accuracy": lambda: float(np.mean(guess == true)),
        "precision": lambda: _ratio(np.sum(guess & true), np.sum(guess)),
        "recall": lambda: _ratio(np.sum(guess & true), np.sum(true)),
        "f1": lambda: _ratio(2 * np.sum(guess & true), np.sum(guess) + np.sum(true)),
    }


def _multiclass(y: Floats, score: Floats) -> dict[str, Callable[[], float]]:
    guess = np.argmax(score, axis=1)
    return {
        "log_loss": lambda: log_loss(y, score),
        "accuracy": lambda: float(np.mean(guess == y)),
        "f1": lambda: _macro_f1(y, guess),
    }


def _regression(y: Floats, score: Floats) -> dict[str, Callable[[], float]]:
    return {
        "rmse": lambda: float(np.sqrt(np.mean((score - y) ** 2))),
        "mae": lambda: float(np.mean(np.abs(score - y))),
        "r2": lambda: r2(y, score),
    }


def auc(y: Floats, score: Floats) -> float:
    """The area under the ROC curve: the chance that a true row scores above a false one, ties counted half.

    NaN where `y` has one class only.

    >>> auc(np.array([0.0, 1.0, 1.0]), np.array([0.5, 0.5, 0.9]))
    0.75
    """
    positives = int(np.sum(y == 1))
    negatives = y.size - positives
    if not positives or not negatives:
        return math.nan
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[place]  # the mean rank of each group of ties, from 1
    return float((np.sum(ranks[y == 1]) - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(y: Floats, score: Floats) -> float:
    """The mean precision over the recalls that the scores can give; NaN where no row is true."""
    positives = np.sum(y == 1)
    if not positives:
        return math.nan
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), y.size - 1)  # the last row of each group of ties
    hits = np.cumsum(y[order])[ends]
    return float(np.sum(np.diff(np.append(0, hits)) * hits / (ends + 1)) / positives)


def log_loss(y: Floats, score: Floats) -> float:
    """The mean negative logarithm of the probability given to the true class; `score` is [rows, classes]."""
    eps = np.finfo(np.float64).eps
    given = np.clip(score[np.arange(y.size), y.astype(np.int64)], eps, 1 - eps)
    return float(-np.mean(np.log(given)))


def r2(y: Floats, score: Floats) -> float:
    """The share of the variance that is explained; NaN where `y` does not vary."""
    spread = np.sum((y - np.mean(y)) ** 2)
    if not spread:
        return math.nan
    return float(1 - np.sum((y - score) ** 2) / spread)


def _macro_f1(y: Floats, guess: npt.NDArray[Any]) -> float:
    values = [
        _ratio(2 * np.sum((guess == c) & (y == c)), np.sum(guess == c) + np.sum(y == c)) for c in np.union1d(y, guess)
    ]
    return float(np.mean(values))


def _ratio(part: Any, whole: Any) -> float:
    """0 where there is nothing to divide by, as scikit-learn has it."""
    return float(part / whole) if whole else 0.0
