"""The second step, for small trees: entries clear leaves of a block of rows, and the first one left is a row's."""

from __future__ import annotations

from typing import Any

import numpy as np

from flyball.serving.trees.compiled import compiled
from flyball.serving.trees.lanes import (
    EVERY_BYTE,
    at,
    first_nonzero,
    ints,
    keep,
    lowest_bit,
    nothing,
    passed,
    where_any,
    words,
)
from flyball.serving.trees.sections import (
    ENTRIES,
    PLANES,
    TREE_PLANES,
)


@compiled
def scan(pool: Any, codes: Any, stride: int, full: Any, leaves: Any) -> None:
    """The leaf of each row in each small tree, counted within the tree: bytes, `(trees, stride)`.

    `full`: all bits of as many rows as a block has.
    """
    tree_planes, planes, entries = ints(pool, TREE_PLANES), ints(pool, PLANES), words(pool, ENTRIES)
    for tree in range(len(tree_planes) - 1):
        first = at(tree_planes, tree)
        plane = at(tree_planes, tree + 1) - 1
        base = nothing(full)
        bits = nothing(full)
        while plane >= first:  # from the last on, so that the first one with a leaf is what stays
            alive = full
            entry, end = 3 * np.int64(at(planes, plane)), 3 * np.int64(at(planes, plane + 1))
            while entry < end:
                alive = passed(alive, codes, entries, entry)
                entry += 3
            base = where_any(alive, np.uint32((plane - first) * 8 * EVERY_BYTE), base)
            bits = first_nonzero(alive, bits)
            plane -= 1
        keep(leaves, tree * stride, lowest_bit(bits, base))
