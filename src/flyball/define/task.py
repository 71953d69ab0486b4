"""Tasks: what a model predicts, how that is measured, and what may be answered in its place."""

from __future__ import annotations

from typing import Literal

from flyball.define.mistake import mistake
from flyball.define.spec import TaskSpec
from flyball.kernel.errors import InvalidError, did_you_mean

TaskKind = Literal["binary", "multiclass", "regression"]

# The metrics of each task; the first is the task's own. True: higher is better.
METRICS: dict[TaskKind, dict[str, bool]] = {
    "binary": {
        "auc": True,
        "average_precision": True,
        "log_loss": False,
        "brier": False,
        "accuracy": True,
        "precision": True,
        "recall": True,
        "f1": True,
    },
    "multiclass": {"log_loss": False, "accuracy": True, "f1": True},
    "regression": {"rmse": False, "mae": False, "r2": True},
}


def default_metric(task: TaskSpec) -> str:
    """The metric that gates and triggers use: the one the task names, or its kind's own."""
    return task.metric or next(iter(METRICS[task.kind]))


def higher_is_better(metric: str) -> bool:
    """The direction of a metric.

    Raises:
        InvalidError: no task has such a metric.
    """
    for metrics in METRICS.values():
        if metric in metrics:
            return metrics[metric]
    known = {name for metrics in METRICS.values() for name in metrics}
    raise InvalidError(f"there is no metric {metric!r}; {did_you_mean(metric, known)}", code="unknown_metric")


def Binary(*, metric: str = "", threshold: float = 0.5) -> TaskSpec:
    """True or false; the score is the probability of true. `threshold` is where a score counts as true."""
    if not 0 < threshold < 1:
        raise mistake(f"the threshold of fb.Binary is between 0 and 1, not {threshold}")
    return TaskSpec(kind="binary", metric=_metric("binary", metric), threshold=threshold)


def MultiClass(*classes: str, metric: str = "") -> TaskSpec:
    """One of several classes; the score is a probability for each, in the order given."""
    if len(classes) < 2 or not all(isinstance(c, str) for c in classes):
        raise mistake(
            f"fb.MultiClass takes two classes or more, each a text, not {classes!r}",
            hint='write them one by one: fb.MultiClass("bike", "car", "walk")',
        )
    if len(set(classes)) < len(classes):
        raise mistake("a class stands twice in fb.MultiClass")
    return TaskSpec(kind="multiclass", classes=classes, metric=_metric("multiclass", metric))


def Regression(*, metric: str = "") -> TaskSpec:
    """A number."""
    return TaskSpec(kind="regression", metric=_metric("regression", metric))


def _metric(kind: TaskKind, metric: str) -> str:
    if metric and metric not in METRICS[kind]:
        raise mistake(
            f"a {kind} task has no metric {metric!r}; {did_you_mean(metric, METRICS[kind])}", code="unknown_metric"
        )
    return metric
