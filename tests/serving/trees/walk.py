"""What the kernel must give, by definition: each tree walked from its root, row after row; and random ensembles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flyball.serving.trees import Ensemble
from flyball.serving.trees.ensemble import (
    ABOVE_MINUS_ONE,
    CATEGORICAL,
    MEMBERS_RIGHT,
    MISSING_LEFT,
    NAN_IS_ZERO,
    ROUNDED,
    WHOLE,
    ZERO,
    ZERO_MISSING,
    Nodes,
)
from flyball.serving.trees.links import Link, LinkKind

STRANGE = (0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, -5e-324, 1e-40, ZERO, -ZERO, 1e300, -1e300, -0.5, 2.0**31)


def goes_left(nodes: Nodes, node: int, value: float) -> bool:
    flags = int(nodes.decision[node])
    if math.isnan(value) and flags & NAN_IS_ZERO:
        value = 0.0
    if math.isnan(value):
        return bool(flags & MISSING_LEFT)
    if not flags & CATEGORICAL:
        if flags & ZERO_MISSING and abs(value) <= ZERO:
            return bool(flags & MISSING_LEFT)
        return bool(value <= nodes.threshold[node])
    if flags & ROUNDED:
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
    words = nodes.words[nodes.words_start[node] : nodes.words_end[node]]
    member = False
    if flags & WHOLE and value != np.floor(value):
        return bool(flags & MEMBERS_RIGHT)
    if (value > -1.0 if flags & ABOVE_MINUS_ONE else value >= 0.0) and int(min(value, 2.0**40)) < 32 * len(words):
        member = bool(int(words[int(value) // 32]) >> (int(value) % 32) & 1)
    return member != bool(flags & MEMBERS_RIGHT)


def leaves(model: Ensemble, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The model's own leaf, `(n, trees)`."""
    out = np.zeros((len(matrix), len(model.roots)), dtype=np.int64)
    for i, row in enumerate(matrix):
        for tree, root in enumerate(model.roots):
            node = int(root)
            while node >= 0:
                left = goes_left(model.nodes, node, float(row[model.nodes.feature[node]]))
                node = int(model.nodes.left[node] if left else model.nodes.right[node])
            out[i, tree] = ~node
    return out


def sums(model: Ensemble, reached: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Added tree after tree, in the precision that the model asks for."""
    kind = np.float32 if model.single else np.float64
    out: np.ndarray[Any, Any] = np.tile(model.base, (len(reached), 1)).astype(kind)
    for tree, adds_to in enumerate(model.tree_class):
        for each in range(model.classes) if adds_to == -1 else [int(adds_to)]:
            out[:, each] += model.leaf[reached[:, tree], each if adds_to == -1 else 0].astype(kind)
    return out.astype(np.float64)


def random_ensemble(seed: int, *, trees: int, leaves: int, features: int, classes: int, shared: bool) -> Ensemble:
    """Trees of up to `leaves` leaves with tests of every kind; thresholds repeat, and some are strange."""
    random = np.random.default_rng(seed)
    parts: dict[str, list[Any]] = {name: [] for name in Nodes.__dataclass_fields__}
    roots, first_leaf, total = [], [], 0
    for _ in range(trees):
        count = int(random.integers(1, leaves + 1))
        base = len(parts["feature"])
        roots.append(base if count > 1 else ~total)
        first_leaf.append(total)
        open_places: list[tuple[str, int]] = []
        for node in range(base, base + count - 1):
            for side in ("left", "right"):
                parts[side].append(None)
            if open_places:
                side, parent = open_places.pop(int(random.integers(len(open_places))))
                parts[side][parent] = node
            open_places += [("left", node), ("right", node)]
            _add_test(parts, random, features)
        for leaf, (side, parent) in enumerate(open_places):
            parts[side][parent] = ~(total + leaf)
        total += count
    kinds: dict[str, Any] = {"threshold": np.float64, "decision": np.uint8, "words": np.uint32}
    nodes = Nodes(**{name: np.array(values, dtype=kinds.get(name, np.int32)) for name, values in parts.items()})
    return Ensemble(
        features=tuple(f"x{i}" for i in range(features)),
        classes=classes,
        nodes=nodes,
        roots=np.array(roots, dtype=np.int32),
        first_leaf=np.array(first_leaf, dtype=np.int32),
        tree_class=np.full(trees, -1, dtype=np.int32)
        if shared
        else random.integers(0, classes, size=trees).astype(np.int32),
        leaf=random.normal(size=(total, classes if shared else 1)),
        label=np.arange(total, dtype=np.int32),
        base=random.normal(size=classes),
        single=bool(random.integers(2)),
        link=Link(kind=LinkKind.IDENTITY),
    )


def _add_test(parts: dict[str, list[Any]], random: np.random.Generator, features: int) -> None:
    words: list[int] = []
    flags = int(random.choice([0, MISSING_LEFT]))
    if random.random() < 0.2:
        reading = int(random.choice([0, ABOVE_MINUS_ONE, ROUNDED, WHOLE]))
        flags |= CATEGORICAL | reading | int(random.choice([0, MEMBERS_RIGHT]))
        words = random.integers(0, 2**32, size=int(random.integers(1, 4))).tolist()
    elif random.random() < 0.5:
        flags |= int(random.choice([ZERO_MISSING, NAN_IS_ZERO]))
    start = len(parts["words"])
    parts["words"] += words
    parts["words_start"].append(start)
    parts["words_end"].append(start + len(words))
    parts["decision"].append(flags)
    parts["feature"].append(int(random.integers(features)))
    strange = [value for value in STRANGE if not math.isnan(value)]
    plain = round(float(random.normal()), int(random.integers(0, 6)))
    parts["threshold"].append(float(random.choice(strange)) if random.random() < 0.1 else plain)


def random_rows(model: Ensemble, rows: int, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows at the thresholds, beside them, strange, categorical and plain."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, len(model.features)))
    kind = random.integers(0, 6, size=x.shape)
    if len(model.nodes.threshold):
        at = random.choice(model.nodes.threshold, size=x.shape)
        x = np.where(kind == 1, at, x)
        x = np.where(kind == 2, np.nextafter(at, np.inf), x)
    x = np.where(kind == 3, random.choice(STRANGE, size=x.shape), x)
    return np.where(kind == 4, random.integers(-1, 100, size=x.shape), x)
