"""A LightGBM text model as ONNX: `python export_trees.py MODEL.txt MODEL.onnx`. Runs in the environment of `trees`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = lightgbm.Booster(model_file=sys.argv[1])
    given = [("input", FloatTensorType([None, booster.num_feature()]))]
    graph = onnxmltools.convert_lightgbm(booster, initial_types=given, zipmap=False)
    Path(sys.argv[2]).write_bytes(graph.SerializeToString())


if __name__ == "__main__":
    main()
