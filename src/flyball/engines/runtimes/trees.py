"""LightGBM text models on the tree kernel."""

from __future__ import annotations

from pathlib import Path

from flyball.kernel.errors import InvalidError
from flyball.serving import trees
from flyball.serving.ports import Matrix, Score, Tensors


class TreeRuntime:
    def __init__(self, path: Path) -> None:
        self._model = trees.parse(path.read_text())

    def predict(self, matrix: Matrix) -> Score:
        return self._model.predict(matrix)

    def infer(self, tensors: Tensors) -> Tensors:
        raise InvalidError("a tree model takes a matrix of features, not tensors", code="tensors_unsupported")

    def close(self) -> None: ...
