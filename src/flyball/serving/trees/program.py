"""An ensemble compiled for the kernel: one block of bytes with a directory of sections.

QuickScorer (Lucchese et al., SIGIR 2015) scores a tree without walking it: a leaf is a bit, each node whose test sends
a row past its first subtree clears that subtree's bits, in any order, and the lowest bit that is left is the row's
leaf.
V-QuickScorer (Lucchese et al., SIGIR 2016) does so for several rows at once. Here, besides:

- a value becomes its rank among its feature's thresholds once (`coding.py`), so that a test compares bytes: a *column*
  is a slice of 255 ranks. Missing values and sets of categories are settled in that step, a *view* of a feature each;
- a tree's bits are cut into *planes* of eight leaves, so that a tree of any size takes the same code, and a node is
  looked at only in the planes that it clears;
- the smaller subtree of a node is cleared, whichever side it is on: a node that clears its right side compares a
  mirrored column. A node then touches 1.1 planes instead of 1.5.

Trees of more than 256 leaves are walked over blocks of rows; so are all trees for a few rows (`walking.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.serving.trees.columns import Columns, Views
from flyball.serving.trees.ensemble import Ensemble, levels, tree_of_nodes
from flyball.serving.trees.lanes import EVERY_BYTE
from flyball.serving.trees.sections import (
    BASE,
    BY_DEPTH,
    CLASS_JOBS,
    CLASSES,
    COLUMN_COUNT,
    COLUMNS,
    DEEPER,
    DEPTHS,
    ENTRIES,
    FEW,
    FIRST_LEAF,
    JOBS,
    LABELS,
    LARGE,
    LEAVES,
    LINK,
    NEVER,
    PLANES,
    ROOTS,
    SCALES,
    SECTIONS,
    SHAPE,
    SINGLE,
    SMALL_TREES,
    TREE_PLANES,
    TREES,
    VIEW_COUNT,
    WALK,
    WALK_LEAF,
)

Longs = npt.NDArray[np.int64]
Pool = npt.NDArray[np.uint8]

SMALL = 256  # leaves: a leaf's number fits a byte
MOST_FEW = 32

# Measured on an EPYC 9004 (AVX-512): nanoseconds of a block of 64 rows for an entry, of a row for a step of a walk.
_ENTRY_NS, _STEP_NS = 1.0, 1.1


def compile_program(model: Ensemble) -> Pool:
    """The program of an ensemble: bytes at an address that is a multiple of 64."""
    tree = tree_of_nodes(model)
    depth = [*levels(model)]
    order = _LeafOrder(model, tree, depth)
    views = Views(model)
    large = order.leaves > SMALL
    columns = Columns(views, order.mirrored, ~large[tree] if len(tree) else np.zeros(0, dtype=bool))
    planes = _planes(order, columns, tree, large)
    walk = _walk(model, views, order, depth)
    jobs = _jobs(model, order, large)
    entries = len(planes[ENTRIES]) // 3
    steps = max(int(walk[DEPTHS].sum()), 1)
    few = int(np.clip(entries * _ENTRY_NS / (steps * _STEP_NS), 1, MOST_FEW)) if not large.any() else 1
    shape = np.zeros(8, dtype=np.int64)
    shape[CLASSES], shape[TREES], shape[SMALL_TREES] = model.classes, len(model.roots), int((~large).sum())
    shape[VIEW_COUNT], shape[COLUMN_COUNT], shape[FEW] = len(views.table), len(columns.table), few
    shape[SINGLE], shape[LINK] = int(model.single), int(model.link.kind)
    leaf = np.ascontiguousarray(model.leaf[order.source].T)
    return _pool(
        {
            SHAPE: shape,
            SCALES: np.array([model.divisor, model.link.scale]),
            BASE: model.base,
            **views.sections(),
            COLUMNS: columns.table,
            **planes,
            **walk,
            LARGE: np.flatnonzero(large).astype(np.int32),
            **jobs,
            LEAVES: leaf.astype(np.float32) if model.single else leaf,
            LABELS: model.label[order.source].astype(np.int32),
            FIRST_LEAF: model.first_leaf.astype(np.int32),
        }
    )


def _pool(sections: dict[int, npt.NDArray[Any]]) -> Pool:
    """Sections one after another, each at a multiple of 64; the directory holds their offset and length in bytes."""
    directory = np.zeros(2 * SECTIONS, dtype=np.int64)
    place = directory.nbytes + -directory.nbytes % 64
    for section in range(SECTIONS):
        directory[2 * section : 2 * section + 2] = place, sections[section].nbytes
        place += sections[section].nbytes + -sections[section].nbytes % 64
    room = np.zeros(place + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    pool = room[start : start + place]
    pool[: directory.nbytes] = directory.view(np.uint8)
    for section, array in sections.items():
        at = int(directory[2 * section])
        pool[at : at + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return pool


class _LeafOrder:
    """Leaves in the order of their bits, and what each node clears: its smaller subtree stands first.

    `mirrored`: nodes whose right subtree is cleared. `first`, `end`: the leaves that a node clears, counted within its
    tree. `source`: the model's leaf at each place. `leaves`: of a tree.
    """

    def __init__(self, model: Ensemble, tree: Longs, depth: list[Longs]) -> None:
        nodes, count = model.nodes, len(model.nodes.feature)
        size = np.ones(count + 1, dtype=np.int64)  # the last: of a leaf
        for front in reversed(depth):
            size[front] = size[np.maximum(nodes.left[front], -1)] + size[np.maximum(nodes.right[front], -1)]
        left, right = size[np.maximum(nodes.left, -1)], size[np.maximum(nodes.right, -1)]
        self.mirrored = right < left
        cleared = np.minimum(left, right)
        start = np.zeros(count, dtype=np.int64)
        place = np.zeros(len(model.leaf), dtype=np.int64)
        for front in depth:
            near, far = start[front], start[front] + cleared[front]
            for child, begin in (
                (nodes.left[front], np.where(self.mirrored[front], far, near)),
                (nodes.right[front], np.where(self.mirrored[front], near, far)),
            ):
                start[child[child >= 0]] = begin[child >= 0]
                place[~child[child < 0]] = begin[child < 0]
        self.first, self.end = start, start + cleared
        self.leaves = np.diff(np.append(model.first_leaf, len(model.leaf))).astype(np.int64)
        self.place = place  # of a leaf, within its tree
        self.source = np.zeros(len(model.leaf), dtype=np.int64)
        self.source[place + np.repeat(model.first_leaf, self.leaves)] = np.arange(len(model.leaf))


def _planes(order: _LeafOrder, columns: Columns, tree: Longs, large: npt.NDArray[np.bool_]) -> dict[int, Any]:
    """The entries of small trees by plane; within a plane by column, for the cache's sake."""
    count = np.where(large, 0, (order.leaves + 7) // 8)
    tree_plane = np.concatenate([[0], np.cumsum(count)])
    node = np.flatnonzero(~large[tree]) if len(tree) else np.zeros(0, dtype=np.int64)
    low, high = order.first[node] // 8, (order.end[node] - 1) // 8
    times = high - low + 1
    repeated = np.repeat(node, times)
    within = np.arange(len(repeated)) - np.repeat(np.cumsum(times) - times, times) + np.repeat(low, times)
    first = np.clip(order.first[repeated] - 8 * within, 0, 8)
    end = np.clip(order.end[repeated] - 8 * within, 0, 8)
    mask = 255 ^ ((1 << end) - (1 << first))
    plane = tree_plane[tree[repeated]] + within
    column, bound = columns.column[repeated], columns.bound[repeated]
    sorted_by = np.lexsort((bound, column, plane))
    entries = np.column_stack([column, bound * EVERY_BYTE, mask * EVERY_BYTE])[sorted_by].astype(np.uint32)
    starts = np.searchsorted(plane[sorted_by], np.arange(tree_plane[-1] + 1))
    small = np.append(tree_plane[:-1][~large], tree_plane[-1])
    return {TREE_PLANES: small.astype(np.int32), PLANES: starts.astype(np.int32), ENTRIES: entries.ravel()}


def _walk(model: Ensemble, views: Views, order: _LeafOrder, depth: list[Longs]) -> dict[int, Any]:
    """Steps by level, a node's two next ones side by side. A leaf's step leads to itself."""
    nodes, trees = model.nodes, len(model.roots)
    total = trees + 2 * len(nodes.feature)
    steps = np.zeros((total, 3), dtype=np.int64)
    steps[:, 1], steps[:, 2] = NEVER, np.arange(total)
    leaf = np.zeros(total, dtype=np.int64)
    step = np.zeros(len(nodes.feature), dtype=np.int64)
    deepest = np.zeros(trees, dtype=np.int64)
    owner = tree_of_nodes(model)
    inner = model.roots >= 0
    step[model.roots[inner]] = np.flatnonzero(inner)
    leaf[:trees][~inner] = order.place[~model.roots[~inner]]
    free = trees
    for level, front in enumerate(depth):
        children = free + 2 * np.arange(len(front))
        free += 2 * len(front)
        steps[step[front]] = np.column_stack([views.view[front], views.bound[front], children])
        for child, at in ((nodes.left[front], children), (nodes.right[front], children + 1)):
            step[child[child >= 0]] = at[child >= 0]
            leaf[at[child < 0]] = order.place[~child[child < 0]]
        deepest[owner[front]] = level + 1
    by_depth = np.argsort(-deepest, kind="stable")
    deeper = [int((deepest > level).sum()) for level in range(len(depth))]
    return {
        WALK: steps.astype(np.uint32).ravel(),
        WALK_LEAF: leaf.astype(np.int32),
        ROOTS: np.arange(trees, dtype=np.int32),
        DEPTHS: deepest.astype(np.int32),
        BY_DEPTH: by_depth.astype(np.int32),
        DEEPER: np.array(deeper, dtype=np.int32),
    }


def _jobs(model: Ensemble, order: _LeafOrder, large: npt.NDArray[np.bool_]) -> dict[int, Any]:
    """What is added, by class and within a class in the library's order."""
    trees = np.arange(len(model.roots))
    among = np.where(large, np.cumsum(large) - 1, np.cumsum(~large) - 1)
    shared = bool((model.tree_class == -1).any())
    rows, starts = [], [0]
    for each in range(model.classes):
        own = trees if shared else trees[model.tree_class == each]
        offset = model.first_leaf[own] + (each * len(model.leaf) if shared else 0)
        rows.append(np.column_stack([own, among[own], large[own], offset]))
        starts.append(starts[-1] + len(own))
    return {JOBS: np.concatenate(rows).astype(np.int32).ravel(), CLASS_JOBS: np.array(starts, dtype=np.int32)}
