"""The Open Inference Protocol's tensors (v2): JSON and raw bytes to arrays and back, and rows of fields as tensors.

https://github.com/open-inference/open-inference-protocol, and Triton's binary tensor data extension.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.define.spec import ColumnSpec
from flyball.kernel.errors import InvalidError, did_you_mean
from flyball.serving.manifest import Manifest, TensorSpec
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


def read_inputs(request: Mapping[str, Any], binary: bytes = b"") -> Tensors:
    """The request's tensors by name; `bad_tensor` names the one that is wrong.

    `binary` is what follows the JSON part: the tensors with `binary_data_size`, in their order.
    """
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise InvalidError("the request must have a list `inputs` of tensors", code="bad_request")
    tensors: Tensors = {}
    at = 0
    for tensor in inputs:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise InvalidError("each input must be an object with name, datatype, shape and data", code="bad_tensor")
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        raw = None
        if size is not None:
            if not isinstance(size, int) or size < 0 or at + size > len(binary):
                raise _bad(tensor, f"names {size} bytes of binary data; {len(binary) - at} follow")
            raw = binary[at : at + size]
            at += size
        tensors[tensor["name"]] = _read_tensor(tensor, raw)
    if at != len(binary):
        raise InvalidError(f"{len(binary) - at} bytes of binary data belong to no input", code="bad_tensor")
    return tensors


def _read_tensor(tensor: Mapping[str, Any], raw: bytes | None) -> Array:
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    dtype = DTYPES.get(str(datatype))
    if dtype is None:
        raise _bad(tensor, f"has the datatype {datatype!r}; known are {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(isinstance(d, int) and d >= 0 for d in shape):
        raise _bad(tensor, "must have a shape: a list of sizes")
    try:
        if raw is not None:
            array = _from_bytes(raw, str(datatype))
        else:
            array = _from_json(tensor.get("data"), dtype)
    except (TypeError, ValueError, OverflowError, struct.error):
        raise _bad(tensor, f"has data that is not {datatype}") from None
    if array.size != int(np.prod(shape, dtype=np.int64)):
        raise _bad(tensor, f"has {array.size} values; its shape {shape} holds {int(np.prod(shape, dtype=np.int64))}")
    return array.reshape(shape)


def _from_json(data: Any, dtype: Any) -> Array:
    """Flat or nested data; null is NaN in a tensor of floats."""
    if not isinstance(data, list):
        raise TypeError
    if dtype is np.object_:
        flat = _flatten(data)
        if not all(isinstance(value, str) for value in flat):
            raise TypeError
        return np.array(flat, dtype=object)
    array = np.array(data, dtype=np.float64 if None in _flatten(data) else None)
    if array.size == 0:
        return array.astype(dtype)
    if array.dtype.kind not in "biuf" or (np.dtype(dtype).kind in "biu" and array.dtype.kind == "f"):
        raise TypeError
    if np.dtype(dtype).kind in "iu" and array.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise OverflowError
    return array.astype(dtype)


def _flatten(data: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for value in data:
        if isinstance(value, list):
            flat.extend(_flatten(value))
        else:
            flat.append(value)
    return flat


def _from_bytes(raw: bytes, datatype: str) -> Array:
    """Little-endian values; BYTES are texts with a 4-byte length each."""
    if datatype != "BYTES":
        return np.frombuffer(raw, dtype=np.dtype(DTYPES[datatype]).newbyteorder("<")).astype(DTYPES[datatype])
    texts, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        if at + 4 + length > len(raw):
            raise ValueError
        texts.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return np.array(texts, dtype=object)


def to_bytes(array: Array) -> bytes:
    """A tensor as the binary extension sends it."""
    if datatype_of(array) != "BYTES":
        return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    texts = [str(value).encode() for value in array.ravel().tolist()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def output_data(name: str, array: Array) -> dict[str, Any]:
    """A tensor as JSON; not finite numbers are null."""
    flat = array.ravel()
    data: list[Any] = flat.tolist()
    if array.dtype.kind == "f" and not np.isfinite(flat).all():
        data = [value if np.isfinite(value) else None for value in data]
    elif datatype_of(array) == "BYTES":
        data = [value.decode() if isinstance(value, bytes) else str(value) for value in data]
    return {"name": name, "shape": list(array.shape), "datatype": datatype_of(array), "data": data}


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


def metadata(manifest: Manifest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The inputs and outputs of a version as the protocol describes them."""
    if manifest.takes_tensors:
        own = manifest.tensors
        return [_tensor_data(t) for t in own.inputs], [_tensor_data(t) for t in own.outputs]
    inputs = [{"name": c.name, "datatype": FIELD_DATATYPES[c.type], "shape": [-1]} for c in manifest.inputs]
    outputs: list[dict[str, Any]] = [{"name": "prediction_id", "datatype": "BYTES", "shape": [-1]}]
    kind = manifest.task.kind if manifest.task is not None else ""
    prediction = {"binary": "BOOL", "multiclass": "BYTES"}.get(kind, "FP64")
    outputs.append({"name": "prediction", "datatype": prediction, "shape": [-1]})
    if kind in ("binary", "multiclass"):
        outputs.append({"name": "score", "datatype": "FP64", "shape": [-1]})
    return inputs, outputs


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


def _tensor_data(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _bad(tensor: Mapping[str, Any], what: str) -> InvalidError:
    return InvalidError(f"the input {tensor['name']!r} {what}", code="bad_tensor")
