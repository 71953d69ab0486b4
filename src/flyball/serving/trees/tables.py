"""Trees as tables in which inner nodes and leaves stand mixed, as most libraries keep them, and what they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.serving.trees.ensemble import Floats, Ints, Nodes, broken

Longs = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]


@dataclass(kw_only=True, slots=True)
class Table:
    """One tree; node 0 is its root, and nodes that do not hang below it are not part of it.

    `left` and `right` are -1 at leaves, where `value` is a row: one number, or one a class. `sets`: of categorical
    nodes, as words of 32 categories. The other arrays are as in `Nodes`.
    """

    feature: Longs
    threshold: Floats
    decision: npt.NDArray[np.uint8]
    left: Longs
    right: Longs
    value: Floats
    sets: Mapping[int, Words]


def join(tables: Sequence[Table]) -> tuple[Nodes, Ints, Ints, Floats, Ints]:
    """Nodes, roots, first leaves, leaves and their labels of all trees. A leaf's label is its number in its table."""
    nodes: dict[str, list[npt.NDArray[Any]]] = {k: [] for k in ("feature", "threshold", "decision", "left", "right")}
    starts, ends, words, roots, first_leaf, leaves, labels = [], [], [], [], [], [], []
    node_base = leaf_base = word_base = 0
    for table in tables:
        _check(table)
        order = _reached(table)
        is_leaf = table.left[order] < 0
        inner, ends_here = order[~is_leaf], order[is_leaf]
        number = np.zeros(len(table.left), dtype=np.int64)
        number[inner] = node_base + np.arange(len(inner))
        number[ends_here] = ~(leaf_base + np.arange(len(ends_here)))
        roots.append(number[0])
        first_leaf.append(leaf_base)
        nodes["feature"].append(table.feature[inner])
        nodes["threshold"].append(table.threshold[inner])
        nodes["decision"].append(table.decision[inner])
        nodes["left"].append(number[table.left[inner]])
        nodes["right"].append(number[table.right[inner]])
        own = [table.sets.get(int(node), np.zeros(0, dtype=np.uint32)) for node in inner] if table.sets else []
        sizes = np.array([len(one) for one in own], dtype=np.int64) if own else np.zeros(len(inner), dtype=np.int64)
        ends.append(word_base + np.cumsum(sizes))
        starts.append(ends[-1] - sizes)
        words += own
        word_base += int(sizes.sum())
        leaves.append(table.value[ends_here])
        labels.append(ends_here)
        node_base, leaf_base = node_base + len(inner), leaf_base + len(ends_here)
    width = tables[0].value.shape[1] if tables else 1
    empty = np.zeros(0)

    def whole(parts: Sequence[npt.NDArray[Any]]) -> Ints:
        return np.concatenate([empty, *parts]).astype(np.int32)

    found = Nodes(
        feature=whole(nodes["feature"]),
        threshold=np.concatenate([empty, *nodes["threshold"]]),
        decision=np.concatenate([empty, *nodes["decision"]]).astype(np.uint8),
        left=whole(nodes["left"]),
        right=whole(nodes["right"]),
        words_start=whole(starts),
        words_end=whole(ends),
        words=np.concatenate([np.zeros(0, dtype=np.uint32), *words]),
    )
    leaf = np.concatenate([np.zeros((0, width)), *leaves])
    return found, np.array(roots, dtype=np.int32), np.array(first_leaf, dtype=np.int32), leaf, whole(labels)


def words_of(categories: Longs) -> Words:
    """A set of categories as words of 32."""
    words = np.zeros(int(categories.max(initial=-1)) // 32 + 1, dtype=np.uint32)
    np.bitwise_or.at(words, categories // 32, np.uint32(1) << (categories % 32).astype(np.uint32))
    return words


def _check(table: Table) -> None:
    count = len(table.left)
    if {len(a) for a in (table.feature, table.threshold, table.decision, table.right, table.value)} != {count}:
        raise broken("a tree's arrays are not of one length")
    if not count or table.value.ndim != 2:
        raise broken("a tree has no root")
    inner = table.left >= 0
    if ((table.right >= 0) != inner).any() or max(table.left.max(), table.right.max()) >= count:
        raise broken("a tree points outside itself")


def _reached(table: Table) -> Longs:
    """The nodes below the root, parents before children."""
    found, front, total = [], np.zeros(1, dtype=np.int64), 0
    while len(front):
        found.append(front)
        total += len(front)
        if total > len(table.left):
            raise broken("a tree walks in a circle, or a node hangs at two places")
        front = front[table.left[front] >= 0]
        front = np.concatenate([table.left[front], table.right[front]])
    order = np.concatenate(found)
    if len(np.unique(order)) != len(order):
        raise broken("a node hangs at two places")
    return order
