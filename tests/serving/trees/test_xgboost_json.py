"""The tree kernel gives what XGBoost gives: margins to the bit, the same leaves, on hostile values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from flyball.kernel.errors import InvalidError
from flyball.serving.trees import TreeModel, xgboost_json
from flyball.serving.trees.ensemble import CATEGORICAL

xgboost = pytest.importorskip("xgboost")

TYPES = ["q", "q", "q", "c", "c"]
OBJECTIVES: dict[str, dict[str, Any]] = {
    name: {"objective": name}
    for name in (
        "binary:logistic",
        "binary:logitraw",
        "binary:hinge",
        "reg:squarederror",
        "reg:squaredlogerror",
        "reg:logistic",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "reg:gamma",
        "reg:tweedie",
        "count:poisson",
        "survival:cox",
        "rank:ndcg",
        "rank:pairwise",
    )
}
OBJECTIVES |= {
    "multi:softprob": {"objective": "multi:softprob", "num_class": 3},
    "dart": {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.4},
    "forest": {"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.5},
    "quantiles": {"objective": "reg:quantileerror", "quantile_alpha": np.array([0.1, 0.5, 0.9])},
    "base": {"objective": "binary:logistic", "base_score": 0.2},
    "one-hot": {"objective": "reg:squarederror", "max_cat_to_onehot": 100},
    "deep": {"objective": "reg:squarederror", "max_depth": 12, "min_child_weight": 0, "lambda": 0},
    "exact": {"objective": "reg:squarederror", "tree_method": "approx"},
}


def hostile(seed: int, rows: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Five columns: plain, with NaN, with tiny numbers and zeros of both signs, and two of categories."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 5))
    x[random.random(rows) < 0.3, 1] = np.nan
    x[:, 2] = random.choice([0.0, -0.0, 1e-45, -1e-45, 1e-300, 1e-39, np.nan, 1.0, -2.0], size=rows)
    x[:, 3] = random.integers(0, 4, size=rows)
    x[:, 4] = random.integers(0, 70, size=rows)
    x[random.random(rows) < 0.1, 4] = np.nan
    return x


def matrix(x: np.ndarray[Any, np.dtype[np.float64]], y: Any = None) -> Any:
    return xgboost.DMatrix(x, y, feature_types=TYPES, enable_categorical=True, nthread=1)


def train(parameters: dict[str, Any], seed: int = 1, rounds: int = 8) -> Any:
    x = hostile(seed, 600)
    signal = np.nan_to_num(x[:, 0]) + np.isin(x[:, 3], (1, 3)) + (x[:, 4] % 7 < 3) + np.isnan(x[:, 1])
    kind = parameters["objective"]
    if kind.startswith("binary"):
        y = (signal > 1).astype(float)
    elif kind.startswith("multi"):
        y = np.digitize(signal, [0.5, 1.5]).astype(float)
    elif kind.startswith("rank"):
        y = np.clip(signal, 0, 3).astype(int).astype(float)
    else:
        y = 1 / (1 + np.exp(-signal)) if kind == "reg:logistic" else np.exp(signal / 4)
    base = {"nthread": 1, "seed": seed, "max_depth": 5, "max_cat_to_onehot": 2}
    return xgboost.train(base | parameters, matrix(x, y), rounds)


def probes(seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    x = hostile(seed, 300)
    strange = [np.nan, -0.5, -1.0, 0.9, 4.7, 2.9999999999, 69.9, 1e9, -3e9, 3e38, 1e-46, -1e-46, 16777217.0]
    for column in range(x.shape[1]):
        x[column * 20 : column * 20 + len(strange), column] = strange
    return x


def kernel(booster: Any) -> TreeModel:
    return TreeModel(xgboost_json.read(bytes(booster.save_raw("json")).decode()))


def agree(booster: Any, x: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    model, rows = kernel(booster), matrix(x)
    margin = booster.predict(rows, output_margin=True)
    np.testing.assert_array_equal(model.leaves(x), booster.predict(rows, pred_leaf=True).reshape(len(x), -1))
    # Weights of dropped trees are multiplied and added in one rounding or in two, as XGBoost's compiler chose.
    ulps = 4 if json.loads(booster.save_config())["learner"]["gradient_booster"]["name"] == "dart" else 0
    np.testing.assert_array_max_ulp(model.raw(x).astype(np.float32), margin.reshape(len(x), -1), ulps)
    np.testing.assert_allclose(model.predict(x), booster.predict(rows), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_scores_as_xgboost_does(name: str) -> None:
    agree(train(OBJECTIVES[name]), probes(2))


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_value_at_a_threshold_goes_right_and_what_rounds_below_it_left(seed: int) -> None:
    booster = train({"objective": "reg:squarederror"}, seed)
    x = np.repeat(hostile(seed + 10, 1), 400, axis=0)
    document = json.loads(bytes(booster.save_raw("json")))
    at = []
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        for feature, value, left, kind in zip(
            tree["split_indices"], tree["split_conditions"], tree["left_children"], tree["split_type"], strict=True
        ):
            if left >= 0 and not kind & CATEGORICAL:
                single = np.float32(value)
                below = (float(np.nextafter(single, np.float32(-np.inf))) + float(single)) / 2
                near = [float(single), below, np.nextafter(below, np.inf), np.nextafter(below, -np.inf)]
                at += [(feature, each) for each in near]
    for row, (feature, each) in enumerate(at[:400]):
        x[row, feature] = each
    agree(booster, x)


def test_a_booster_is_cut_at_the_iterations_that_it_was_sliced_to() -> None:
    booster = train({"objective": "binary:logistic"}, rounds=9)[:4]
    agree(booster, probes(6))
    assert kernel(booster).trees == 4


def test_what_the_kernel_cannot_score_is_refused_by_name() -> None:
    x = np.random.default_rng(7).normal(size=(50, 2))
    linear = xgboost.train({"booster": "gblinear", "nthread": 1}, xgboost.DMatrix(x, x[:, 0]), 2)
    with pytest.raises(InvalidError, match="gblinear") as caught:
        kernel(linear)
    assert caught.value.code == "tree_unsupported"
    text = bytes(train({"objective": "binary:logistic"}).save_raw("json")).decode()
    for objective in ("multi:softmax", "reg:poisoned"):
        with pytest.raises(InvalidError, match=objective):
            xgboost_json.read(text.replace("binary:logistic", objective))
    vectors = {"multi_strategy": "multi_output_tree", "tree_method": "hist", "nthread": 1}
    with pytest.raises(InvalidError, match="vector in each leaf"):
        kernel(xgboost.train(vectors, xgboost.DMatrix(x, x), 2))


def damage(**changes: Any) -> str:
    document = json.loads(bytes(train({"objective": "binary:logistic"}, rounds=2).save_raw("json")))
    document["learner"]["gradient_booster"]["model"]["trees"][1] |= changes
    return json.dumps(document)


@pytest.mark.parametrize(
    "changes",
    [
        {"left_children": [0, 1]},
        {"left_children": [1], "right_children": [1]},
        {"left_children": "x"},
        {"split_indices": [99] * 100},
        {"right_children": None},
        {"default_left": []},
        {"categories_nodes": [10**6]},
        {"split_conditions": [float("nan")]},
        {"categories": [-1] * 1000},
    ],
)
def test_a_damaged_tree_cannot_lead_the_kernel_astray(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as caught:
        xgboost_json.read(damage(**changes))
    assert caught.value.code == "bad_tree_model"


@pytest.mark.parametrize("text", ["", "hello", "[]", "{}", '{"learner": {}}', '{"learner": 3}'])
def test_what_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="XGBoost saved as JSON"):
        xgboost_json.read(text)
