"""A batch in which one bad row fails alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flyball.kernel.errors import FlyballError, InternalError, InvalidError
from flyball.serving.ports import Matrix, Score


def score_rows(predict: Callable[[Matrix], Score], matrix: Matrix) -> tuple[Score | None, dict[int, FlyballError]]:
    """Score a batch; where it fails, halve it until the rows that fail stand alone.

    Returns:
        The scores, `(n,)` or `(n, classes)`, NaN where a row failed (None where all did), and the errors by row.
    """
    parts: list[tuple[int, Score]] = []
    errors: dict[int, FlyballError] = {}
    _bisect(predict, matrix, 0, parts, errors)
    if not parts:
        return None, errors
    if not errors:
        return parts[0][1], errors
    scores = np.full((len(matrix), *parts[0][1].shape[1:]), np.nan)
    for start, part in parts:
        scores[start : start + len(part)] = part
    return scores, errors


def _bisect(
    predict: Callable[[Matrix], Score],
    matrix: Matrix,
    start: int,
    parts: list[tuple[int, Score]],
    errors: dict[int, FlyballError],
) -> None:
    try:
        score = np.asarray(predict(matrix), dtype=np.float64)
        if len(score) != len(matrix):
            raise InternalError(f"the model gave {len(score)} scores for {len(matrix)} rows", code="bad_scores")
    except Exception as error:
        if len(matrix) > 1:
            middle = len(matrix) // 2
            _bisect(predict, matrix[:middle], start, parts, errors)
            _bisect(predict, matrix[middle:], start + middle, parts, errors)
        elif len(matrix) == 1:
            errors[start] = model_error(error)
        return
    parts.append((start, score))
    for row in np.flatnonzero(~np.isfinite(score.reshape(len(score), -1)).all(axis=1)):
        errors[start + int(row)] = InternalError("the model's score is not finite", code="bad_scores")


def model_error(error: Exception) -> FlyballError:
    """What a runtime raised, as an error that is not the sender's. A foreign one's text may hold values of the row,
    so it is left out."""
    if isinstance(error, FlyballError) and not isinstance(error, InvalidError):
        return error
    if isinstance(error, InvalidError):
        return InternalError(f"the model refuses what it is given: {error.message}", code="model_failed")
    return InternalError(f"the model failed with {type(error).__name__}", code="model_failed")
