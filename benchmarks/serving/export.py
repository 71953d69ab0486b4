"""The LightGBM model as ONNX, without its output of labels; checked against LightGBM. Runs in an environment of its
own, with the exporter."""

from __future__ import annotations

import json

import lightgbm
import numpy as np
import onnx
import onnxruntime
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from benchmarks.serving.files import FEATURES, INPUT, MODEL, ONNX

TOLERANCE = 1e-5
OPSET = 15


def main() -> None:
    booster = lightgbm.Booster(model_file=MODEL)
    types = [(INPUT, FloatTensorType([None, FEATURES]))]
    model = convert_lightgbm(booster, initial_types=types, zipmap=False, target_opset=OPSET)
    del model.graph.output[0]  # the labels; the node that makes them makes the probabilities too
    (output,) = model.graph.output
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = np.round(np.random.default_rng(5).normal(size=(10_000, FEATURES)), 3)
    found = session.run([output.name], {INPUT: rows.astype(np.float32)})[0][:, 1]
    worst = float(np.abs(found - booster.predict(rows)).max())
    if worst > TOLERANCE:
        raise SystemExit(f"the ONNX model differs from LightGBM by {worst:.2g}")
    onnx.save(model, ONNX)
    print(json.dumps({"worst_difference": worst}))


if __name__ == "__main__":
    main()
