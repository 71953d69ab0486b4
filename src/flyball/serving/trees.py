"""Gradient-boosted trees without their library: LightGBM's text format, traversed by a compiled kernel.

A model is parsed into flat arrays and scored in float64 with LightGBM's own decisions, term by term in its own order:
missing values (none, zero, NaN) and their default direction, bit sets of categories, thresholds as doubles, several
classes, averaged forests, and the objective's transformation. Models that use what is not here (linear leaves, an
unknown objective) are refused by name, so that they can be served by another runtime.

The format and the decisions: https://github.com/microsoft/LightGBM, `src/io/tree.cpp` and `include/LightGBM/tree.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from flyball.kernel.errors import InvalidError

Matrix = npt.NDArray[np.float64]
Score = npt.NDArray[np.float64]

CATEGORICAL = 1  # bits of a decision's type
DEFAULT_LEFT = 2
MISSING_ZERO = 1  # values of its bits 2 and 3
MISSING_NAN = 2
ZERO = float(np.float32(1e-35))  # LightGBM's kZeroThreshold


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The inner nodes of all trees in one array each. Children below zero are leaves, as `~leaf`.

    A categorical node's set is `words[words_start:words_end]`, 32 categories a word.
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    decision: npt.NDArray[np.uint8]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    words_start: npt.NDArray[np.int32]
    words_end: npt.NDArray[np.int32]
    words: npt.NDArray[np.uint32]

    def arrays(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())


@dataclass(frozen=True, kw_only=True)
class TreeModel:
    """A parsed model. `roots` are nodes, or `~leaf` for trees of one leaf; `first_leaf` is where a tree's leaves begin.

    `classes` counts the scores of a row: 1 for binary and regression.
    """

    features: tuple[str, ...]
    classes: int
    average: bool
    objective: str
    nodes: Nodes
    roots: npt.NDArray[np.int32]
    first_leaf: npt.NDArray[np.int32]
    leaf: npt.NDArray[np.float64]
    transform: Callable[[Score], Score]

    def raw(self, matrix: Matrix) -> Score:
        """What `raw_score=True` gives: sums before averaging and transformation, `(n, classes)`."""
        out = np.zeros((len(matrix), self.classes))
        _score(self._checked(matrix), self.roots, self.nodes.arrays(), self.leaf, out)
        return out

    def predict(self, matrix: Matrix) -> Score:
        """What `Booster.predict` gives: `(n,)`, or `(n, classes)` for several classes; `matrix` is `(n, features)`."""
        raw = self.raw(matrix)
        if self.average and len(self.roots):
            raw /= len(self.roots) // self.classes
        out = self.transform(raw)
        return out[:, 0] if self.classes == 1 else out

    def leaves(self, matrix: Matrix) -> npt.NDArray[np.int32]:
        """The leaf that each row reaches in each tree, counted within its tree: `(n, trees)`."""
        out = np.zeros((len(matrix), len(self.roots)), dtype=np.int32)
        _reach(self._checked(matrix), self.roots, self.nodes.arrays(), out)
        return out - self.first_leaf

    def _checked(self, matrix: Matrix) -> Matrix:
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise InvalidError(
                f"the model takes rows of {len(self.features)} features, not an array of shape {matrix.shape}",
                code="bad_shape",
            )
        return np.ascontiguousarray(matrix, dtype=np.float64)


def parse(text: str) -> TreeModel:
    """Read a model in LightGBM's text format; `tree_unsupported` names what the kernel does not do."""
    blocks = list(_blocks(text))
    header = blocks[0] if blocks else {}
    if "tree" not in header or "max_feature_idx" not in header:
        raise InvalidError("the file is not a LightGBM model in text format", code="bad_tree_model")
    trees = [block for block in blocks[1:] if "Tree" in block]
    objective = header.get("objective", "")
    classes = int(header.get("num_tree_per_iteration", "1"))
    count = int(header["max_feature_idx"]) + 1
    names = tuple(header.get("feature_names", "").split())
    try:
        nodes, roots, first_leaf, leaf = _join(trees)
    except (KeyError, ValueError) as error:
        raise InvalidError(f"the LightGBM model is broken: {error}", code="bad_tree_model") from None
    _check(nodes, roots, leaf, count)
    return TreeModel(
        features=names if len(names) == count else tuple(f"Column_{i}" for i in range(count)),
        classes=classes,
        average="average_output" in header,
        objective=objective,
        nodes=nodes,
        roots=roots,
        first_leaf=first_leaf,
        leaf=leaf,
        transform=_transform(objective, classes),
    )


def predict_text(text: str, matrix: Matrix) -> Score:
    """Score a matrix with the kernel, from a model's text; for whoever verifies a package."""
    return parse(text).predict(matrix)


def warm() -> None:
    """Compile the kernel, or load it from its cache, by scoring a model of two leaves."""
    text = (
        "tree\nnum_tree_per_iteration=1\nmax_feature_idx=0\nfeature_names=x\nobjective=regression\n\n"
        "Tree=0\nnum_leaves=2\nnum_cat=0\nsplit_feature=0\nthreshold=0.5\ndecision_type=10\nleft_child=-1\n"
        "right_child=-2\nleaf_value=1 2\nis_linear=0\n\nend of trees\n"
    )
    parse(text).predict(np.zeros((1, 1)))


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """The model's paragraphs as keys and values, up to `end of trees`; a line without `=` is a flag."""
    block: dict[str, str] = {}
    for line in text.splitlines():
        stripped = line.strip()
        if stripped == "end of trees":
            break
        if stripped:
            if stripped.startswith("Tree=") and block:
                yield block
                block = {}
            key, _, value = stripped.partition("=")
            block[key] = value
    if block:
        yield block


def _join(trees: list[dict[str, str]]) -> tuple[Nodes, npt.NDArray[np.int32], npt.NDArray[np.int32], Any]:
    """All trees in one set of arrays, their children and leaves shifted to where they stand there."""
    parts: dict[str, list[Any]] = {name: [] for name in Nodes.__dataclass_fields__}
    roots, first_leaf, leaves = [], [], []
    node_base = leaf_base = word_base = 0
    for tree in trees:
        if int(tree.get("is_linear", "0")):
            raise InvalidError("the tree kernel does not score trees with linear leaves", code="tree_unsupported")
        values = _numbers(tree, "leaf_value", np.float64)
        first_leaf.append(leaf_base)
        roots.append(node_base if len(values) > 1 else ~leaf_base)
        if len(values) > 1:
            words = _append_nodes(parts, tree, node_base, leaf_base, word_base)
            node_base += len(values) - 1
            word_base += words
        leaves.append(values)
        leaf_base += len(values)
    kinds: dict[str, Any] = {"threshold": np.float64, "decision": np.uint8, "words": np.uint32}
    arrays = {
        name: np.concatenate([np.empty(0), *part]).astype(kinds.get(name, np.int32)) for name, part in parts.items()
    }
    leaf = np.concatenate([np.empty(0), *leaves])
    return Nodes(**arrays), np.array(roots, dtype=np.int32), np.array(first_leaf, dtype=np.int32), leaf


def _append_nodes(parts: dict[str, list[Any]], tree: dict[str, str], nodes: int, leaves: int, words: int) -> int:
    """Append one tree of at least two leaves; returns how many words its category sets take."""
    decision = _numbers(tree, "decision_type", np.uint8)
    threshold = _numbers(tree, "threshold", np.float64)
    for side in ("left", "right"):
        child = _numbers(tree, f"{side}_child", np.int64)
        parts[side].append(np.where(child >= 0, child + nodes, child - leaves))
    start = np.zeros(len(decision), dtype=np.int64)
    end = np.zeros(len(decision), dtype=np.int64)
    sets = np.empty(0, dtype=np.uint32)
    if int(tree.get("num_cat", "0")):
        bounds = _numbers(tree, "cat_boundaries", np.int64)
        sets = _numbers(tree, "cat_threshold", np.uint32)
        categorical = (decision & CATEGORICAL) > 0
        which = threshold[categorical].astype(np.int64)
        start[categorical], end[categorical] = bounds[which] + words, bounds[which + 1] + words
    for name, values in (
        ("feature", _numbers(tree, "split_feature", np.int64)),
        ("threshold", threshold),
        ("decision", decision),
        ("words_start", start),
        ("words_end", end),
        ("words", sets),
    ):
        parts[name].append(values)
    return len(sets)


def _numbers(tree: dict[str, str], key: str, kind: Any) -> Any:
    return np.array([float(text) if kind is np.float64 else int(text) for text in tree[key].split()], dtype=kind)


def _check(nodes: Nodes, roots: npt.NDArray[np.int32], leaf: Score, features: int) -> None:
    """A broken file must not make the kernel read outside its arrays, or walk in a circle."""
    count = len(nodes.feature)
    sizes = {len(nodes.threshold), len(nodes.decision), len(nodes.left), len(nodes.right), len(nodes.words_start)}
    position = np.arange(count)
    sound = sizes == {count} and bool(
        (nodes.feature >= 0).all()
        and (nodes.feature < features).all()
        and all(
            (((child > position) & (child < count)) | ((child < 0) & (~child < len(leaf)))).all()
            for child in (nodes.left, nodes.right)
        )
        and (nodes.words_start >= 0).all()
        and (nodes.words_end <= len(nodes.words)).all()
        and (roots < max(count, 1)).all()
    )
    if not sound:
        raise InvalidError("the LightGBM model is broken: a tree points outside itself", code="bad_tree_model")


def _transform(objective: str, classes: int) -> Callable[[Score], Score]:
    """From raw scores to predictions, as the objective's `ConvertOutput` does."""
    name, *words = objective.split() or [""]
    options = dict(word.partition(":")[::2] for word in words)
    sigmoid = float(options.get("sigmoid", "1"))
    if name in ("binary", "multiclassova"):
        return lambda raw: 1.0 / (1.0 + np.exp(-sigmoid * raw))
    if name in ("cross_entropy", "xentropy"):
        return lambda raw: 1.0 / (1.0 + np.exp(-raw))
    if name in ("cross_entropy_lambda", "xentlambda"):
        return lambda raw: np.log1p(np.exp(raw))
    if name in ("multiclass", "softmax"):
        return _softmax
    if name in ("poisson", "gamma", "tweedie"):
        return np.exp
    if name.startswith("regression") and "sqrt" in words:
        return lambda raw: np.sign(raw) * raw * raw
    if name.startswith("regression") or name in ("huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", ""):
        return lambda raw: raw
    raise InvalidError(
        f"the tree kernel does not know the objective {name!r} of {classes} classes", code="tree_unsupported"
    )


def _softmax(raw: Score) -> Score:
    powers: Score = np.exp(raw - raw.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


@njit(cache=True, nogil=True, error_model="numpy")
def _leaf_of(row: Any, node: int, nodes: Any) -> int:
    """Walk from a node to its leaf; returns the leaf's position."""
    feature, threshold, decision, left, right, start, end, words = nodes
    while node >= 0:
        value = row[feature[node]]
        if -ZERO <= value <= ZERO:
            value = 0.0  # LightGBM's reading of a dense row drops such values before any decision
        kind = decision[node]
        if kind & CATEGORICAL:
            goes_left = False
            # Truncated towards zero as in C; what no set can hold goes right: NaN, below zero, beyond the set.
            if value > -1.0 and value < 32.0 * (end[node] - start[node]):
                category = int(value)
                goes_left = (words[start[node] + category // 32] >> np.uint32(category % 32)) & np.uint32(1) != 0
        else:
            missing = (kind >> 2) & 3
            if np.isnan(value) and missing != MISSING_NAN:
                value = 0.0
            if (missing == MISSING_ZERO and value == 0.0) or (missing == MISSING_NAN and np.isnan(value)):
                goes_left = kind & DEFAULT_LEFT != 0
            else:
                goes_left = value <= threshold[node]
        node = left[node] if goes_left else right[node]
    return ~node


@njit(cache=True, nogil=True, error_model="numpy")
def _score(matrix: Any, roots: Any, nodes: Any, leaf: Any, out: Any) -> None:
    classes = out.shape[1]
    for i in range(matrix.shape[0]):
        row = matrix[i]
        for tree in range(roots.shape[0]):
            out[i, tree % classes] += leaf[_leaf_of(row, roots[tree], nodes)]


@njit(cache=True, nogil=True, error_model="numpy")
def _reach(matrix: Any, roots: Any, nodes: Any, out: Any) -> None:
    for i in range(matrix.shape[0]):
        for tree in range(roots.shape[0]):
            out[i, tree] = _leaf_of(matrix[i], roots[tree], nodes)
