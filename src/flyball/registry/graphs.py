"""ONNX: a model's bytes, and the names, types and shapes of its inputs and outputs.

The few fields of the protocol buffer that a signature needs are read here (https://onnx.ai/onnx/repo-docs/IR.html,
`onnx.proto`), so that a process that serves nothing needs neither onnx nor onnxruntime to register a model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyball.kernel.errors import InvalidError, NotFoundError, UnavailableError
from flyball.registry.package import Inputs, Packed, check_features
from flyball.registry.ports import Matrix, Score

FILE = "model.onnx"

# TensorProto.DataType → the data type of the Open Inference Protocol
DATATYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES", 9: "BOOL",
    10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """A named tensor. -1 in the shape: any size; `datatype` as the Open Inference Protocol spells it."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_data(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def to_data(self) -> dict[str, Any]:
        return {"inputs": [t.to_data() for t in self.inputs], "outputs": [t.to_data() for t in self.outputs]}


def pack(model: Any, inputs: Inputs) -> Packed | None:
    """None where the model is neither an ONNX model nor the path of one."""
    if isinstance(model, str | os.PathLike):
        if Path(model).suffix != ".onnx":
            return None
        data = read(Path(model))
    elif type(model).__name__ == "ModelProto" and hasattr(model, "SerializeToString"):
        data = bytes(model.SerializeToString(deterministic=True))
    else:
        return None
    found = signature(data)
    if len(found.inputs) != 1 or len(found.inputs[0].shape) != 2:
        shown = ", ".join(f"{t.name}{list(t.shape)}" for t in found.inputs)
        raise InvalidError(
            f"the ONNX model takes {shown}; a model with features takes one matrix of {len(inputs.features)} columns",
            code="bad_signature",
            hint="export it with one input of shape (None, features)",
        )
    if found.inputs[0].shape[1] != -1:
        check_features(found.inputs[0].shape[1], None, inputs)
    run = inputs.onnx
    if run is None:
        raise UnavailableError(
            "onnxruntime is not installed; it evaluates ONNX models",
            code="missing_library",
            hint="pip install 'flyball[onnx]'",
        )

    def score(matrix: Matrix) -> Score:
        return run(data, matrix)

    return Packed(
        runtime={"kind": "onnx", "format": "onnx", "file": FILE, "input": "matrix", "tensors": found.to_data()},
        files={FILE: data},
        libraries=("onnx", "onnxruntime"),
        inputs=inputs,
        score=score,
    )


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path.name!r}", code="file_not_found") from None


def signature(data: bytes) -> Signature:
    """The inputs and outputs of a serialized ONNX model; `bad_onnx` for bytes that are none."""
    try:
        graph = next((value for number, value in _fields(data) if number == 7), None)
        if not isinstance(graph, bytes):
            raise ValueError("it has no graph")
        fields = list(_fields(graph))
        weights = {_text(value, 8) for number, value in fields if number == 5}  # old models list weights as inputs
        inputs = [_tensor(value) for number, value in fields if number == 11]
        outputs = [_tensor(value) for number, value in fields if number == 12]
        if not outputs:
            raise ValueError("its graph has no output")
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise InvalidError(
            f"this is no ONNX model: {error}",
            code="bad_onnx",
            hint="export the model again; a truncated file is no model",
        ) from None
    return Signature(inputs=tuple(t for t in inputs if t.name not in weights), outputs=tuple(outputs))


def _tensor(info: int | bytes) -> Tensor:
    """A ValueInfoProto: name = 1, type = 2 (TypeProto: tensor_type = 1 (elem_type = 1, shape = 2 (dim = 1)))."""
    name = _text(info, 1)
    tensor = _message(_message(info, 2), 1)
    element = next((value for number, value in _fields(tensor) if number == 1), 0)
    shape = []
    for number, dimension in _fields(_message(tensor, 2)):
        if number == 1:
            size = next((v for n, v in _fields(_bytes(dimension)) if n == 1), -1)
            shape.append(size if isinstance(size, int) and size > 0 else -1)
    return Tensor(
        name=name, datatype=DATATYPES.get(element, "") if isinstance(element, int) else "", shape=tuple(shape)
    )


def _message(data: int | bytes, wanted: int) -> bytes:
    """An embedded message; one that is not there is empty (an output that is no tensor has no tensor type)."""
    return next((_bytes(value) for number, value in _fields(_bytes(data)) if number == wanted), b"")


def _text(data: int | bytes, wanted: int) -> str:
    return _message(data, wanted).decode()


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field has another type than ONNX gives it")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: (number, varint or bytes). Fixed-size fields are given as bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(data, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position + size > len(data):
            raise ValueError("it ends in the middle of a field")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError(f"a number without an end at byte {position}")
