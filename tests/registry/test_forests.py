"""scikit-learn's ensembles of trees on the tree kernel: scores and leaves of the original, from arrays."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from sklearn import ensemble, tree

from flyball.kernel.errors import InvalidError
from flyball.registry import forests
from flyball.registry.package import Packed, pack
from flyball.serving.trees import forest_arrays, open_model
from tests.registry.models import ROWS, frame, inputs

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(500, 3))
X[:, 1] = RANDOM.integers(0, 6, size=500)
X[:, 2] = RANDOM.choice([0.0, -0.0, 1e-45, 0.1, float(np.float32(0.1)), 1.0, 1e30], size=500)
GAPS = np.where(RANDOM.random(X.shape) < 0.1, np.nan, X)
SIGNAL = X[:, 0] + np.isin(X[:, 1], (1, 4)) + (X[:, 2] > 0.1)
TARGETS = {
    "binary": (SIGNAL > 0.5).astype(int),
    "multiclass": np.digitize(SIGNAL, [0, 1]),
    "regression": np.exp(SIGNAL),
}
MODELS: list[tuple[str, dict[str, Any], bool]] = [
    ("RandomForest", {"n_estimators": 8, "random_state": 0}, True),
    ("ExtraTrees", {"n_estimators": 8, "random_state": 0}, True),
    ("DecisionTree", {"random_state": 0}, True),
    ("DecisionTree", {"max_leaf_nodes": 9, "random_state": 0}, True),
    ("ExtraTree", {"random_state": 0}, False),
    ("GradientBoosting", {"n_estimators": 8, "random_state": 0}, False),
    ("GradientBoosting", {"n_estimators": 8, "init": "zero", "random_state": 0}, False),
    ("HistGradientBoosting", {"max_iter": 8}, True),
    ("HistGradientBoosting", {"max_iter": 8, "categorical_features": [1]}, True),
]


def made(name: str, task: str, settings: dict[str, Any]) -> Any:
    kind = name + ("Regressor" if task == "regression" else "Classifier")
    return getattr(ensemble, kind, None) or getattr(tree, kind), settings


def verified(model: Any, task: str, x: Any) -> Packed:
    model.fit(x, TARGETS[task])
    probes = x.copy()
    probes[:6, 0] = [1e30, -1e30, 1e-46, -0.0, 0.1, np.nextafter(0.1, 1)]
    probes[:6, 1] = [-1.0, 7.0, 0.5, 5.0, 4.0, 254.0]
    return pack(model, inputs(task, open_model)).verified(probes)


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize(("name", "settings", "gaps"), MODELS)
def test_a_forest_scores_on_the_kernel_as_scikit_learn_does(
    name: str, settings: dict[str, Any], gaps: bool, task: str
) -> None:
    kind, settings = made(name, task, settings)
    for x in (X, GAPS) if gaps else (X,):
        packed = verified(kind(**settings), task, x)
        assert packed.kind == "trees", packed.runtime.get("reason")
        assert packed.runtime["max_difference"] < 1e-12
        assert packed.files.keys() == {"model.npz"}


@pytest.mark.parametrize("loss", ["poisson", "gamma", "absolute_error"])
def test_losses_of_histogram_boosting_have_their_links(loss: str) -> None:
    assert verified(ensemble.HistGradientBoostingRegressor(max_iter=5, loss=loss), "regression", GAPS).kind == "trees"


def test_exponential_loss_has_twice_the_slope() -> None:
    model = ensemble.GradientBoostingClassifier(n_estimators=5, loss="exponential", random_state=0)
    assert verified(model, "binary", X).kind == "trees"


def test_an_estimator_on_names_takes_its_columns_out_of_the_matrix() -> None:
    model = ensemble.HistGradientBoostingClassifier(max_iter=5).fit(frame()[["usual", "fare"]], ROWS.y)
    packed = pack(model, inputs(trees=open_model)).verified(ROWS.X)
    assert packed.kind == "trees", packed.runtime.get("reason")
    np.testing.assert_allclose(
        open_model("flyball.forest", packed.files["model.npz"]).predict(ROWS.X), packed.predict(ROWS.X), rtol=1e-12
    )


def test_categories_of_a_frame_are_scored_by_their_codes() -> None:
    model = ensemble.HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype", min_samples_leaf=5)
    packed = pack(model.fit(frame(), ROWS.y), inputs(trees=open_model)).verified(ROWS.X)
    assert packed.kind == "trees", packed.runtime.get("reason")


def test_an_estimator_that_refuses_missing_values_still_does() -> None:
    packed = verified(ensemble.GradientBoostingClassifier(n_estimators=2, random_state=0), "binary", X)
    with pytest.raises(InvalidError) as caught:
        open_model("flyball.forest", packed.files["model.npz"]).predict(np.full((1, 3), np.nan))
    assert caught.value.code == "missing_value"


def test_what_the_format_does_not_hold_is_served_by_its_library_and_says_why() -> None:
    first = tree.DecisionTreeRegressor(max_depth=2, random_state=0)
    packed = verified(ensemble.GradientBoostingRegressor(n_estimators=2, init=first), "regression", X)
    assert (packed.kind, packed.runtime["format"]) == ("process", "skops")
    assert "DecisionTreeRegressor" in packed.runtime["reason"]


def test_a_kernel_that_disagrees_gives_way_to_the_library() -> None:
    class Off:
        def __init__(self, format: str, data: bytes) -> None:
            self._model = open_model(format, data)
            self.leaves = self._model.leaves

        def predict(self, matrix: Any) -> Any:
            return self._model.predict(matrix) + 1e-3

    model = ensemble.RandomForestClassifier(n_estimators=3, random_state=0).fit(X, TARGETS["binary"])
    packed = pack(model, inputs(trees=Off)).verified(X)
    assert (packed.kind, packed.runtime["format"]) == ("process", "skops")
    assert packed.runtime["max_difference"] == pytest.approx(1e-3)
    assert "differs" in packed.runtime["reason"]


def test_equal_estimators_give_equal_bytes() -> None:
    def packed() -> bytes:
        model = ensemble.RandomForestClassifier(n_estimators=3, random_state=0).fit(X, TARGETS["binary"])
        return pack(model, inputs(trees=open_model)).files["model.npz"]

    assert packed() == packed()


def test_a_class_of_ones_own_is_no_forest() -> None:
    class Own(ensemble.RandomForestClassifier):  # type: ignore[misc]
        pass

    assert forests.is_forest(ensemble.RandomForestClassifier())
    assert not forests.is_forest(Own())


def rewritten(**changes: Any) -> bytes:
    model = ensemble.RandomForestClassifier(n_estimators=2, random_state=0).fit(X, TARGETS["binary"])
    data = pack(model, inputs(trees=open_model)).files["model.npz"]
    with np.load(io.BytesIO(data)) as file:
        arrays = {name: file[name] for name in file.files}
    document = json.loads(arrays["document"].tobytes()) | changes.pop("document", {})
    arrays |= {"document": np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)} | changes
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"document": {"version": 2}}, "tree_unsupported"),
        ({"document": {"link": "cauchit"}}, "tree_unsupported"),
        ({"document": {"comparison": "float16"}}, "tree_unsupported"),
        ({"document": {"format": "other"}}, "bad_tree_model"),
        ({"document": {"divisor": 0}}, "bad_tree_model"),
        ({"document": {"features": ["a"]}}, "bad_tree_model"),
        ({"document": {"classes": 3}}, "bad_tree_model"),
        ({"left": np.zeros(3, dtype=np.int32)}, "bad_tree_model"),
        ({"tree_start": np.array([0, 10**9])}, "bad_tree_model"),
        ({"tree_start": np.array([5, 2, 9])}, "bad_tree_model"),
        ({"set_node": np.array([10**9]), "set_start": np.array([0, 0])}, "bad_tree_model"),
        ({"value": np.array([{}], dtype=object)}, "bad_tree_model"),
    ],
)
def test_a_damaged_file_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidError) as caught:
        forest_arrays.read(rewritten(**changes))
    assert caught.value.code == code


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + b"\0" * 18, b"hello", b"\x93NUMPY"])
def test_what_is_no_file_of_arrays_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidError) as caught:
        forest_arrays.read(data)
    assert caught.value.code == "bad_tree_model"
