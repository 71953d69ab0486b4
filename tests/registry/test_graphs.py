"""ONNX: signatures read without a library agree with the library's, and packing checks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyball.kernel.errors import FlyballError, InvalidError
from flyball.registry.graphs import DATATYPES, Tensor, signature
from flyball.registry.package import pack
from flyball.registry.ports import Matrix, Score
from tests.registry.models import ROWS, inputs


def linear(columns: int, dtype: str = "FLOAT", batch: Any = "rows", null: float | None = None) -> Any:
    """`sigmoid(X @ w)`; with `null`, that number in place of NaN."""
    from onnx import TensorProto, helper

    kind = getattr(TensorProto, dtype)
    weights = helper.make_tensor("w", kind, [columns, 1], [0.01] * columns)
    constants = [weights]
    nodes = []
    if null is not None:
        constants.append(helper.make_tensor("null", kind, [], [null]))
        nodes = [
            helper.make_node("IsNaN", ["X"], ["missing"]),
            helper.make_node("Where", ["missing", "null", "X"], ["known"]),
        ]
    nodes += [
        helper.make_node("MatMul", ["X" if null is None else "known", "w"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("X", kind, [batch, columns])],
        [helper.make_tensor_value_info("score", kind, [batch, 1])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(data: bytes, matrix: Matrix) -> Score:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"X": np.nan_to_num(matrix).astype(np.float32)})
    return np.asarray(out[:, 0], dtype=np.float64)


def test_a_signature_is_read_without_a_library() -> None:
    found = signature(linear(3).SerializeToString())
    assert found.inputs == (Tensor(name="X", datatype="FP32", shape=(-1, 3)),)
    assert found.outputs == (Tensor(name="score", datatype="FP32", shape=(-1, 1)),)
    assert signature(linear(4, "DOUBLE", 7).SerializeToString()).inputs[0] == Tensor(
        name="X", datatype="FP64", shape=(7, 4)
    )


def test_the_data_types_are_those_of_onnx() -> None:
    from onnx import TensorProto

    names = {
        "FLOAT": "FP32",
        "DOUBLE": "FP64",
        "FLOAT16": "FP16",
        "BFLOAT16": "BF16",
        "STRING": "BYTES",
        "INT64": "INT64",
    }
    for name, datatype in names.items():
        assert DATATYPES[getattr(TensorProto, name)] == datatype


def test_bytes_that_are_no_model_and_truncated_ones_are_refused() -> None:
    whole = linear(3).SerializeToString()
    for data in (b"", b"hello world", whole[: len(whole) // 2], b"\x80" * 40):
        with pytest.raises(InvalidError) as caught:
            signature(data)
        assert caught.value.code == "bad_onnx"


def test_a_model_or_a_path_is_packed_and_scores(tmp_path: Path) -> None:
    model = linear(3)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString(deterministic=True))
    for given in (model, tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        packed = pack(given, inputs(onnx=run))
        assert packed.verified(ROWS.X).kind == "onnx"
        expected = 1 / (1 + np.exp(-np.nan_to_num(ROWS.X).sum(axis=1) * 0.01))
        np.testing.assert_allclose(packed.predict(ROWS.X), expected, atol=1e-6)


def test_a_model_of_other_columns_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FlyballError, match="2 columns"):
        pack(linear(2), inputs(onnx=run))
    with pytest.raises(FlyballError) as caught:
        pack(tmp_path / "none.onnx", inputs(onnx=run))
    assert caught.value.code == "file_not_found"
