"""XGBoost's JSON format: https://xgboost.readthedocs.io, "Introduction to Model IO". What a node decides:
`include/xgboost/tree_model.h`, `src/common/categorical.h` and `src/objective/` of https://github.com/dmlc/xgboost.

XGBoost computes in float32: rows are rounded to it, a row goes left where `x < t`, and sums are of float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.serving.trees.ensemble import (
    CATEGORICAL,
    MEMBERS_RIGHT,
    MISSING_LEFT,
    MOST_CATEGORIES,
    ROUNDED,
    Ensemble,
    broken,
    unsupported,
)
from flyball.serving.trees.links import Link, LinkKind
from flyball.serving.trees.tables import Table, join, words_of
from flyball.serving.trees.thresholds import rounded_below

_LINKS = {
    "binary:logistic": LinkKind.SIGMOID,
    "reg:logistic": LinkKind.SIGMOID,
    "binary:logitraw": LinkKind.IDENTITY,
    "binary:hinge": LinkKind.STEP,
    "reg:squarederror": LinkKind.IDENTITY,
    "reg:squaredlogerror": LinkKind.IDENTITY,
    "reg:absoluteerror": LinkKind.IDENTITY,
    "reg:pseudohubererror": LinkKind.IDENTITY,
    "reg:quantileerror": LinkKind.IDENTITY,
    "reg:gamma": LinkKind.EXP,
    "reg:tweedie": LinkKind.EXP,
    "count:poisson": LinkKind.EXP,
    "survival:cox": LinkKind.EXP,
    "survival:aft": LinkKind.EXP,
    "rank:pairwise": LinkKind.IDENTITY,
    "rank:ndcg": LinkKind.IDENTITY,
    "rank:map": LinkKind.IDENTITY,
    "multi:softprob": LinkKind.SOFTMAX,
}


def read(text: str) -> Ensemble:
    """Raises `bad_tree_model` for what is no such document, `tree_unsupported` naming what the kernel does not do."""
    try:
        learner = json.loads(text)["learner"]
        return _ensemble(learner)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise broken(f"it is not a model that XGBoost saved as JSON ({type(error).__name__}: {error})") from None


def _ensemble(learner: Mapping[str, Any]) -> Ensemble:
    booster = learner["gradient_booster"]
    weights = None
    if booster["name"] == "dart":
        weights = [float(weight) for weight in booster["weight_drop"]]
        booster = booster["gbtree"]
    if booster["name"] != "gbtree":
        raise unsupported(f"score XGBoost's booster {booster['name']!r}, only trees")
    model, parameters = booster["model"], learner["learner_model_param"]
    count = int(parameters["num_feature"])
    classes = max(int(parameters["num_class"]), int(parameters.get("num_target", "1")), 1)
    tables = [_table(tree) for tree in model["trees"]]
    weights = weights or [1.0] * len(tables)
    if not len(weights) == len(model["tree_info"]) == len(tables):
        raise broken("its trees, their classes and their weights are not as many")
    single = np.array(weights, dtype=np.float32)
    for table, weight in zip(tables, single, strict=True):
        table.value = (table.value.astype(np.float32) * weight).astype(np.float64)
    objective = str(learner["objective"]["name"])
    names = tuple(str(name) for name in learner.get("feature_names") or ())
    nodes, roots, first_leaf, leaf, label = join(tables)
    return Ensemble(
        features=names if len(names) == count else tuple(f"f{i}" for i in range(count)),
        classes=classes,
        nodes=nodes,
        roots=roots,
        first_leaf=first_leaf,
        tree_class=np.array(model["tree_info"], dtype=np.int32),
        leaf=leaf,
        label=label,
        base=_base(str(parameters["base_score"]), objective, classes),
        single=True,
        link=Link(kind=_link(objective)),
        single_input=True,
    )


def _link(objective: str) -> LinkKind:
    kind = _LINKS.get(objective)
    if kind is not None:
        return kind
    if objective == "multi:softmax":
        raise unsupported("score XGBoost's objective 'multi:softmax', which gives classes; use 'multi:softprob'")
    raise unsupported(f"know XGBoost's objective {objective!r}")


def _base(text: str, objective: str, classes: int) -> npt.NDArray[np.float64]:
    """The base score as a margin: XGBoost keeps it as a prediction, and takes the link's inverse in float32."""
    values = np.array([float(value) for value in text.strip("[]").split(",")], dtype=np.float32)
    kind = _link(objective)
    with np.errstate(all="ignore"):
        if kind == LinkKind.SIGMOID:
            values = -np.log(np.float32(1.0) / values - np.float32(1.0))
        elif kind == LinkKind.EXP:
            values = np.log(values)
    if len(values) not in (1, classes) or not np.isfinite(values).all():
        raise broken(f"its base score is {text}")
    return np.broadcast_to(values, classes).astype(np.float64)


def _table(tree: Mapping[str, Any]) -> Table:
    if int(tree["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise unsupported("score XGBoost's trees with a vector in each leaf (multi_output_tree)")
    left, right = (np.array(tree[f"{side}_children"], dtype=np.int64) for side in ("left", "right"))
    condition = np.array(tree["split_conditions"], dtype=np.float64)
    categorical = np.array(tree.get("split_type") or [0] * len(left)) == 1
    default_left = np.array(tree["default_left"]).astype(bool)
    inner = left >= 0
    threshold = np.zeros(len(left))
    plain = inner & ~categorical
    threshold[plain] = rounded_below(condition[plain])
    if np.isnan(threshold).any():
        raise unsupported("compare with minus infinity or with what is not a number")
    decision = np.where(categorical, CATEGORICAL | MEMBERS_RIGHT | ROUNDED, 0) + np.where(default_left, MISSING_LEFT, 0)
    return Table(
        feature=np.where(inner, np.array(tree["split_indices"], dtype=np.int64), 0),
        threshold=threshold,
        decision=decision.astype(np.uint8),
        left=left,
        right=np.where(inner, right, -1),
        value=condition.astype(np.float32).astype(np.float64)[:, None],
        sets=_sets(tree, len(left)) if categorical.any() else {},
    )


def _sets(tree: Mapping[str, Any], count: int) -> dict[int, npt.NDArray[np.uint32]]:
    """By node: the categories that go right."""
    found = {}
    members = np.array(tree["categories"], dtype=np.int64)
    for node, start, size in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):
        own = members[int(start) : int(start) + int(size)]
        if not 0 <= int(node) < count or len(own) != int(size) or (own < 0).any() or (own >= MOST_CATEGORIES).any():
            raise broken("a set of categories stands outside of the file's sets")
        found[int(node)] = words_of(own)
    return found
