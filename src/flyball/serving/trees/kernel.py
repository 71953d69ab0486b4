"""The kernel as Python calls it: rows are scored in blocks of 128, the rest in a block of 64, a few rows by a walk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from flyball.serving.trees.adding import add_block, add_rows, finish
from flyball.serving.trees.coding import encode, rank
from flyball.serving.trees.compiled import compiled
from flyball.serving.trees.lanes import (
    BLOCK,
    HALF,
    at,
    doubles,
    floats,
    full_block,
    half_block,
    ints,
    longs,
    put,
)
from flyball.serving.trees.scanning import scan
from flyball.serving.trees.sections import (
    CLASSES,
    COLUMN_COUNT,
    FEW,
    FIRST_LEAF,
    LABELS,
    LARGE,
    LEAVES,
    SHAPE,
    SINGLE,
    SMALL_TREES,
    TREES,
    VIEW_COUNT,
)
from flyball.serving.trees.walking import walk_block, walk_rows


@compiled
def aligned(size: int) -> Any:
    """Bytes at an address that is a multiple of 64, of zeros: codes of rows that are not there are read, not used."""
    room = np.zeros(size + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size]


@compiled
def _few(pool: Any, matrix: Any, first: int, rows: int, raw: bool, out: Any) -> None:
    views, trees, classes = (
        at(longs(pool, SHAPE), VIEW_COUNT),
        at(longs(pool, SHAPE), TREES),
        at(longs(pool, SHAPE), CLASSES),
    )
    ranks, leaves = np.empty(views * rows, np.int32), np.empty(trees * rows, np.int32)
    values, buckets, places = np.empty(rows), np.empty(rows, np.int32), np.empty(trees, np.int32)
    rank(pool, matrix, first, rows, rows, ranks, values, buckets)
    walk_rows(pool, ranks, rows, rows, places, leaves)
    if at(longs(pool, SHAPE), SINGLE):
        narrow = np.empty(classes * rows, np.float32)
        add_rows(pool, floats(pool, LEAVES), rows, rows, leaves, narrow)
        finish(pool, narrow, first, rows, rows, raw, out)
    else:
        wide = np.empty(classes * rows, np.float64)
        add_rows(pool, doubles(pool, LEAVES), rows, rows, leaves, wide)
        finish(pool, wide, first, rows, rows, raw, out)


@compiled
def _blocks(pool: Any, matrix: Any, first: int, end: int, stride: int, full: Any, raw: bool, out: Any) -> None:
    views, columns, classes = (
        at(longs(pool, SHAPE), VIEW_COUNT),
        at(longs(pool, SHAPE), COLUMN_COUNT),
        at(longs(pool, SHAPE), CLASSES),
    )
    large_trees = len(ints(pool, LARGE))
    ranks, codes = np.empty(views * stride, np.int32), aligned(columns * stride)
    values, buckets, places = np.empty(stride), np.empty(stride, np.int32), np.empty(stride, np.int32)
    small, large = aligned(at(longs(pool, SHAPE), SMALL_TREES) * stride), np.empty(large_trees * stride, np.int32)
    narrow, wide = np.empty(classes * stride, np.float32), np.empty(classes * stride, np.float64)
    while first < end:
        rows = min(stride, end - first)
        rank(pool, matrix, first, rows, stride, ranks, values, buckets)
        encode(pool, rows, stride, ranks, codes)
        scan(pool, codes, stride, full, small)
        walk_block(pool, ranks, rows, stride, places, large)
        if at(longs(pool, SHAPE), SINGLE):
            add_block(pool, floats(pool, LEAVES), rows, stride, small, large, narrow)
            finish(pool, narrow, first, rows, stride, raw, out)
        else:
            add_block(pool, doubles(pool, LEAVES), rows, stride, small, large, wide)
            finish(pool, wide, first, rows, stride, raw, out)
        first += rows


@compiled
def predict(pool: Any, matrix: Any, raw: bool, out: Any) -> None:
    """Score `matrix` with a program into `out`, `(n * classes,)`."""
    rows, few = matrix.shape[0], at(longs(pool, SHAPE), FEW)
    whole = rows - rows % BLOCK
    if rows - whole > HALF:
        whole = rows
    if whole > 0:
        _blocks(pool, matrix, 0, whole, BLOCK, full_block(), raw, out)
    if rows - whole > few:
        _blocks(pool, matrix, whole, rows, HALF, half_block(), raw, out)
    elif rows > whole:
        _few(pool, matrix, whole, rows - whole, raw, out)


@compiled
def reach(pool: Any, matrix: Any, out: Any) -> None:
    """The leaf that each row reaches in each tree, by the library's numbers: `(n * trees,)`."""
    trees, labels, first_leaf = at(longs(pool, SHAPE), TREES), ints(pool, LABELS), ints(pool, FIRST_LEAF)
    ranks, leaves = np.empty(at(longs(pool, SHAPE), VIEW_COUNT), np.int32), np.empty(trees, np.int32)
    values, buckets, places = np.empty(1), np.empty(1, np.int32), np.empty(trees, np.int32)
    for row in range(matrix.shape[0]):
        rank(pool, matrix, row, 1, 1, ranks, values, buckets)
        walk_rows(pool, ranks, 1, 1, places, leaves)
        for tree in range(trees):
            put(out, row * trees + tree, at(labels, np.int64(at(first_leaf, tree)) + np.int64(at(leaves, tree))))


_POOL = types.Array(types.uint8, 1, "C")
_MATRIX = types.Array(types.float64, 2, "C", readonly=True)  # what is writable fits it, too


def load() -> None:
    """Compile the kernel, or load it from its cache. No other types are compiled afterwards."""
    for function, signature in (
        (predict, (_POOL, _MATRIX, types.boolean, types.Array(types.float64, 1, "C"))),
        (reach, (_POOL, _MATRIX, types.Array(types.int32, 1, "C"))),
    ):
        dispatcher: Any = function
        if not dispatcher.signatures:
            dispatcher.compile(types.void(*signature))
            dispatcher.disable_compile()
