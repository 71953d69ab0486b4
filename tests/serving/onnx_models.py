"""Small ONNX models made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def affine() -> bytes:
    """y = 2 x + 1 for x of shape (n, 2)."""
    two = numpy_helper.from_array(np.array(2, dtype=np.float32), "two")
    one = numpy_helper.from_array(np.array(1, dtype=np.float32), "one")
    nodes = [helper.make_node("Mul", ["x", "two"], ["m"]), helper.make_node("Add", ["m", "one"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    return _model(nodes, [x], [y], [two, one])


def classifier(*, zipmap: bool, classes: int = 2) -> bytes:
    """A linear classifier of two features with labels and probabilities, as exporters of scikit-learn write it."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "raw"],
            domain="ai.onnx.ml",
            coefficients=random.normal(size=2 * classes).astype(float).tolist(),
            intercepts=[0.0] * classes,
            classlabels_ints=list(range(classes)),
            post_transform="SOFTMAX",
        )
    ]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["n"])
    if zipmap:
        nodes.append(
            helper.make_node(
                "ZipMap", ["raw"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=list(range(classes))
            )
        )
        mapping = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        sequence = helper.make_sequence_type_proto(mapping)
        outputs = [label, helper.make_value_info("probabilities", sequence)]
    else:
        outputs = [label, helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["n", classes])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    return _model(nodes, [x], outputs)
