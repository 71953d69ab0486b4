"""ONNX models on onnxruntime, one thread each: workers scale by processes, and threads of one request would fight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.define.spec import TaskSpec
from flyball.kernel.errors import InvalidError, UnavailableError
from flyball.serving.ports import Matrix, Score, Tensors

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64,
    "tensor(uint32)": np.uint32,
    "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_DATATYPES = {
    np.float32: "FP32",
    np.float64: "FP64",
    np.float16: "FP16",
    np.int64: "INT64",
    np.int32: "INT32",
    np.int16: "INT16",
    np.int8: "INT8",
    np.uint64: "UINT64",
    np.uint32: "UINT32",
    np.uint16: "UINT16",
    np.uint8: "UINT8",
    np.bool_: "BOOL",
    np.object_: "BYTES",
}


class OnnxRuntime:
    """One session. `task` tells which of a classifier's outputs is the score; None: the first output."""

    def __init__(self, data: bytes, task: TaskSpec | None = None) -> None:
        self._session = _session(data)
        self._task = task
        self._inputs = {value.name: _TYPES.get(value.type) for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._score = _score_output(self._session.get_outputs(), task)

    def predict(self, matrix: Matrix) -> Score:
        """Score a matrix: the model must have one input, of two dimensions."""
        if len(self._inputs) != 1:
            raise InvalidError(
                f"the model takes {', '.join(self._inputs)}; a model of features takes one matrix", code="bad_shape"
            )
        ((name, dtype),) = self._inputs.items()
        (output,) = self._run([self._score], {name: matrix.astype(dtype or np.float32, copy=False)})
        return _as_score(output, self._task)

    def infer(self, tensors: Tensors) -> Tensors:
        given = {
            name: array.astype(self._inputs.get(name) or array.dtype, copy=False) for name, array in tensors.items()
        }
        outputs = self._run(self._outputs, given)
        return {name: _as_tensor(value) for name, value in zip(self._outputs, outputs, strict=True)}

    def close(self) -> None: ...

    def signature(self) -> dict[str, Any]:
        """Inputs and outputs as the Open Inference Protocol names them; a ZipMap's output is a matrix."""
        return {
            "inputs": [_tensor(value) for value in self._session.get_inputs()],
            "outputs": [_tensor(value) for value in self._session.get_outputs()],
        }

    def _run(self, names: list[str], given: Tensors) -> list[Any]:
        try:
            outputs: list[Any] = self._session.run(names, given)
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            text = str(error).partition("\n")[0]
            raise InvalidError(f"onnxruntime refuses the request: {text}", code="bad_tensor") from None
        return outputs


def score_matrix(data: bytes, matrix: Matrix, task: TaskSpec | None = None) -> Score:
    """Score a matrix with a serialized model, as the runtime will; for whoever packages one."""
    return OnnxRuntime(data, task).predict(matrix)


def _session(data: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UnavailableError(
            "onnxruntime is not installed; it runs ONNX models",
            code="missing_library",
            hint="pip install 'flyball[onnx]'",
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        text = str(error).partition("\n")[0]
        raise InvalidError(f"onnxruntime cannot load the model: {text}", code="bad_onnx") from None


def _score_output(outputs: list[Any], task: TaskSpec | None) -> str:
    """A classifier's probabilities: the output called so, else the last one that is not a vector of labels."""
    names = [str(value.name) for value in outputs]
    if task is None or task.kind == "regression" or len(names) == 1:
        return names[0]
    for name in names:
        if "prob" in name.lower() or "score" in name.lower():
            return name
    fitting = [
        str(v.name) for v in outputs if v.type.startswith("seq(map") or v.type in ("tensor(float)", "tensor(double)")
    ]
    return fitting[-1] if fitting else names[-1]


def _as_score(output: Any, task: TaskSpec | None) -> Score:
    array = np.asarray(_as_tensor(output), dtype=np.float64)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if task is not None and task.kind == "binary" and array.ndim == 2:
        array = array[:, -1]
    return np.ascontiguousarray(array)


def _as_tensor(value: Any) -> npt.NDArray[Any]:
    """A tensor; a ZipMap (one mapping from class to probability a row) becomes a matrix, in the classes' order."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        classes = sorted(value[0])
        return np.array([[row[c] for c in classes] for row in value], dtype=np.float32)
    return np.asarray(value)


def _tensor(value: Any) -> dict[str, Any]:
    dtype = _TYPES.get(value.type, np.float32)
    shape = getattr(value, "shape", None)
    sizes = [size if isinstance(size, int) and size > 0 else -1 for size in shape or [None, None]]
    return {"name": value.name, "datatype": _DATATYPES[dtype], "shape": sizes}
