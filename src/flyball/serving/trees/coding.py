"""The first step: values become ranks, and ranks become codes, for a block of rows.

Ranks are int32, `(views, stride)`; codes are bytes, `(columns, stride)`. Rows beyond the block's own are left as they
are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flyball.serving.trees.columns import PLAIN, SLICE, ZERO_APART
from flyball.serving.trees.compiled import compiled
from flyball.serving.trees.ensemble import (
    ABOVE_MINUS_ONE,
    MEMBERS_RIGHT,
    MISSING_LEFT,
    ROUNDED,
    WHOLE,
    ZERO,
)
from flyball.serving.trees.lanes import (
    at,
    doubles,
    ints,
    put,
    shorts,
    words,
)
from flyball.serving.trees.sections import (
    BUCKETS,
    COLUMNS,
    FIELDS,
    RANGES,
    THRESHOLDS,
    VIEWS,
    WORDS,
)


@compiled
def rank(pool: Any, matrix: Any, first: int, rows: int, stride: int, ranks: Any, values: Any, buckets: Any) -> None:
    """The ranks of rows `first` to `first + rows` in all views; `values` and `buckets` are room for a block."""
    fields, ranges, views = ints(pool, FIELDS), doubles(pool, RANGES), ints(pool, VIEWS)
    starts, thresholds = shorts(pool, BUCKETS), doubles(pool, THRESHOLDS)
    wide = matrix.shape[1]
    for field in range(len(fields) // 6 - 1):
        start = first * wide + at(fields, 6 * field)
        for row in range(rows):
            put(values, row, at(matrix, start + row * wide))
        _find(fields, ranges, starts, thresholds, field, rows, values, buckets)
        for view in range(at(fields, 6 * field + 5), at(fields, 6 * field + 11)):
            kind, apart, base = at(views, 5 * view), at(views, 5 * view + 1), view * stride
            if kind == PLAIN:
                for row in range(rows):
                    put(ranks, base + row, at(buckets, row))
            else:
                _settle(kind, apart, base, rows, values, buckets, ranks)
    for view in range(at(fields, len(fields) - 1), len(views) // 5):
        start = first * wide + at(views, 5 * view + 2)
        for row in range(rows):
            put(values, row, at(matrix, start + row * wide))
        _look_up(views, words(pool, WORDS), view, stride, rows, values, ranks)


@compiled
def _find(
    fields: Any, ranges: Any, starts: Any, thresholds: Any, field: int, rows: int, values: Any, buckets: Any
) -> None:
    """Each value's rank, in place of its bucket. The arithmetic is that of `columns.bucket_of`."""
    threshold, steps = np.int64(at(fields, 6 * field + 1)), at(fields, 6 * field + 2)
    bucket, last = np.int64(at(fields, 6 * field + 3)), at(fields, 6 * field + 4) - 1.0
    low, scale = at(ranges, 2 * field), at(ranges, 2 * field + 1)
    for row in range(rows):
        place = (at(values, row) - low) * scale
        place = place if place > 0.0 else 0.0
        place = place if place < last else last
        put(buckets, row, np.int32(place))
    if steps == 1:
        for row in range(rows):
            found = np.int64(at(starts, bucket + at(buckets, row)))
            put(buckets, row, np.int32(found + np.int64(at(values, row) > at(thresholds, threshold + found))))
    elif steps == 2:
        for row in range(rows):
            value = at(values, row)
            found = np.int64(at(starts, bucket + at(buckets, row)))
            found += 2 * np.int64(value > at(thresholds, threshold + found + 1))
            put(buckets, row, np.int32(found + np.int64(value > at(thresholds, threshold + found))))
    else:
        for row in range(rows):
            value = at(values, row)
            found = np.int64(at(starts, bucket + at(buckets, row)))
            for step in range(steps - 1, -1, -1):
                found += np.int64(value > at(thresholds, threshold + found + (1 << step) - 1)) << step
            put(buckets, row, np.int32(found))


@compiled
def _settle(kind: int, apart: Any, base: int, rows: int, values: Any, found: Any, ranks: Any) -> None:
    """Ranks of a view in which what is missing has a rank of its own."""
    zero = ZERO if kind == ZERO_APART else -1.0
    for row in range(rows):
        value = at(values, row)
        lacks = (value != value) | (abs(value) <= zero)
        put(ranks, base + row, apart if lacks else at(found, row))


@compiled
def _look_up(views: Any, sets: Any, view: int, stride: int, rows: int, values: Any, ranks: Any) -> None:
    """Ranks of a view of a set: 1 for what goes right."""
    flags = at(views, 5 * view + 1)
    start, end = np.int64(at(views, 5 * view + 3)), np.int64(at(views, 5 * view + 4))
    least = -1.0 if flags & ABOVE_MINUS_ONE else -5e-324
    beyond = 32.0 * (end - start)
    member, missing = 1 if flags & MEMBERS_RIGHT else 0, 0 if flags & MISSING_LEFT else 1
    for row in range(rows):
        value = at(values, row)
        if flags & ROUNDED:
            value = np.float64(np.float32(value))
        goes = missing if value != value else 1 - member
        if value > least and value < beyond:
            category = np.int64(value)
            whole = not flags & WHOLE or np.float64(category) == value
            if whole and (at(sets, start + (category >> 5)) >> np.uint32(category & 31)) & np.uint32(1):
                goes = member
        put(ranks, view * stride + row, np.int32(goes))


@compiled
def encode(pool: Any, rows: int, stride: int, ranks: Any, codes: Any) -> None:
    """Codes of all columns from the ranks of their views."""
    columns = ints(pool, COLUMNS)
    for column in range(len(columns) // 3):
        source, base = np.int64(at(columns, 3 * column)) * stride, column * stride
        below, flip = at(columns, 3 * column + 1), at(columns, 3 * column + 2)
        for row in range(rows):
            above = np.int32(at(ranks, source + row) - below)  # of 32 bits again: more of them fit an instruction
            code = min(max(above, np.int32(0)), np.int32(SLICE))
            put(codes, base + row, np.uint8(np.int32(code ^ flip)))
