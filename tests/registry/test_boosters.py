"""Boosters of XGBoost in packages: on the kernel where it agrees, with their own library where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flyball.kernel.errors import InvalidError
from flyball.registry.package import pack
from flyball.serving.trees import open_model
from tests.registry.models import FEATURES, ROWS, frame, inputs

xgboost = pytest.importorskip("xgboost")


def booster(objective: str, y: Any = ROWS.y, **parameters: Any) -> Any:
    types = ["q", "c", "q"]
    data = xgboost.DMatrix(ROWS.X, y, feature_types=types, feature_names=list(FEATURES), enable_categorical=True)
    return xgboost.train({"objective": objective, "nthread": 1, "max_depth": 4} | parameters, data, 5)


@pytest.mark.parametrize(
    ("objective", "task", "parameters"),
    [
        ("binary:logistic", "binary", {}),
        ("multi:softprob", "multiclass", {"num_class": 3}),
        ("count:poisson", "regression", {}),
        ("reg:squarederror", "regression", {"booster": "dart", "rate_drop": 0.5}),
    ],
)
def test_a_booster_becomes_json_for_the_tree_kernel(objective: str, task: str, parameters: dict[str, Any]) -> None:
    y = np.arange(len(ROWS.y)) % 3 if task == "multiclass" else ROWS.y
    packed = pack(booster(objective, y, **parameters), inputs(task, open_model)).verified(ROWS.X)
    assert packed.runtime["kind"] == "trees", packed.runtime.get("reason")
    assert (packed.runtime["format"], packed.runtime["file"]) == ("xgboost", "model.json")
    assert packed.libraries[0].startswith("xgboost")


def test_an_estimator_predicts_up_to_its_best_iteration() -> None:
    model = xgboost.XGBClassifier(n_estimators=40, early_stopping_rounds=2, enable_categorical=True, n_jobs=1)
    model.fit(frame(), ROWS.y, eval_set=[(frame()[:50], 1 - ROWS.y[:50])], verbose=False)
    packed = pack(model, inputs(trees=open_model)).verified(ROWS.X)
    assert packed.kind == "trees", packed.runtime.get("reason")
    np.testing.assert_allclose(packed.predict(ROWS.X), model.predict_proba(frame())[:, 1], rtol=1e-6)


def test_what_the_kernel_does_not_run_is_served_by_xgboost() -> None:
    linear = xgboost.train({"booster": "gblinear", "nthread": 1}, xgboost.DMatrix(np.nan_to_num(ROWS.X), ROWS.y), 2)
    packed = pack(linear, inputs("regression", open_model))
    packed = packed.verified(np.nan_to_num(ROWS.X))
    assert (packed.kind, packed.runtime["format"]) == ("process", "xgboost")
    assert "gblinear" in packed.runtime["reason"]


def test_a_booster_that_does_not_fit_is_refused() -> None:
    two = xgboost.train({"nthread": 1}, xgboost.DMatrix(ROWS.X[:, :2], ROWS.y), 2)
    other = frame().assign(payment=frame()["payment"].cat.reorder_categories(["other", "card", "cash"]))
    shuffled = xgboost.XGBClassifier(n_estimators=2, enable_categorical=True, n_jobs=1).fit(other, ROWS.y)
    for model, message in (
        (two, "trained on 2 columns"),
        (shuffled, "other categories"),
        (xgboost.XGBClassifier(), "not fitted"),
    ):
        with pytest.raises(InvalidError, match=message):
            pack(model, inputs())
