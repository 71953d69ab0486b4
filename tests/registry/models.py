"""Small data and models for tests of packages."""

from __future__ import annotations

from typing import Any

import numpy as np

from flyball.define.spec import TaskSpec
from flyball.registry.package import Inputs
from flyball.registry.ports import Matrix, TreeVerifier
from flyball.training.dataset import matrix_to_pandas
from tests.training.conftest import make_rows

FEATURES = ("fare", "payment", "usual")
CATEGORIES = {"payment": ("cash", "card", "other")}
ROWS = make_rows(300)


def inputs(task: str = "binary", trees: TreeVerifier | None = None, **options: Any) -> Inputs:
    classes = ("a", "b", "c") if task == "multiclass" else ()
    return Inputs(
        task=TaskSpec(kind=task, classes=classes),  # type: ignore[arg-type]
        features=FEATURES,
        categories=CATEGORIES,
        to_frame=lambda matrix: matrix_to_pandas(matrix, FEATURES, CATEGORIES),
        trees=trees,
        **options,
    )


def lightgbm_text(text: str, matrix: Matrix) -> Matrix:
    """What LightGBM itself gives, from a text alone."""
    import lightgbm

    return np.asarray(lightgbm.Booster(model_str=text).predict(matrix), dtype=np.float64)


class LightgbmKernel:
    """Stands in for the tree kernel: LightGBM itself, from the file alone."""

    def __init__(self, format: str, data: bytes) -> None:
        import lightgbm

        assert format == "lightgbm"
        self._booster = lightgbm.Booster(model_str=data.decode())

    def predict(self, matrix: Matrix) -> Matrix:
        return np.asarray(self._booster.predict(matrix), dtype=np.float64)

    def leaves(self, matrix: Matrix) -> Any:
        return np.asarray(self._booster.predict(matrix, pred_leaf=True)).reshape(len(matrix), -1)


def frame() -> Any:
    return matrix_to_pandas(ROWS.X, FEATURES, CATEGORIES)


def booster(objective: str = "binary", **params: Any) -> Any:
    import lightgbm

    y = np.arange(len(ROWS.y)) % 3 if objective == "multiclass" else ROWS.y
    settings = {"objective": objective, "verbose": -1, "num_leaves": 7, "deterministic": True, "num_threads": 1}
    settings |= {"num_class": 3} if objective == "multiclass" else {}
    data = lightgbm.Dataset(ROWS.X, y, categorical_feature=[1])
    return lightgbm.train(settings | params, data, num_boost_round=5)


def pipeline(model: Any) -> Any:
    """What a scikit-learn user writes: columns by name, categories as text."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    columns = ColumnTransformer(
        [("numbers", SimpleImputer(), ["fare", "usual"]), ("payment", OneHotEncoder(), ["payment"])]
    )
    return make_pipeline(columns, model).fit(frame(), ROWS.y)
