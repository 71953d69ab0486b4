"""scikit-learn's ensembles of trees as arrays that the tree kernel reads, so that serving them needs no library.

The format is `flyball.forest`, version 1, which `serving.trees.forest_arrays` documents and reads.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.registry.package import Inputs

FILE = "model.npz"
FORMAT = "flyball.forest"

_TREES = ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")
_FORESTS = ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")
_GRADIENT = ("GradientBoostingClassifier", "GradientBoostingRegressor")
_HISTOGRAM = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")

Longs = npt.NDArray[np.int64]


class Unfit(Exception):
    """The estimator does something that the format does not hold; the message says what."""


@dataclass(kw_only=True)
class Forest:
    """Trees on their way into a file. `columns`: the matrix's column of each of the estimator's features."""

    columns: Longs
    comparison: str
    link: str = "identity"
    scale: float = 1.0
    divisor: float = 1.0
    complete: bool = False
    base: list[float] = field(default_factory=lambda: [0.0])
    trees: list[dict[str, Any]] = field(default_factory=list)

    def add(self, adds_to: int, **arrays: Any) -> None:
        self.trees.append({"class": adds_to, **arrays})

    def to_bytes(self, features: Sequence[str]) -> bytes:
        """The file. Equal estimators give equal bytes."""
        document = {
            "format": FORMAT,
            "version": 1,
            "features": list(features),
            "classes": len(self.base),
            "comparison": self.comparison,
            "link": self.link,
            "scale": self.scale,
            "divisor": self.divisor,
            "complete": self.complete,
        }
        sizes = [len(tree["left"]) for tree in self.trees]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        sets = [
            (int(start) + node, words)
            for start, tree in zip(starts, self.trees, strict=False)
            for node, words in sorted(tree["sets"].items())
        ]
        file = io.BytesIO()
        np.savez_compressed(
            file,
            document=np.frombuffer(json.dumps(document, sort_keys=True).encode(), dtype=np.uint8),
            tree_start=starts,
            tree_class=np.array([tree["class"] for tree in self.trees], dtype=np.int32),
            base=np.array(self.base, dtype=np.float64),
            left=self._joined("left", np.int32),
            right=self._joined("right", np.int32),
            feature=self._joined("feature", np.int32),
            threshold=self._joined("threshold", np.float64),
            missing_left=self._joined("missing_left", np.bool_),
            members_right=self._joined("members_right", np.bool_),
            value=np.concatenate([tree["value"] for tree in self.trees]).astype(np.float64),
            set_node=np.array([node for node, _ in sets], dtype=np.int64),
            set_start=np.concatenate([[0], np.cumsum([len(words) for _, words in sets])]).astype(np.int64),
            set_words=np.concatenate([np.zeros(0, dtype=np.uint32), *(words for _, words in sets)]),
        )
        return file.getvalue()

    def _joined(self, name: str, kind: Any) -> npt.NDArray[Any]:
        return np.concatenate([np.asarray(tree[name]) for tree in self.trees]).astype(kind)


def is_forest(model: Any) -> bool:
    """Whether the estimator is one of scikit-learn's own ensembles of trees; a class derived from one is not."""
    kind = type(model)
    return kind.__module__.startswith("sklearn.") and kind.__name__ in (*_TREES, *_FORESTS, *_GRADIENT, *_HISTOGRAM)


def convert(model: Any, inputs: Inputs) -> Forest:
    """The trees of a fitted estimator; raises `Unfit` with what stands in the way."""
    name = type(model).__name__
    names = getattr(model, "feature_names_in_", None)
    columns = np.arange(model.n_features_in_) if names is None else np.array([inputs.features.index(n) for n in names])
    allow = not model.__sklearn_tags__().input_tags.allow_nan
    if name in _HISTOGRAM:
        return _histogram(model, columns, inputs)
    if names is not None and any(inputs.categories.get(str(each)) for each in names):
        raise Unfit("it was fitted on categories of a frame")
    forest = Forest(columns=columns, comparison="float32", complete=allow)
    if name in _GRADIENT:
        _gradient(model, forest)
    else:
        _averaged(model, forest, inputs)
    return forest


def leaves(model: Any, forest: Forest) -> Callable[[Any], Any] | None:
    """The estimator's own leaf numbers, `(n, trees)`, where it tells them."""
    if not hasattr(model, "apply"):
        return None
    return lambda matrix: np.asarray(model.apply(matrix)).reshape(len(matrix), len(forest.trees))


def _averaged(model: Any, forest: Forest, inputs: Inputs) -> None:
    trees = getattr(model, "estimators_", [model])
    if model.n_outputs_ != 1:
        raise Unfit("it has several outputs")
    classes = inputs.classes
    forest.divisor = float(len(trees))
    forest.base = [0.0] * max(classes, 1)
    for each in trees:
        value = each.tree_.value[:, 0, :]
        if inputs.task.kind == "binary":
            value = value[:, 1:2]
        forest.add(-1 if classes else 0, value=value, **_plain(each.tree_, forest.columns))


def _gradient(model: Any, forest: Forest) -> None:
    if model.init_ != "zero" and type(model.init_).__name__ not in ("DummyClassifier", "DummyRegressor"):
        raise Unfit(f"it begins with the predictions of a {type(model.init_).__name__}")
    start = np.asarray(model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32)))
    forest.base = [float(value) for value in start[0]]
    if type(model).__name__ == "GradientBoostingClassifier":
        forest.link = "sigmoid" if len(forest.base) == 1 else "softmax"
        forest.scale = 2.0 if model.loss == "exponential" else 1.0
    for stage in model.estimators_:
        for each, tree in enumerate(stage):
            value = model.learning_rate * tree.tree_.value[:, 0, :]
            forest.add(each, value=value, **_plain(tree.tree_, forest.columns))


def _plain(tree: Any, columns: Longs) -> dict[str, Any]:
    inner = tree.children_left >= 0
    return {
        "left": tree.children_left,
        "right": tree.children_right,
        "feature": np.where(inner, columns[np.where(inner, tree.feature, 0)], 0),
        "threshold": np.where(inner, tree.threshold, 0.0),
        "missing_left": tree.missing_go_to_left.astype(bool),
        "members_right": np.zeros(len(inner), dtype=bool),
        "sets": {},
    }


def _histogram(model: Any, columns: Longs, inputs: Inputs) -> Forest:
    forest = Forest(columns=columns, comparison="float64")
    start = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
    forest.base = [float(value) for value in start]
    if type(model).__name__ == "HistGradientBoostingClassifier":
        forest.link = "sigmoid" if len(start) == 1 else "softmax"
    elif model.loss in ("poisson", "gamma"):
        forest.link = "exp"
    encoded = _Encoded(model, columns, inputs)
    known, row_of = model._bin_mapper.make_known_categories_bitsets()
    for stage in model._predictors:
        for each, predictor in enumerate(stage):
            nodes = predictor.nodes
            leaf = nodes["is_leaf"].astype(bool)
            sets: dict[int, Any] = {}
            members_right = np.zeros(len(nodes), dtype=bool)
            for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
                own = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
                feature = int(nodes["feature_idx"][node])
                left, all_known = _members(own), _members(known[row_of[feature]])
                # What is neither left nor known to be right counts as missing.
                members_right[node] = bool(nodes["missing_go_to_left"][node])
                members = np.setdiff1d(all_known, left) if members_right[node] else left
                sets[int(node)] = _words(encoded.values(feature, members))
            forest.add(
                each,
                left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
                right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
                feature=np.where(leaf, 0, encoded.column[np.where(leaf, 0, nodes["feature_idx"])]),
                threshold=np.where(leaf | nodes["is_categorical"].astype(bool), 0.0, nodes["num_threshold"]),
                missing_left=nodes["missing_go_to_left"].astype(bool),
                members_right=members_right,
                value=nodes["value"][:, None],
                sets=sets,
            )
    return forest


class _Encoded:
    """What histogram boosting made of its input: categorical columns first, each category as its place in a list.

    `column`: the matrix's column behind each of its features.
    """

    def __init__(self, model: Any, columns: Longs, inputs: Inputs) -> None:
        self.column = columns
        self._categories: dict[int, npt.NDArray[Any]] = {}
        self._codes: dict[int, Mapping[Any, int]] = {}
        preprocessor = getattr(model, "_preprocessor", None)
        if preprocessor is None:
            return
        encoder = preprocessor.named_transformers_["encoder"]
        is_categorical = np.asarray(model.is_categorical_, dtype=bool)
        self.column = np.concatenate([columns[is_categorical], columns[~is_categorical]])
        for feature, categories in enumerate(encoder.categories_):
            self._categories[feature] = categories
            labels = inputs.categories.get(inputs.features[int(self.column[feature])])
            if labels and hasattr(model, "feature_names_in_"):  # a frame holds labels, the matrix their codes
                self._codes[feature] = {label: code for code, label in enumerate(labels)}

    def values(self, feature: int, members: Longs) -> Longs:
        """Categories as they stand in the matrix."""
        found = members
        if feature in self._categories:
            named = [self._categories[feature][member] for member in members if member < len(self._categories[feature])]
            codes = self._codes.get(feature)
            found = np.array([codes[name] if codes else name for name in named if name == name], dtype=np.float64)
        if len(found) and ((found < 0) | (found != np.floor(found)) | (found >= 2**20)).any():
            raise Unfit("it has categories that are no small whole numbers")
        return found.astype(np.int64)


def _members(words: Any) -> Longs:
    bits = (np.asarray(words, dtype=np.uint32)[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    return np.flatnonzero(bits.reshape(-1))


def _words(members: Longs) -> npt.NDArray[np.uint32]:
    words = np.zeros(int(members.max(initial=-1)) // 32 + 1, dtype=np.uint32)
    np.bitwise_or.at(words, members // 32, np.uint32(1) << (members % 32).astype(np.uint32))
    return words
