"""LightGBM: a booster or an estimator becomes its text model. The library itself is not imported here."""

from __future__ import annotations

from typing import Any

from flyball.kernel.errors import InvalidError
from flyball.registry.package import Inputs, Packed, check_classes, check_features
from flyball.registry.ports import Matrix, Score

FILE = "model.txt"


def pack(model: Any, inputs: Inputs) -> Packed | None:
    """None where the model is not LightGBM's."""
    if not type(model).__module__.startswith("lightgbm."):
        return None
    booster = model
    if hasattr(type(model), "booster_"):  # an estimator
        if not hasattr(model, "booster_"):
            name = type(model).__name__
            raise InvalidError(f"{name} is not fitted", code="bad_model", hint="call fit before run.package")
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
    )


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
