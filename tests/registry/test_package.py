"""Packing models of real libraries; what is refused says what is possible."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyball.kernel.errors import FlyballError, InvalidError, UnavailableError
from flyball.registry.package import pack
from flyball.registry.ports import Matrix
from tests.registry.models import ROWS, LightgbmKernel, booster, frame, inputs, pipeline


@pytest.mark.parametrize(
    ("objective", "task"), [("binary", "binary"), ("multiclass", "multiclass"), ("regression", "regression")]
)
def test_a_booster_becomes_text_for_the_tree_kernel(objective: str, task: str) -> None:
    model = booster(objective)
    packed = pack(model, inputs(task, LightgbmKernel))
    np.testing.assert_array_equal(packed.predict(ROWS.X), model.predict(ROWS.X))
    verified = packed.verified(ROWS.X)
    assert verified.runtime == packed.runtime | {"max_difference": 0.0, "tolerance": 1e-6}
    assert verified.kind == "trees"
    assert verified.files["model.txt"].startswith(b"tree\n")


def test_an_estimator_of_lightgbm_on_pandas_with_its_categories() -> None:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(frame(), ROWS.y)
    packed = pack(model, inputs(trees=LightgbmKernel)).verified(ROWS.X)
    assert packed.kind == "trees"
    np.testing.assert_array_equal(packed.predict(ROWS.X), np.asarray(model.predict_proba(frame()))[:, 1])
    other = frame().assign(payment=frame()["payment"].cat.reorder_categories(["other", "card", "cash"]))
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(other, ROWS.y)
    with pytest.raises(InvalidError, match="other categories"):
        pack(model, inputs())


def test_a_kernel_that_disagrees_or_fails_is_not_chosen() -> None:
    class Off(LightgbmKernel):
        def predict(self, matrix: Matrix) -> Matrix:
            return super().predict(matrix) + 1e-3

    class Strays(LightgbmKernel):
        def leaves(self, matrix: Matrix) -> Any:
            return super().leaves(matrix) + 1

    def refuses(format: str, data: bytes) -> LightgbmKernel:
        raise ValueError("linear leaves")

    packed = pack(booster(), inputs(trees=Off)).verified(ROWS.X)
    assert packed.kind == "process"
    assert packed.runtime["format"] == "lightgbm"
    assert packed.runtime["max_difference"] == pytest.approx(1e-3)
    strayed = pack(booster(), inputs(trees=Strays)).verified(ROWS.X)
    assert (strayed.kind, strayed.runtime["max_difference"]) == ("process", 0.0)
    assert "other leaves" in strayed.runtime["reason"]
    refused = pack(booster(), inputs(trees=refuses)).verified(ROWS.X)
    assert (refused.kind, refused.runtime["max_difference"]) == ("process", None)
    assert "linear leaves" in refused.runtime["reason"]


def test_a_pipeline_on_names_becomes_skops_and_asks_for_a_frame() -> None:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    model = pipeline(LogisticRegression())
    packed = pack(model, inputs())
    assert packed.kind == "process"
    assert packed.runtime["input"] == "frame"
    assert packed.runtime["columns"] == ["fare", "payment", "usual"]
    expected = model.predict_proba(frame())[:, 1]
    np.testing.assert_array_equal(packed.predict(ROWS.X), expected)
    again = skops.io.loads(packed.files["model.skops"], trusted=packed.runtime["trusted"])
    np.testing.assert_array_equal(again.predict_proba(frame())[:, 1], expected)


def test_equal_estimators_give_equal_bytes() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    def make() -> bytes:
        model = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(ROWS.X, ROWS.y)
        return pack(model, inputs()).files["model.skops"]

    first = make()
    clutter = [object() for _ in range(1000)]  # other addresses in memory
    assert make() == first
    del clutter


def test_estimators_for_the_other_tasks() -> None:
    from sklearn.linear_model import LinearRegression, LogisticRegression

    X = np.nan_to_num(ROWS.X)
    regression = pack(LinearRegression().fit(X, X[:, 0] * 2), inputs("regression"))
    np.testing.assert_allclose(regression.predict(X), X[:, 0] * 2)
    classes = pack(LogisticRegression(max_iter=2000).fit(X, np.arange(len(X)) % 3), inputs("multiclass"))
    assert classes.predict(X).shape == (len(X), 3)


def own_function(values: Matrix) -> Matrix:
    return values


def test_what_cannot_be_packed_is_refused_with_what_is_possible(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.svm import LinearSVC

    X = np.nan_to_num(ROWS.X)
    few = ROWS.y.copy()
    few[:] = 1
    few[0] = 2
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    cases: list[tuple[Any, str]] = [
        (None, "None"),
        ({"weights": 1}, "dict cannot be packaged"),
        (tmp_path / "model.pkl", "'model.pkl' cannot be packaged"),
        (pickle.dumps({"a": 1}), "bytes cannot be packaged"),
        (LogisticRegression(), "not fitted"),
        (LinearSVC().fit(X, ROWS.y), "no probabilities"),
        (LogisticRegression().fit(X[:, :2], ROWS.y), "trained on 2 columns"),
        (LogisticRegression().fit(X, few), "classes"),
        (make_pipeline(FunctionTransformer(own_function), LogisticRegression()).fit(X, ROWS.y), "own_function"),
    ]
    for model, message in cases:
        with pytest.raises(InvalidError, match=message):
            pack(model, inputs())


def test_a_booster_that_does_not_fit_is_refused() -> None:
    import lightgbm

    params = {"verbose": -1, "objective": "binary"}
    two = lightgbm.train(params, lightgbm.Dataset(ROWS.X[:, :2], ROWS.y), 2)
    named = lightgbm.train(params, lightgbm.Dataset(ROWS.X, ROWS.y, feature_name=["usual", "fare", "payment"]), 2)
    for model in (two, named, lightgbm.LGBMClassifier()):
        with pytest.raises(FlyballError):
            pack(model, inputs())


def test_scores_that_are_no_probabilities_are_refused() -> None:
    packed = pack(booster("regression"), inputs("binary"))
    packed.predict(ROWS.X)  # a regression on 0 and 1 happens to stay within
    wide = booster("regression_l1", boost_from_average=False, learning_rate=5.0)
    with pytest.raises(InvalidError) as caught:
        pack(wide, inputs("binary")).predict(ROWS.X * 100)
    assert caught.value.code == "bad_scores"


def test_a_multi_class_model_for_a_binary_task_is_refused() -> None:
    with pytest.raises(InvalidError, match="shape"):
        pack(booster("multiclass"), inputs("binary")).predict(ROWS.X)


def test_without_onnxruntime_an_onnx_model_is_named_with_what_to_install(tmp_path: Path) -> None:
    from tests.registry.test_graphs import linear

    (tmp_path / "m.onnx").write_bytes(linear(3).SerializeToString())
    with pytest.raises(UnavailableError, match="onnxruntime"):
        pack(tmp_path / "m.onnx", inputs())
