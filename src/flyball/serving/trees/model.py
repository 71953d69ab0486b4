"""A model that is ready: an ensemble, and its program for the kernel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flyball.kernel.errors import InvalidError
from flyball.serving.trees import kernel
from flyball.serving.trees.ensemble import Ensemble
from flyball.serving.trees.program import compile_program

Matrix = npt.NDArray[np.float64]
Score = npt.NDArray[np.float64]


class TreeModel:
    """Scores matrices. Safe to call from several threads; the interpreter lock is free while the kernel runs."""

    def __init__(self, ensemble: Ensemble) -> None:
        kernel.load()
        self.ensemble = ensemble
        self.classes = ensemble.classes
        self._width = len(ensemble.features)
        self._pool = compile_program(ensemble)

    @property
    def features(self) -> tuple[str, ...]:
        return self.ensemble.features

    @property
    def trees(self) -> int:
        return len(self.ensemble.roots)

    def predict(self, matrix: Matrix) -> Score:
        """What the library's own `predict` gives: `(n,)`, or `(n, classes)`; `matrix` is `(n, features)`."""
        matrix = self._checked(matrix)
        if self.classes == 1:
            out = np.empty(len(matrix))
            kernel.predict(self._pool, matrix, False, out)
            return out
        out = np.empty((len(matrix), self.classes))
        kernel.predict(self._pool, matrix, False, out.reshape(-1))
        return out

    def raw(self, matrix: Matrix) -> Score:
        """The sums before averaging and transformation: `(n, classes)`."""
        matrix = self._checked(matrix)
        out = np.empty((len(matrix), self.classes))
        kernel.predict(self._pool, matrix, True, out.reshape(-1))
        return out

    def leaves(self, matrix: Matrix) -> npt.NDArray[np.int32]:
        """The leaf that each row reaches in each tree, by the library's numbers: `(n, trees)`."""
        matrix = self._checked(matrix)
        out = np.empty((len(matrix), self.trees), dtype=np.int32)
        kernel.reach(self._pool, matrix, out.reshape(-1))
        return out

    def _checked(self, matrix: Matrix) -> Matrix:
        if matrix.ndim != 2 or matrix.shape[1] != self._width:
            raise InvalidError(
                f"the model takes rows of {self._width} features, not an array of shape {matrix.shape}",
                code="bad_shape",
            )
        if self.ensemble.complete and np.isnan(matrix).any():
            raise InvalidError(
                "the model was trained without missing values and takes none",
                code="missing_value",
                hint="fill the feature with a default, or train on rows with missing values",
            )
        return np.ascontiguousarray(matrix, np.float64)
