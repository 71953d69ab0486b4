"""A trained model in a form that a version can hold: one that executes nothing when it is loaded.

For the tree kernel LightGBM's text, XGBoost's JSON, and arrays of scikit-learn's trees; ONNX; and skops for the rest of
scikit-learn. What is in none of these forms is refused while the user's function still runs, with what is possible.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flyball.define.spec import TaskSpec
from flyball.kernel.errors import InvalidError
from flyball.registry.ports import Matrix, Score, TreeVerifier

if TYPE_CHECKING:
    import pandas as pd

RuntimeKind = Literal["trees", "onnx", "process"]
TREE_TOLERANCE = 1e-6

POSSIBLE = (
    "a booster or estimator of LightGBM or XGBoost, an estimator or pipeline of scikit-learn, an ONNX model, or the "
    "path of an .onnx file"
)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a model is given: the task, the matrix's columns in order, and the categories behind codes.

    `to_frame` makes a pandas frame of a matrix, for estimators that were fitted on names; `trees` is the tree kernel;
    `onnx` scores a matrix with a serialized ONNX model.
    """

    task: TaskSpec
    features: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    to_frame: Callable[[Matrix], pd.DataFrame]
    trees: TreeVerifier | None = None
    onnx: Callable[[bytes, Matrix], Score] | None = None

    @property
    def classes(self) -> int:
        """How many scores a row has in more than one dimension; 0 where the score is `(n,)`."""
        return len(self.task.classes) if self.task.kind == "multiclass" else 0


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A model as files. `runtime` is the manifest's: `kind`, `file`, and what the runtime must know.

    `libraries` are the distributions that were needed to make it, for the manifest's environment. `leaves` gives the
    library's own leaf numbers, `(n, trees)`, where it tells them. `fallback` packs the model for its own library where
    that takes another file than the kernel's.
    """

    runtime: dict[str, Any]
    files: dict[str, bytes]
    libraries: tuple[str, ...]
    inputs: Inputs
    score: Callable[[Matrix], Score] = field(repr=False)
    leaves: Callable[[Matrix], Any] | None = field(default=None, repr=False)
    fallback: Callable[[], Packed] | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        return str(self.runtime["kind"])

    def predict(self, matrix: Matrix) -> Score:
        """`(n,)` or `(n, classes)`. Raises `bad_scores` for what is not a score of the task."""
        score = np.asarray(self.score(matrix), dtype=np.float64)
        check_score(score, len(matrix), self.inputs)
        return score

    def verified(self, samples: Matrix) -> Packed:
        """Choose the runtime: the tree kernel only where it agrees with the library on the samples: scores within 1e-6
        (of the score, where that is above 1), and the same leaves where the library tells them."""
        if self.kind != "trees":
            return self
        difference, reason = _tree_difference(self, samples)
        measured = {"max_difference": difference, "tolerance": TREE_TOLERANCE}
        if not reason:
            return replace(self, runtime=self.runtime | measured)
        other = replace(self, runtime=self.runtime | {"kind": "process"}) if self.fallback is None else self.fallback()
        return replace(other, runtime=other.runtime | measured | {"reason": reason})


def pack(model: Any, inputs: Inputs) -> Packed:
    """Pack a model, or refuse it (`bad_model`, `bad_signature`) with what is possible."""
    from flyball.registry import boosters, estimators, graphs  # each knows one library's objects by their type

    if model is None:
        raise InvalidError("run.package was given None; give it the trained model", code="bad_model")
    for module in (boosters, graphs, estimators):
        packed: Packed | None = module.pack(model, inputs)
        if packed is not None:
            return packed
    given = f"the file {os.path.basename(model)!r}" if isinstance(model, str | os.PathLike) else _type_name(model)
    raise InvalidError(
        f"{given} cannot be packaged; possible is {POSSIBLE}",
        code="bad_model",
        hint="pickle is refused, because loading it executes code; export other models to ONNX",
    )


def check_score(score: Score, rows: int, inputs: Inputs) -> None:
    """Refuse what is not a score of the task: a wrong shape, not finite, or no probability."""
    shape = (rows, inputs.classes) if inputs.classes else (rows,)
    if score.shape != shape:
        raise InvalidError(
            f"the model gives scores of shape {score.shape} for {rows} rows; a {inputs.task.kind} task has {shape}",
            code="bad_scores",
        )
    if not np.isfinite(score).all():
        raise InvalidError(
            f"the model gives scores that are not finite for {int((~np.isfinite(score)).sum())} values",
            code="bad_scores",
        )
    if inputs.task.kind != "regression" and score.size and (score.min() < -1e-9 or score.max() > 1 + 1e-9):
        raise InvalidError(
            f"the scores of a {inputs.task.kind} task are probabilities; the model gives {score.min():.4g} to "
            f"{score.max():.4g}",
            code="bad_scores",
            hint="train with an objective that gives probabilities, such as LightGBM's 'binary' or 'multiclass'",
        )


def check_features(expected: int, names: list[str] | None, inputs: Inputs) -> None:
    """Refuse a model that was fitted on other columns than the matrix has; `names` is None where it knows none."""
    if expected != len(inputs.features):
        raise InvalidError(
            f"the model was trained on {expected} columns; the features are {len(inputs.features)}: "
            f"{', '.join(inputs.features)}",
            code="bad_signature",
            hint="train on data.train.X or data.train.to_pandas(), with all columns in their order",
        )
    if names is not None and names != list(inputs.features):
        raise InvalidError(
            f"the model was trained on the columns {', '.join(names)}; the features are {', '.join(inputs.features)}",
            code="bad_signature",
            hint="train on data.train.X or data.train.to_pandas(), with all columns in their order",
        )


def check_classes(classes: Any, inputs: Inputs) -> None:
    """Refuse an estimator that did not see every class: its columns would not be those of the task."""
    expected = list(range(inputs.classes or 2))
    if [float(value) for value in classes] != [float(value) for value in expected]:
        raise InvalidError(
            f"the estimator saw the classes {list(classes)} of `data.train.y`; the task has {expected}",
            code="bad_signature",
            hint="fit it on `data.train.y` as it is, with rows of every class",
        )


def _type_name(model: Any) -> str:
    kind = type(model)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _tree_difference(packed: Packed, samples: Matrix) -> tuple[float | None, str]:
    """The largest difference between kernel and library, and why the kernel cannot be used (empty: it can)."""
    if packed.inputs.trees is None:
        return None, "no tree kernel is available"
    try:
        model = packed.inputs.trees(str(packed.runtime["format"]), packed.files[packed.runtime["file"]])
        score = np.asarray(model.predict(samples), dtype=np.float64)
        reached = model.leaves(samples) if packed.leaves is not None else None
    except Exception as error:
        return None, f"the tree kernel does not run this model: {error}"
    expected = packed.predict(samples)
    if score.shape != expected.shape:
        return None, f"the tree kernel gives the shape {score.shape}, the library {expected.shape}"
    difference = float(np.max(np.abs(score - expected), initial=0.0))
    relative = float(np.max(np.abs(score - expected) / np.maximum(np.abs(expected), 1.0), initial=0.0))
    if not relative <= TREE_TOLERANCE:
        return difference, f"the tree kernel differs from the library by {difference:.3g}"
    if packed.leaves is not None and reached is not None and not np.array_equal(reached, packed.leaves(samples)):
        return difference, "the tree kernel reaches other leaves than the library"
    return difference, ""
