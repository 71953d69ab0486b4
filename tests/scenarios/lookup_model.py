"""An ONNX model that looks a number up in a table, and fails for numbers beyond the table's end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write(path: Path, size: int) -> Path:
    """score = X / size for the whole numbers X below `size`; an error of the runtime for others."""
    table = numpy_helper.from_array((np.arange(size, dtype=np.float32) / size), "table")
    nodes = [
        helper.make_node("Cast", ["X"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "whole"], ["score"], axis=0),
    ]
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 1])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph(nodes, "lookup", [given], [score], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path
