"""LightGBM and XGBoost: a booster or an estimator becomes its library's own file, text or JSON, for the tree kernel.

The libraries themselves are not imported here.
"""

from __future__ import annotations

import itertools
import json
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np

from flyball.kernel.errors import InvalidError
from flyball.registry.package import Inputs, Packed, check_classes, check_features
from flyball.registry.ports import Matrix, Score

FILE = "model.txt"
XGBOOST_FILE = "model.json"


def pack(model: Any, inputs: Inputs) -> Packed | None:
    """None where the model is neither LightGBM's nor XGBoost's."""
    if type(model).__module__.startswith("lightgbm."):
        return _lightgbm(model, inputs)
    if type(model).__module__.startswith("xgboost."):
        return _xgboost(model, inputs)
    return None


def _lightgbm(model: Any, inputs: Inputs) -> Packed | None:
    booster = model
    if hasattr(type(model), "booster_"):  # an estimator
        if not hasattr(model, "booster_"):
            raise _unfitted(model)
        if inputs.task.kind != "regression" and hasattr(model, "classes_"):
            check_classes(model.classes_, inputs)
        booster = model.booster_
    if not hasattr(booster, "model_to_string"):
        return None
    _check(booster, inputs)
    text: str = booster.model_to_string()

    def score(matrix: Matrix) -> Score:
        result: Score = booster.predict(matrix)
        return result

    return Packed(
        runtime={"kind": "trees", "format": "lightgbm", "file": FILE, "input": "matrix"},
        files={FILE: text.encode()},
        libraries=("lightgbm",),
        inputs=inputs,
        score=score,
        leaves=lambda matrix: np.asarray(booster.predict(matrix, pred_leaf=True)).reshape(len(matrix), -1),
    )


def _xgboost(model: Any, inputs: Inputs) -> Packed | None:
    booster = model
    if hasattr(model, "get_booster"):  # an estimator, which predicts up to its best iteration
        if not model.__sklearn_is_fitted__():
            raise _unfitted(model)
        if inputs.task.kind != "regression" and hasattr(model, "classes_"):
            check_classes(model.classes_, inputs)
        booster = model.get_booster()
        best = booster.attr("best_iteration")
        if best is not None:
            booster = booster[: int(best) + 1]
    if not hasattr(booster, "save_raw"):
        return None
    data = bytes(booster.save_raw("json"))
    names = booster.feature_names
    check_features(booster.num_features(), None if names is None else list(names), inputs)
    _check_encoding(json.loads(data), inputs)

    def given(matrix: Matrix) -> Any:
        library: Any = sys.modules["xgboost"]  # the booster came of it
        return library.DMatrix(
            matrix, feature_names=names, feature_types=booster.feature_types, enable_categorical=True, nthread=1
        )

    def score(matrix: Matrix) -> Score:
        return np.asarray(booster.predict(given(matrix)), dtype=np.float64)

    return Packed(
        runtime={"kind": "trees", "format": "xgboost", "file": XGBOOST_FILE, "input": "matrix"},
        files={XGBOOST_FILE: data},
        libraries=(_distribution(),),
        inputs=inputs,
        score=score,
        leaves=lambda matrix: np.asarray(booster.predict(given(matrix), pred_leaf=True)).reshape(len(matrix), -1),
    )


def _distribution() -> str:
    """The name that XGBoost is installed by: one of the two has no code for GPUs."""
    for name in ("xgboost-cpu", "xgboost"):
        with suppress(PackageNotFoundError):
            return distribution(name).name
    return "xgboost"


def _check_encoding(document: Any, inputs: Inputs) -> None:
    """Refuse a booster that was trained on a frame with categories in another order than the declared codes."""
    booster = document["learner"]["gradient_booster"]
    seen = booster.get("gbtree", booster).get("model", {}).get("cats", {}).get("enc", [])
    orders = [_labels(one) for one in seen if one and one.get("offsets")]
    declared = [list(values) for values in inputs.categories.values()]
    if orders and orders != declared:
        raise InvalidError(
            f"the booster was trained on other categories than are declared for {', '.join(inputs.categories)}",
            code="bad_signature",
            hint="train on data.train.to_pandas() as it is, or on data.train.X",
        )


def _labels(encoding: dict[str, Any]) -> list[str]:
    text = bytes(value & 255 for value in encoding["values"])
    offsets = encoding["offsets"]
    return [text[start:end].decode() for start, end in itertools.pairwise(offsets)]


def _unfitted(model: Any) -> InvalidError:
    return InvalidError(f"{type(model).__name__} is not fitted", code="bad_model", hint="call fit before run.package")


def _check(booster: Any, inputs: Inputs) -> None:
    names = list(booster.feature_name())
    unnamed = all(name.startswith("Column_") for name in names)
    expected = [name.replace(" ", "_") for name in inputs.features]  # as LightGBM spells them
    check_features(booster.num_feature(), None if unnamed or names == expected else names, inputs)
    seen = booster.pandas_categorical or []
    declared = [list(values) for values in inputs.categories.values()]
    if seen and [list(values) for values in seen] != declared:
        raise InvalidError(
            f"the booster was trained on other categories than are declared for {', '.join(inputs.categories)}",
            code="bad_signature",
            hint="train on data.train.to_pandas() as it is, or on data.train.X",
        )
