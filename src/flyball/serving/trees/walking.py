"""Trees that are walked: large ones over a block of rows, and all of them for a few rows.

A walk has no branch that depends on a value: a step's record says where its two next steps stand side by side, and the
comparison is added. All walks advance a level together, so that the processor works on many of them at a time; a walk
that is at its leaf stays there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flyball.serving.trees.compiled import compiled
from flyball.serving.trees.lanes import (
    at,
    ints,
    put,
)
from flyball.serving.trees.sections import (
    BY_DEPTH,
    DEEPER,
    DEPTHS,
    LARGE,
    ROOTS,
    WALK,
    WALK_LEAF,
)


@compiled
def walk_rows(pool: Any, ranks: Any, rows: int, stride: int, places: Any, leaves: Any) -> None:
    """The leaf of each row in each tree, counted within the tree: int32, `(trees, stride)`. `places`: room, a tree
    each."""
    walk, leaf, roots = ints(pool, WALK), ints(pool, WALK_LEAF), ints(pool, ROOTS)
    by_depth, deeper = ints(pool, BY_DEPTH), ints(pool, DEEPER)
    for row in range(rows):
        for i in range(len(roots)):
            put(places, i, at(roots, at(by_depth, i)))
        for level in range(len(deeper)):
            for i in range(at(deeper, level)):
                step = 3 * np.int64(at(places, i))
                value = at(ranks, np.int64(at(walk, step)) * stride + row)
                put(places, i, np.int32(at(walk, step + 2) + np.int32(value >= at(walk, step + 1))))
        for i in range(len(roots)):
            put(leaves, np.int64(at(by_depth, i)) * stride + row, at(leaf, at(places, i)))


@compiled
def walk_block(pool: Any, ranks: Any, rows: int, stride: int, places: Any, leaves: Any) -> None:
    """The leaf of each row in each large tree: int32, `(large trees, stride)`. `places`: room, a row each."""
    walk, leaf, roots = ints(pool, WALK), ints(pool, WALK_LEAF), ints(pool, ROOTS)
    large, depths = ints(pool, LARGE), ints(pool, DEPTHS)
    for i in range(len(large)):
        tree = at(large, i)
        for row in range(rows):
            put(places, row, at(roots, tree))
        for _ in range(at(depths, tree)):
            moved = np.int32(0)
            for row in range(rows):
                before = at(places, row)
                step = 3 * np.int64(before)
                value = at(ranks, np.int64(at(walk, step)) * stride + row)
                after = np.int32(at(walk, step + 2) + np.int32(value >= at(walk, step + 1)))
                moved |= after ^ before
                put(places, row, after)
            if moved == 0:
                break
        for row in range(rows):
            put(leaves, i * stride + row, at(leaf, at(places, row)))
