"""LightGBM's text format. Decisions and transformations: https://github.com/microsoft/LightGBM, `src/io/tree.cpp`,
`include/LightGBM/tree.h` and `src/objective/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.serving.trees.ensemble import (
    ABOVE_MINUS_ONE,
    CATEGORICAL,
    MISSING_LEFT,
    NAN_IS_ZERO,
    ZERO_MISSING,
    Ensemble,
    Nodes,
    broken,
    unsupported,
)
from flyball.serving.trees.links import Link, LinkKind
from flyball.serving.trees.thresholds import snapped_at_most

_CATEGORICAL = 1  # bits of the file's decision_type
_DEFAULT_LEFT = 2
_MISSING_ZERO = 1  # values of its bits 2 and 3
_MISSING_NAN = 2

_SAME = ("huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom", "")


def read(text: str) -> Ensemble:
    """Raises `bad_tree_model` for what is no such file, `tree_unsupported` naming what the kernel does not do."""
    blocks = list(_blocks(text))
    header = blocks[0] if blocks else {}
    if "tree" not in header or "max_feature_idx" not in header:
        raise broken("it is not a LightGBM model in text format")
    trees = [block for block in blocks[1:] if "Tree" in block]
    try:
        classes = int(header.get("num_tree_per_iteration", "1"))
        count = int(header["max_feature_idx"]) + 1
        nodes, roots, first_leaf, leaf = _join(trees)
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise broken(f"{type(error).__name__}: {error}") from None
    if classes < 1 or len(trees) % classes:
        raise broken(f"it has {len(trees)} trees for {classes} classes")
    names = tuple(header.get("feature_names", "").split())
    return Ensemble(
        features=names if len(names) == count else tuple(f"Column_{i}" for i in range(count)),
        classes=classes,
        nodes=nodes,
        roots=roots,
        first_leaf=first_leaf,
        tree_class=np.arange(len(trees), dtype=np.int32) % np.int32(classes),
        leaf=leaf[:, None],
        label=np.arange(len(leaf), dtype=np.int32)
        - np.repeat(first_leaf, np.diff(np.append(first_leaf, len(leaf)))).astype(np.int32),
        base=np.zeros(classes),
        divisor=float(max(len(trees) // classes, 1)) if "average_output" in header else 1.0,
        link=_link(header.get("objective", ""), classes),
    )


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
            raise unsupported("score trees with linear leaves")
        values = _floats(tree, "leaf_value")
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
    kind = _ints(tree, "decision_type", np.uint8)
    threshold = _floats(tree, "threshold")
    categorical = (kind & _CATEGORICAL) > 0
    for side in ("left", "right"):
        child = _ints(tree, f"{side}_child", np.int64)
        parts[side].append(np.where(child >= 0, child + nodes, child - leaves))
    start = np.zeros(len(kind), dtype=np.int64)
    end = np.zeros(len(kind), dtype=np.int64)
    sets = np.empty(0, dtype=np.uint32)
    if int(tree.get("num_cat", "0")):
        bounds = _ints(tree, "cat_boundaries", np.int64)
        sets = _ints(tree, "cat_threshold", np.uint32)
        which = threshold[categorical].astype(np.int64)
        start[categorical], end[categorical] = bounds[which] + words, bounds[which + 1] + words
    for name, values in (
        ("feature", _ints(tree, "split_feature", np.int64)),
        ("threshold", np.where(categorical, 0.0, snapped_at_most(threshold))),
        ("decision", _decision(kind)),
        ("words_start", start),
        ("words_end", end),
        ("words", sets),
    ):
        parts[name].append(values)
    return len(sets)


def _decision(kind: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A file's decision types as the kernel's."""
    missing = (kind >> 2) & 3
    default_left = (kind & _DEFAULT_LEFT) > 0
    as_zero = (missing != _MISSING_NAN) & (missing != _MISSING_ZERO)
    known = default_left * MISSING_LEFT + (missing == _MISSING_ZERO) * ZERO_MISSING
    numerical = np.where(as_zero, NAN_IS_ZERO, known)
    return np.where((kind & _CATEGORICAL) > 0, CATEGORICAL | ABOVE_MINUS_ONE, numerical).astype(np.uint8)


def _ints(tree: dict[str, str], key: str, kind: Any) -> Any:
    return np.array([int(text) for text in tree[key].split()], dtype=kind)


def _floats(tree: dict[str, str], key: str) -> npt.NDArray[np.float64]:
    return np.array([float(text) for text in tree[key].split()], dtype=np.float64)


def _link(objective: str, classes: int) -> Link:
    """As the objective's `ConvertOutput` does."""
    name, *words = objective.split() or [""]
    options = dict(word.partition(":")[::2] for word in words)
    if name in ("binary", "multiclassova"):
        return Link(kind=LinkKind.SIGMOID, scale=float(options.get("sigmoid", "1")))
    if name in ("cross_entropy", "xentropy"):
        return Link(kind=LinkKind.SIGMOID)
    if name in ("cross_entropy_lambda", "xentlambda"):
        return Link(kind=LinkKind.LOG1P_EXP)
    if name in ("multiclass", "softmax"):
        return Link(kind=LinkKind.SOFTMAX)
    if name in ("poisson", "gamma", "tweedie"):
        return Link(kind=LinkKind.EXP)
    if name.startswith("regression") and "sqrt" in words:
        return Link(kind=LinkKind.SIGNED_SQUARE)
    if name.startswith("regression") or name in _SAME:
        return Link()
    raise unsupported(f"know the objective {name!r} of {classes} classes")
