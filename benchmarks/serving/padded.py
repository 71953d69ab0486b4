"""A model whose every row takes a known time: real arithmetic, in ONNX, which onnxruntime does row after row.

A `Scan` over the rows multiplies each by a matrix again and again; how often is found by timing the model itself, so
that a row takes the time wanted on this machine. Ten rows take ten times as long as one: batches save nothing, as with
a model that is bound by its arithmetic.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.serving.data import Floats
from benchmarks.serving.files import FEATURES, INPUT

WIDTH = 128
ROWS = 8
CLOSE = 0.03  # how far from the time wanted a row may be


def padded(folder: Path, row_us: float, name: str = "padded") -> tuple[Path, float]:
    """Write the model; gives its file, and the time of a row as it was measured, in microseconds."""
    steps, path = 20, folder / f"{name}.onnx"
    for _ in range(8):
        data = _model(steps)
        took = _row_us(data)
        if abs(took / row_us - 1) < CLOSE:
            break
        steps = max(1, round(steps * row_us / took))
    path.write_bytes(data)
    return path, took


def answers(path: Path, matrix: Floats) -> Floats:
    """What the model says, one score a row."""
    session = _session(path.read_bytes())
    (scores,) = session.run(None, {INPUT: matrix.astype(np.float32)})
    return np.asarray(scores, np.float64)[:, 0]


def _model(steps: int) -> bytes:
    """`h = tanh(h W)`, `steps` times for each row, from `h = x V`; the score is the mean of `h`."""
    rng = np.random.default_rng(1)
    v = numpy_helper.from_array(rng.normal(size=(FEATURES, WIDTH)).astype(np.float32) / 6, "v")
    w = numpy_helper.from_array((rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32), "w")
    count = numpy_helper.from_array(np.array(steps, np.int64), "count")
    axis = numpy_helper.from_array(np.array([0], np.int64), "axis")
    step = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["hw"]),
            helper.make_node("Tanh", ["hw"], ["h_next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "step",
        [_value("i", TensorProto.INT64, []), _value("go", TensorProto.BOOL, []), _value("h", TensorProto.FLOAT, None)],
        [_value("go_on", TensorProto.BOOL, []), _value("h_next", TensorProto.FLOAT, None)],
    )
    row = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["x", "axis"], ["x_row"]),
            helper.make_node("MatMul", ["x_row", "v"], ["h_first"]),
            helper.make_node("Loop", ["count", "", "h_first"], ["h_last"], body=step),
            helper.make_node("ReduceMean", ["h_last"], ["mean"], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "axis"], ["y"]),
        ],
        "row",
        [_value("x", TensorProto.FLOAT, [FEATURES])],
        [_value("y", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [helper.make_node("Scan", [INPUT], ["score"], body=row, num_scan_inputs=1)],
        "padded",
        [_value(INPUT, TensorProto.FLOAT, ["n", FEATURES])],
        [_value("score", TensorProto.FLOAT, ["n", 1])],
        [v, w, count, axis],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    onnx.checker.check_model(model)
    return data


def _value(name: str, type_: int, shape: Any) -> Any:
    return helper.make_tensor_value_info(name, type_, shape)


def _session(data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _row_us(data: bytes) -> float:
    """The time of a row in a batch: the best of several, which is what the machine can do."""
    session, matrix = _session(data), np.zeros((ROWS, FEATURES), np.float32)
    best = float("inf")
    for _ in range(40):
        began = time.perf_counter()
        session.run(None, {INPUT: matrix})
        best = min(best, time.perf_counter() - began)
    return best / ROWS * 1e6
