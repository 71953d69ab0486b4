"""The Open Inference Protocol's types of tensors (v2), and rows of fields as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.define.spec import ColumnSpec
from flyball.kernel.errors import InvalidError, did_you_mean
from flyball.serving.manifest import Manifest, Signature, TensorSpec
from flyball.serving.ports import Tensors

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
FIELD_DATATYPES = {
    "string": "BYTES",
    "category": "BYTES",
    "decimal": "FP64",
    "float": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "timestamp": "INT64",
}

Array = npt.NDArray[Any]


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's type; text is BYTES."""
    return "BYTES" if array.dtype.kind in "OUS" else _NAMES.get(array.dtype, "FP64")


def rows_of(tensors: Tensors, columns: Sequence[ColumnSpec], extra: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of fields from one tensor a field, of shape `[n]` or `[n, 1]`; NaN is null."""
    known = {column.name for column in columns} | set(extra)
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in tensors.items()}
    for name, array in tensors.items():
        if name not in known:
            raise InvalidError(f"the model has no input {name!r}: {did_you_mean(name, known)}", code="unknown_field")
        if array.ndim not in (1, 2) or array.size != lengths[name]:
            raise InvalidError(f"the input {name!r} must have the shape [n] or [n, 1]", code="bad_tensor")
    if len(set(lengths.values())) > 1:
        raise InvalidError(f"the inputs have different numbers of rows: {lengths}", code="bad_tensor")
    rows: list[dict[str, Any]] = [{} for _ in range(max(lengths.values(), default=0))]
    for name, array in tensors.items():
        for row, value in zip(rows, array.ravel().tolist(), strict=True):
            row[name] = None if isinstance(value, float) and np.isnan(value) else value
    return rows


def signature_of(manifest: Manifest) -> Signature:
    """The inputs and outputs of a version as the protocol describes them: a model's own tensors, or one a field."""
    if manifest.takes_tensors:
        return manifest.tensors
    rows = (-1,)
    inputs = [TensorSpec(name=c.name, datatype=FIELD_DATATYPES[c.type], shape=rows) for c in manifest.inputs]
    outputs = [TensorSpec(name="prediction_id", datatype="BYTES", shape=rows)]
    kind = manifest.task.kind if manifest.task is not None else ""
    prediction = {"binary": "BOOL", "multiclass": "BYTES"}.get(kind, "FP64")
    outputs.append(TensorSpec(name="prediction", datatype=prediction, shape=rows))
    if kind in ("binary", "multiclass"):
        outputs.append(TensorSpec(name="score", datatype="FP64", shape=rows))
    return Signature(inputs=tuple(inputs), outputs=tuple(outputs))


def reply_tensors(replies: Sequence[Mapping[str, Any]]) -> Tensors:
    """The replies of a model of fields as tensors: `prediction_id`, `prediction`, and `score` where there is one."""
    predictions = [reply["prediction"] for reply in replies]
    tensors: Tensors = {"prediction_id": np.array([reply["prediction_id"] for reply in replies], dtype=object)}
    if predictions and all(isinstance(value, bool) for value in predictions):
        tensors["prediction"] = np.array(predictions, dtype=np.bool_)
    elif any(isinstance(value, str) for value in predictions):
        tensors["prediction"] = np.array([str(value) for value in predictions], dtype=object)
    else:
        numbers = [np.nan if value is None else value for value in predictions]
        tensors["prediction"] = np.array(numbers, dtype=np.float64)
    if any("score" in reply for reply in replies):
        tensors["score"] = np.array([reply.get("score", np.nan) for reply in replies], dtype=np.float64)
    return tensors


def stack_rows(rows: Sequence[Mapping[str, Any]], specs: Sequence[TensorSpec]) -> Tensors:
    """Rows of one value or list a tensor, stacked along a first axis."""
    tensors: Tensors = {}
    for spec in specs:
        dtype = DTYPES.get(spec.datatype, np.float32)
        values = [np.asarray(row[spec.name], dtype=dtype) for row in rows]
        wanted = spec.shape[1:]
        tensors[spec.name] = np.stack([v.reshape([1] * (len(wanted) - v.ndim) + list(v.shape)) for v in values])
    return tensors
