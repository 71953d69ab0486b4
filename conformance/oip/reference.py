"""Makes the kit's reference models: small ONNX files whose answers are known.

    python conformance/oip/reference.py DIR

`oip_identity_TYPE`, one a datatype, answers with its input: `x` → `y`, both [-1, 2]. `oip_pair` has two of each:
`a` FP32 [-1, 2] → `twice` = 2 a, and `b` INT64 [-1] → `next` = b + 1.

DIR/NAME/1/NAME.onnx is each model, with what Triton (config.pbtxt) and MLServer (model-settings.json, for the runtime
beside this file) need to serve DIR as their repository. Needs the packages onnx and numpy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Signature = dict[str, list[dict[str, Any]]]

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def models() -> dict[str, tuple[bytes, Signature]]:
    """The models by name: each file's bytes, and its inputs and outputs as the protocol describes them."""
    made = {f"oip_identity_{datatype.lower()}": _identity(datatype) for datatype in TYPES}
    made["oip_pair"] = _pair()
    return made


def write(folder: Path) -> None:
    """Write the models as a repository. Idempotent."""
    for name, (data, signature) in models().items():
        version = folder / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / f"{name}.onnx").write_bytes(data)
        (folder / name / "config.pbtxt").write_text(_triton(name, signature))
        (folder / name / "model-settings.json").write_text(json.dumps(_mlserver(name, signature), indent=1) + "\n")


def _identity(datatype: str) -> tuple[bytes, Signature]:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    signature = {"inputs": [_tensor("x", datatype, [-1, 2])], "outputs": [_tensor("y", datatype, [-1, 2])]}
    return _model(nodes, signature), signature


def _pair() -> tuple[bytes, Signature]:
    weights = [
        numpy_helper.from_array(np.array(2, dtype=np.float32), "two"),
        numpy_helper.from_array(np.array(1, dtype=np.int64), "one"),
    ]
    nodes = [helper.make_node("Mul", ["a", "two"], ["twice"]), helper.make_node("Add", ["b", "one"], ["next"])]
    signature = {
        "inputs": [_tensor("a", "FP32", [-1, 2]), _tensor("b", "INT64", [-1])],
        "outputs": [_tensor("twice", "FP32", [-1, 2]), _tensor("next", "INT64", [-1])],
    }
    return _model(nodes, signature, weights), signature


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def _model(nodes: list[Any], signature: Signature, weights: Sequence[Any] = ()) -> bytes:
    inputs, outputs = ([_info(one) for one in signature[side]] for side in ("inputs", "outputs"))
    graph = helper.make_graph(nodes, "reference", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _info(tensor: dict[str, Any]) -> Any:
    sizes = ["n" if size < 0 else size for size in tensor["shape"]]
    return helper.make_tensor_value_info(tensor["name"], TYPES[tensor["datatype"]], sizes)


def _triton(name: str, signature: Signature) -> str:
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', f'default_model_filename: "{name}.onnx"', "max_batch_size: 0"]
    for side, key in (("inputs", "input"), ("outputs", "output")):
        for one in signature[side]:
            kind = "STRING" if one["datatype"] == "BYTES" else one["datatype"]
            lines.append(f'{key} [{{ name: "{one["name"]}" data_type: TYPE_{kind} dims: {one["shape"]} }}]')
    return "\n".join(lines) + "\n"


def _mlserver(name: str, signature: Signature) -> dict[str, Any]:
    return {
        "name": name,
        "implementation": "mlserver_runtime.OnnxRuntime",
        "platform": "onnx",
        "parameters": {"version": "1", "uri": f"./1/{name}.onnx"},
        **signature,
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python reference.py DIR")
    write(Path(sys.argv[1]))
