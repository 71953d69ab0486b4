"""Models of trees on the tree kernel: LightGBM's text, XGBoost's JSON, and forests of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from flyball.kernel.errors import InvalidError
from flyball.serving import trees
from flyball.serving.ports import Matrix, Score, Tensors

INPUT, OUTPUT = "input", "score"


class TreeRuntime:
    """One model. `format`: one of `trees.FORMATS`. Raises `bad_tree_model`, `tree_unsupported`."""

    def __init__(self, data: bytes, format: str) -> None:
        self._model = trees.open_model(format, data)

    def predict(self, matrix: Matrix) -> Score:
        return self._model.predict(matrix)

    def infer(self, tensors: Tensors) -> Tensors:
        """Score the matrix `input`, `(n, features)` of FP32 or FP64: `score`, FP64, `(n,)` or `(n, classes)`."""
        matrix = tensors.get(INPUT)
        if matrix is None or len(tensors) != 1:
            raise InvalidError(
                f"the model takes one tensor, {INPUT!r}; the request brings {', '.join(tensors) or 'none'}",
                code="bad_tensor",
            )
        if matrix.dtype not in (np.float32, np.float64):
            raise InvalidError(f"the input {INPUT!r} is FP32 or FP64, not of {matrix.dtype}", code="bad_tensor")
        return {OUTPUT: self._model.predict(matrix.astype(np.float64, copy=False))}

    def close(self) -> None: ...

    def signature(self) -> dict[str, Any]:
        """Input and output as the Open Inference Protocol names them; the input has the library's own type."""
        model = self._model
        kind = "FP32" if model.ensemble.single_input else "FP64"
        shape = [-1] if model.classes == 1 else [-1, model.classes]
        return {
            "inputs": [{"name": INPUT, "datatype": kind, "shape": [-1, len(model.features)]}],
            "outputs": [{"name": OUTPUT, "datatype": "FP64", "shape": shape}],
        }
