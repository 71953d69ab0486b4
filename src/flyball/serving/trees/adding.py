"""The last steps: leaves are added in the library's order and precision, and sums become predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flyball.serving.trees.compiled import compiled
from flyball.serving.trees.lanes import (
    at,
    doubles,
    ints,
    longs,
    put,
)
from flyball.serving.trees.links import LinkKind
from flyball.serving.trees.sections import (
    BASE,
    CLASS_JOBS,
    CLASSES,
    JOBS,
    LINK,
    SCALES,
    SHAPE,
    SINGLE,
)

_SIGMOID, _EXP, _SOFTMAX = int(LinkKind.SIGMOID), int(LinkKind.EXP), int(LinkKind.SOFTMAX)
_LOG1P_EXP, _SIGNED_SQUARE, _STEP = int(LinkKind.LOG1P_EXP), int(LinkKind.SIGNED_SQUARE), int(LinkKind.STEP)


@compiled
def add_block(pool: Any, values: Any, rows: int, stride: int, small: Any, large: Any, sums: Any) -> None:
    """Sums of a block from the leaves of its small and large trees: `(classes, stride)`, of the type of `values`.

    Four small trees at a time, so that a sum is read and written once for them; each sum still takes tree after tree.
    """
    jobs, class_jobs, base = ints(pool, JOBS), ints(pool, CLASS_JOBS), doubles(pool, BASE)
    for each in range(len(class_jobs) - 1):
        out = each * stride
        for row in range(rows):
            put(sums, out + row, at(base, each))
        job, end = np.int64(at(class_jobs, each)), np.int64(at(class_jobs, each + 1))
        while job < end:
            one = 4 * job
            if job + 4 <= end and not (jobs[one + 2] | jobs[one + 6] | jobs[one + 10] | jobs[one + 14]):
                _add_four(jobs, one, values, rows, stride, small, out, sums)
                job += 4
            else:
                tree, offset = np.int64(at(jobs, one + 1)) * stride, np.int64(at(jobs, one + 3))
                if at(jobs, one + 2):
                    for row in range(rows):
                        leaf = np.int64(at(large, tree + row))
                        put(sums, out + row, at(sums, out + row) + at(values, offset + leaf))
                else:
                    for row in range(rows):
                        leaf = np.int64(at(small, tree + row))
                        put(sums, out + row, at(sums, out + row) + at(values, offset + leaf))
                job += 1


@compiled
def _add_four(jobs: Any, one: Any, values: Any, rows: int, stride: int, small: Any, out: int, sums: Any) -> None:
    first, second = np.int64(at(jobs, one + 1)) * stride, np.int64(at(jobs, one + 5)) * stride
    third, fourth = np.int64(at(jobs, one + 9)) * stride, np.int64(at(jobs, one + 13)) * stride
    a, b, c, d = at(jobs, one + 3), at(jobs, one + 7), at(jobs, one + 11), at(jobs, one + 15)
    for row in range(rows):
        total = at(sums, out + row)
        total += at(values, np.int64(a) + np.int64(at(small, first + row)))
        total += at(values, np.int64(b) + np.int64(at(small, second + row)))
        total += at(values, np.int64(c) + np.int64(at(small, third + row)))
        total += at(values, np.int64(d) + np.int64(at(small, fourth + row)))
        put(sums, out + row, total)


@compiled
def add_rows(pool: Any, values: Any, rows: int, stride: int, leaves: Any, sums: Any) -> None:
    """Sums of a few rows, from the leaves of all trees as `walk_rows` gives them."""
    jobs, class_jobs, base = ints(pool, JOBS), ints(pool, CLASS_JOBS), doubles(pool, BASE)
    for each in range(len(class_jobs) - 1):
        for row in range(rows):
            put(sums, each * stride + row, at(base, each))
            total = at(sums, each * stride + row)
            for job in range(at(class_jobs, each), at(class_jobs, each + 1)):
                leaf = np.int64(at(leaves, np.int64(at(jobs, 4 * job)) * stride + row))
                total += at(values, np.int64(at(jobs, 4 * job + 3)) + leaf)
            put(sums, each * stride + row, total)


@compiled
def finish(pool: Any, sums: Any, first: int, rows: int, stride: int, raw: bool, out: Any) -> None:
    """Write the predictions of rows from `first` on to `out`, `(n * classes,)`; with `raw`, the sums as they are."""
    classes, link = at(longs(pool, SHAPE), CLASSES), at(longs(pool, SHAPE), LINK)
    divisor, scale = at(doubles(pool, SCALES), 0), at(doubles(pool, SCALES), 1)
    if raw:
        divisor, link = 1.0, 0
    for row in range(rows):
        begin = (first + row) * classes
        for each in range(classes):
            total = np.float64(at(sums, each * stride + row)) / divisor
            put(out, begin + each, total if link == 0 else _linked(link, scale, total))
        if link == _SOFTMAX:
            _softmax(out, begin, classes)
        if at(longs(pool, SHAPE), SINGLE):
            for each in range(classes):
                put(out, begin + each, np.float64(np.float32(at(out, begin + each))))


@compiled
def _linked(link: int, scale: float, total: float) -> float:
    if link == _SIGMOID:
        return 1.0 / (1.0 + math.exp(-scale * total))
    if link == _EXP:
        return math.exp(total)
    if link == _LOG1P_EXP:
        return math.log1p(math.exp(total))
    if link == _SIGNED_SQUARE:
        return abs(total) * total
    if link == _STEP:
        return 1.0 if total > 0.0 else 0.0
    return total


@compiled
def _softmax(out: Any, begin: int, classes: int) -> None:
    most = at(out, begin)
    for each in range(1, classes):
        most = max(most, at(out, begin + each))
    total = 0.0
    for each in range(classes):
        power = math.exp(at(out, begin + each) - most)
        put(out, begin + each, power)
        total += power
    for each in range(classes):
        put(out, begin + each, at(out, begin + each) / total)
