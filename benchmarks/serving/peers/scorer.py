"""The model as every peer with code of its own runs it: the ONNX export on onnxruntime, one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks.serving.files import INPUT, ONNX


class Scorer:
    """A matrix in, the probability of true of each row out."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(ONNX), options, providers=["CPUExecutionProvider"])
        self._outputs = [self._session.get_outputs()[0].name]

    def __call__(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        (probabilities,) = self._session.run(self._outputs, {INPUT: matrix})
        scores: npt.NDArray[np.float32] = probabilities[:, 1]
        return scores


def read_tensor(body: Any) -> npt.NDArray[np.float32]:
    """The matrix of a request in the Open Inference Protocol's JSON."""
    tensor = body["inputs"][0]
    return np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
