"""A model file served by itself, whatever library saved it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flyball.engines.runtimes import open_runtime
from flyball.kernel.errors import InvalidError, NotFoundError
from flyball.kernel.layout import Layout
from flyball.serving import trees
from flyball.serving.versions import load_version
from flyball.worker import prepare_model
from tests.serving.onnx_models import affine
from tests.serving.support import booster_text


def xgboost_json() -> bytes:
    xgboost = pytest.importorskip("xgboost")
    x = np.random.default_rng(0).normal(size=(100, 2))
    data = xgboost.DMatrix(x, np.arange(100) % 3)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, data, 2)
    return bytes(booster.save_raw("json"))


def test_a_file_of_any_library_is_served_by_its_suffix(tmp_path: Path) -> None:
    files = {"a.onnx": affine(), "b.txt": booster_text().encode(), "c.JSON": xgboost_json()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        prepared = prepare_model(tmp_path / name, tmp_path / f"state-{name}")
        again = prepare_model(tmp_path / name, tmp_path / f"state-{name}")
        assert prepared.plan == again.plan
        ((digest,),) = [[v["digest"] for v in prepared.plan["versions"].values()]]
        folder = Layout(tmp_path / f"state-{name}").artifacts / "versions" / digest
        loaded = load_version(folder, digest, open_runtime)
        assert loaded.runtime is not None
        (tensor,) = prepared.example["inputs"]
        kind = {"FP32": np.float32, "FP64": np.float64}[tensor["datatype"]]
        given = np.array(tensor["data"], dtype=kind).reshape(tensor["shape"])
        answer = loaded.runtime.infer({tensor["name"]: given})
        if name != "a.onnx":
            model = trees.open_model("lightgbm" if name == "b.txt" else "xgboost", data)
            np.testing.assert_array_equal(answer["score"], model.predict(given.astype(np.float64)))


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("model.pkl", "bad_model_file", "none of .onnx, .txt, .json"),
        ("model.txt", "bad_tree_model", "not a LightGBM model in text format"),
        ("model.json", "bad_tree_model", "XGBoost saved as JSON"),
        ("model.onnx", "bad_onnx", "cannot load"),
    ],
)
def test_a_file_that_is_no_model_says_what_is_right(tmp_path: Path, name: str, code: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(InvalidError, match=message) as caught:
        prepare_model(tmp_path / name, tmp_path / "state")
    assert caught.value.code == code


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.txt"):
        prepare_model(tmp_path / "none.txt", tmp_path / "state")
