"""The tree kernel gives what LightGBM gives, on random models and hostile values."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest

from flyball.kernel.errors import InvalidError
from flyball.serving import trees
from flyball.serving.trees.ensemble import CATEGORICAL

CLASSES = 3
OBJECTIVES: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary", "sigmoid": 0.7},
    "multiclass": {"objective": "multiclass", "num_class": CLASSES},
    "multiclassova": {"objective": "multiclassova", "num_class": CLASSES},
    "regression": {"objective": "regression"},
    "regression_sqrt": {"objective": "regression", "reg_sqrt": True},
    "regression_l1": {"objective": "regression_l1"},
    "huber": {"objective": "huber"},
    "poisson": {"objective": "poisson"},
    "tweedie": {"objective": "tweedie"},
    "gamma": {"objective": "gamma"},
    "quantile": {"objective": "quantile"},
    "cross_entropy": {"objective": "cross_entropy"},
    "cross_entropy_lambda": {"objective": "cross_entropy_lambda"},
    "forest": {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "dart": {"objective": "binary", "boosting": "dart"},
}
MISSING: dict[str, dict[str, Any]] = {
    "nan": {},
    "zero": {"zero_as_missing": True},
    "none": {"use_missing": False},
}


def hostile(random: np.random.Generator, rows: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Six columns: plain, with NaN, with zeros of both signs and tiny numbers, small integers, two categorical ones."""
    x = random.normal(size=(rows, 6))
    x[random.random(rows) < 0.3, 1] = np.nan
    x[:, 2] = random.choice([0.0, -0.0, 1e-36, -1e-36, 1e-34, np.nan, 1.0, -2.0], size=rows)
    x[:, 3] = random.integers(-3, 3, size=rows)
    x[:, 4] = random.integers(0, 5, size=rows)
    x[:, 5] = random.integers(0, 70, size=rows)
    return x


def train(parameters: dict[str, Any], seed: int, *, rounds: int = 12) -> Any:
    random = np.random.default_rng(seed)
    x = hostile(random, 600)
    signal = np.nan_to_num(x[:, 1]) + x[:, 3] + np.isin(x[:, 4], (1, 3)) + (x[:, 5] % 7 < 3) + np.isnan(x[:, 2])
    kind = parameters["objective"]
    if kind == "binary":
        y = (signal > 0.5).astype(float)
    elif kind.startswith("multiclass"):
        y = np.digitize(signal, [0.0, 1.5]).astype(float)
    elif kind.startswith("cross"):
        y = 1 / (1 + np.exp(-signal))
    else:
        y = np.exp(signal / 4)
    base: dict[str, Any] = {"verbosity": -1, "num_leaves": 15, "min_data_in_leaf": 5, "seed": seed, "num_threads": 1}
    base |= {"min_data_per_group": 3, "cat_smooth": 1.0, "max_cat_to_onehot": 4, "deterministic": True}
    data = lightgbm.Dataset(x, y, categorical_feature=[4, 5], free_raw_data=False)
    return lightgbm.train(base | parameters, data, num_boost_round=rounds)


def probes(seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    x = hostile(np.random.default_rng(seed), 400)
    strange = [np.nan, np.inf, -np.inf, -0.5, -1.0, 0.9, 4.7, 69.9, 1e9, 3e9, -3e9, 1e300]
    for column in range(x.shape[1]):
        x[column * 20 : column * 20 + len(strange), column] = strange
    return x


def agree(booster: Any, x: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    model = trees.parse(booster.model_to_string())
    raw = booster.predict(x, raw_score=True)
    np.testing.assert_array_equal(model.leaves(x), booster.predict(x, pred_leaf=True).reshape(len(x), -1))
    np.testing.assert_allclose(model.raw(x), raw.reshape(len(x), -1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.predict(x), booster.predict(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_scores_as_lightgbm_does(objective: str) -> None:
    agree(train(OBJECTIVES[objective], seed=1), probes(2))


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("seed", [3, 4])
def test_missing_values_of_every_kind_go_the_same_way(missing: str, seed: int) -> None:
    agree(train({"objective": "binary", **MISSING[missing]}, seed), probes(seed + 10))


def test_a_value_at_a_threshold_goes_left_and_the_next_double_right() -> None:
    booster = train({"objective": "regression"}, seed=5)
    model = trees.parse(booster.model_to_string())
    nodes = model.ensemble.nodes
    numerical = (nodes.decision & CATEGORICAL) == 0
    at = nodes.threshold[numerical]
    x = np.repeat(hostile(np.random.default_rng(6), 1), 3 * len(at), axis=0)
    for i, (feature, value) in enumerate(zip(nodes.feature[numerical], at, strict=True)):
        x[3 * i : 3 * i + 3, feature] = np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)
    agree(booster, x)


def test_trees_of_one_leaf_and_models_without_trees_are_scored() -> None:
    x = hostile(np.random.default_rng(7), 50)
    constant = lightgbm.train(
        {"objective": "regression", "verbosity": -1}, lightgbm.Dataset(x, np.full(50, 2.5)), num_boost_round=2
    )
    agree(constant, x)


def test_a_model_saved_by_its_best_iteration_is_cut_there() -> None:
    booster = train({"objective": "binary"}, seed=8)
    model = trees.parse(booster.model_to_string(num_iteration=5))
    x = probes(9)
    expected = np.asarray(booster.predict(x, num_iteration=5))
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-12)


def test_categories_of_a_data_frame_are_scored_by_their_codes() -> None:
    import pandas as pd

    random = np.random.default_rng(10)
    frame = pd.DataFrame({"a": random.normal(size=300), "c": pd.Categorical(random.choice(["x", "y", "z"], 300))})
    y = ((frame["c"] == "y") | (frame["a"] > 1)).astype(float)
    booster = lightgbm.train({"objective": "binary", "verbosity": -1}, lightgbm.Dataset(frame, y), num_boost_round=5)
    matrix = np.column_stack([frame["a"], frame["c"].cat.codes]).astype(float)
    model = trees.parse(booster.model_to_string())
    assert model.features == ("a", "c")
    np.testing.assert_allclose(model.predict(matrix), np.asarray(booster.predict(frame)), rtol=1e-12)


def test_what_the_kernel_cannot_score_is_refused_by_name() -> None:
    linear = train({"objective": "regression", "linear_tree": True}, seed=11)
    with pytest.raises(InvalidError, match="linear leaves"):
        trees.parse(linear.model_to_string())
    plain = train({"objective": "binary"}, seed=11).model_to_string()
    with pytest.raises(InvalidError, match="'poisoned'"):
        trees.parse(plain.replace("objective=binary", "objective=poisoned"))


@pytest.mark.parametrize("text", ["", "hello", "tree\nmax_feature_idx=0\n\nTree=0\nnum_leaves=2\nleaf_value=1 2\n"])
def test_what_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        trees.parse(text)
    assert caught.value.code == "bad_tree_model"


@pytest.mark.parametrize("damage", [("right_child=", "right_child=0 "), ("split_feature=", "split_feature=99 ")])
def test_a_damaged_model_cannot_lead_the_kernel_astray(damage: tuple[str, str]) -> None:
    text = train({"objective": "binary"}, seed=12, rounds=1).model_to_string()
    line = next(line for line in text.splitlines() if line.startswith(damage[0]))
    broken = damage[1] + " ".join(line.partition("=")[2].split()[1:])
    with pytest.raises(InvalidError) as caught:
        trees.parse(text.replace(line, broken))
    assert caught.value.code == "bad_tree_model"


def test_a_matrix_of_the_wrong_width_is_refused() -> None:
    model = trees.parse(train({"objective": "binary"}, seed=13, rounds=1).model_to_string())
    with pytest.raises(InvalidError, match="6 features"):
        model.predict(np.zeros((2, 5)))


def test_the_warmed_kernel_is_ready() -> None:
    trees.warm()
    assert trees.predict_text(train({"objective": "binary"}, 14, rounds=1).model_to_string(), probes(1)).shape == (400,)
