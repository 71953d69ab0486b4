"""From a model's scores to what a reply says, by the task."""

from __future__ import annotations

from typing import Any

import numpy as np

from flyball.define.spec import TaskSpec
from flyball.serving.ports import Score


def answers(task: TaskSpec | None, scores: Score) -> list[dict[str, Any]]:
    """One `{"prediction", "score" or "scores"}` a row; `scores` is `(n,)` or `(n, classes)`."""
    if task is None or task.kind == "regression":
        return [{"prediction": value} for value in scores.tolist()]
    if task.kind == "binary":
        column = scores[:, -1] if scores.ndim == 2 else scores
        return [{"prediction": score >= task.threshold, "score": score} for score in column.tolist()]
    best = np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=1).tolist()
    names = task.classes or tuple(str(i) for i in range(scores.shape[1]))
    return [
        {"prediction": names[top], "score": row[top], "scores": dict(zip(names, row, strict=True))}
        for top, row in zip(best, scores.tolist(), strict=True)
    ]


def default_answer(task: TaskSpec | None, default: float | str) -> dict[str, Any]:
    """What a service's declared default says: a probability for binary, a value or a class else."""
    if task is not None and task.kind == "binary" and isinstance(default, int | float):
        return {"prediction": default >= task.threshold, "score": float(default)}
    return {"prediction": default}
