"""One form for every ensemble of trees: inner nodes, leaves, and how a sum of leaves becomes a prediction.

Libraries compare in their own ways: LightGBM and histogram boosting `x <= t` on doubles, XGBoost `x < t` on floats,
scikit-learn's trees `float32(x) <= t`. A reader moves the thresholds (`thresholds.py`) so that each comparison becomes
`x <= t` on doubles with the same outcome for every double, and the kernel knows one comparison only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from flyball.kernel.errors import InvalidError
from flyball.serving.trees.links import Link

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

# Bits of a node's decision.
CATEGORICAL = 1  # a set of categories instead of a threshold
MISSING_LEFT = 2  # where a missing value goes
ZERO_MISSING = 4  # besides NaN, values within LightGBM's zero are missing
MEMBERS_RIGHT = 8  # what is in the set goes right, all else left
ABOVE_MINUS_ONE = 16  # a category is truncated towards zero before it is looked at, as LightGBM does: -0.5 is 0
ROUNDED = 32  # a category is rounded to float32 before it is looked at, as XGBoost does
NAN_IS_ZERO = 128  # a missing value is read as 0
WHOLE = 64  # what is not a whole number is not a member, as scikit-learn's encoder does

ZERO = float(np.float32(1e-35))  # LightGBM's kZeroThreshold
MOST_CATEGORIES = 1 << 24  # float32 holds each whole number up to here, and no library takes more


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The inner nodes of all trees, an array each. Children below zero are leaves, as `~leaf`.

    A node goes left where `x <= threshold`; a missing value (NaN, with `ZERO_MISSING` also zero) goes by its flag, or
    as 0 would with `NAN_IS_ZERO`. A
    categorical node has the set `words[words_start:words_end]`, 32 categories a word: members go left, or right with
    `MEMBERS_RIGHT`, and what cannot be in a set (below zero, beyond its words) goes the other way; NaN by its flag.
    """

    feature: Ints
    threshold: Floats
    decision: npt.NDArray[np.uint8]
    left: Ints
    right: Ints
    words_start: Ints
    words_end: Ints
    words: npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Trees, and what is done with their leaves.

    Args:
        features: names of the columns of a matrix, in order.
        classes: scores of a row: 1 for binary and regression.
        roots: a tree's first node, or `~leaf` for trees of one leaf.
        first_leaf: where a tree's leaves begin; a tree's leaves stand together.
        tree_class: the score that a tree adds to; -1: its leaves hold a value for each class.
        leaf: values, `(leaves, 1)` or `(leaves, classes)`.
        label: a leaf's number in its own library: `pred_leaf` or `apply`.
        base: where the sums begin, `(classes,)`.
        divisor: the sums are divided by it, for averages.
        single: sums are of float32, as XGBoost's.
        link: from sums to predictions.
        single_input: the library takes float32, so that a matrix of float32 loses nothing.
        complete: the library refuses rows with missing values.
    """

    features: tuple[str, ...]
    classes: int
    nodes: Nodes
    roots: Ints
    first_leaf: Ints
    tree_class: Ints
    leaf: Floats
    label: Ints
    base: Floats
    divisor: float = 1.0
    single: bool = False
    link: Link = field(default_factory=Link)
    single_input: bool = False
    complete: bool = False

    def __post_init__(self) -> None:
        _check(self)


def broken(message: str) -> InvalidError:
    return InvalidError(f"the model is broken: {message}", code="bad_tree_model", hint="save it again with its library")


def unsupported(message: str) -> InvalidError:
    return InvalidError(f"the tree kernel does not {message}", code="tree_unsupported")


def _check(model: Ensemble) -> None:
    """A broken file must not make the kernel read outside its arrays, or walk in a circle."""
    nodes, leaves, trees = model.nodes, len(model.leaf), len(model.roots)
    count = len(nodes.feature)
    sizes = {
        len(array)
        for array in (nodes.threshold, nodes.decision, nodes.left, nodes.right, nodes.words_start, nodes.words_end)
    }
    if sizes != {count} or len(model.label) != leaves or {len(model.first_leaf), len(model.tree_class)} != {trees}:
        raise broken("its arrays are not of one length")
    if count and (nodes.feature.min() < 0 or nodes.feature.max() >= len(model.features)):
        raise broken(f"a node splits on a feature outside of 0 to {len(model.features) - 1}")
    if np.isnan(nodes.threshold).any() or np.isnan(model.leaf).any() or not np.isfinite(model.base).all():
        raise broken("a threshold, a leaf or the base score is not a number")
    words = (nodes.words_start >= 0) & (nodes.words_start <= nodes.words_end) & (nodes.words_end <= len(nodes.words))
    if not words.all() or len(nodes.words) > max(count, 1) * (MOST_CATEGORIES // 32):
        raise broken("a set of categories stands outside of the file's sets")
    if model.classes < 1 or len(model.base) != model.classes or model.leaf.ndim != 2:
        raise broken(f"it has {model.classes} classes and {len(model.base)} base scores")
    shared = model.tree_class == -1
    if not (shared | ((model.tree_class >= 0) & (model.tree_class < model.classes))).all():
        raise broken("a tree adds to a class that is not there")
    width = model.classes if shared.any() else 1
    if model.leaf.shape[1] != width or (shared.any() and not shared.all()):
        raise broken("its leaves do not hold a value for each class")
    _check_shape(model, count, leaves)


def _check_shape(model: Ensemble, count: int, leaves: int) -> None:
    """Each node and each leaf hangs at one place, below the tree that it belongs to: parents stand before children."""
    nodes = model.nodes
    position = np.arange(count)
    for child in (nodes.left, nodes.right):
        if not (((child > position) & (child < count)) | ((child < 0) & (child >= -leaves))).all():
            raise broken("a tree points outside itself")
    if len(model.roots) and not ((model.roots < count) & (model.roots >= -leaves)).all():
        raise broken("a tree's root is outside of the model")
    children = np.concatenate([nodes.left, nodes.right, model.roots]).astype(np.int64)
    inner, ends = children[children >= 0], ~children[children < 0]
    if len(inner) != count or len(np.unique(inner)) != count or len(np.unique(ends)) != leaves or len(ends) != leaves:
        raise broken("a node or a leaf hangs at two places, or at none")
    owner = tree_of_nodes(model)
    for child in (nodes.left, nodes.right):
        found = owner[child[child >= 0]]
        if not (found == owner[position[child >= 0]]).all():
            raise broken("two trees share a node")
    tree = np.zeros(leaves, dtype=np.int64)
    for child in (nodes.left, nodes.right):
        at = child < 0
        tree[~child[at]] = owner[position[at]]
    alone = model.roots < 0
    tree[~model.roots[alone]] = np.flatnonzero(alone)
    if leaves and (
        (np.diff(tree) < 0).any()
        or not np.array_equal(np.searchsorted(tree, np.arange(len(model.roots))), model.first_leaf)
    ):
        raise broken("a tree's leaves do not stand together")


def levels(model: Ensemble) -> list[npt.NDArray[np.int64]]:
    """The inner nodes of all trees by their depth: roots first."""
    nodes = model.nodes
    found: list[npt.NDArray[np.int64]] = []
    front = model.roots[model.roots >= 0].astype(np.int64)
    while len(front):
        found.append(front)
        children = np.concatenate([nodes.left[front], nodes.right[front]]).astype(np.int64)
        front = children[children >= 0]
    return found


def tree_of_nodes(model: Ensemble) -> npt.NDArray[np.int64]:
    """The tree of each inner node. Parents stand before their children, so this ends."""
    tree = np.zeros(len(model.nodes.feature), dtype=np.int64)
    inner = model.roots >= 0
    tree[model.roots[inner]] = np.flatnonzero(inner)
    for front in levels(model):
        for child in (model.nodes.left[front], model.nodes.right[front]):
            tree[child[child >= 0]] = tree[front[child >= 0]]
    return tree
