"""How features become codes: fields (a feature's thresholds), views (what is missing, or a set), columns (255 ranks).

A value's rank is how many of its feature's thresholds it is above. It is found through buckets: a line maps the value
to one of them, the same arithmetic maps each threshold, and since the map is monotone, thresholds of lower buckets are
below the value and those of higher ones are not. What is left within the bucket is searched by halves, mostly one or
two comparisons.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.serving.trees.ensemble import CATEGORICAL, MISSING_LEFT, NAN_IS_ZERO, ZERO_MISSING, Ensemble
from flyball.serving.trees.sections import BUCKETS, FIELDS, RANGES, THRESHOLDS, VIEWS, WORDS

Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Kinds of views: what counts as missing and is given a rank of its own, if any is. NaN is above no threshold: rank 0.
PLAIN, NAN_APART, ZERO_APART, CATEGORY = range(4)

SLICE = 255  # ranks of a column
MOST_BUCKETS = 1024
FEW_STEPS = 2  # comparisons within a bucket that are worth no more buckets
MOST_RANKED = 2**16 - 1  # thresholds before a bucket are counted in 16 bits; a field with more has one bucket


class Views:
    """Fields and views of an ensemble; `view` and `bound` of each node: it goes right where the rank reaches the bound.

    Equal tests share: nodes of one feature and one kind of missing value are in one view, equal sets in one.
    """

    def __init__(self, model: Ensemble) -> None:
        nodes = model.nodes
        count = len(nodes.feature)
        self.view: Longs = np.zeros(count, dtype=np.int64)
        self.bound: Longs = np.ones(count, dtype=np.int64)
        self.table: list[tuple[int, int, int, int, int]] = []
        self._fields: list[tuple[int, int, int, int, int, int]] = []
        self._ranges: list[tuple[float, float]] = []
        self._buckets: list[npt.NDArray[np.uint16]] = []
        self._thresholds: list[Floats] = []
        self._words: list[npt.NDArray[np.uint32]] = []
        categorical = (nodes.decision & CATEGORICAL) > 0
        missing = nodes.decision & (MISSING_LEFT | ZERO_MISSING | NAN_IS_ZERO)
        by_feature = np.argsort(nodes.feature, kind="stable")
        numerical = by_feature[~categorical[by_feature]]
        cuts = np.flatnonzero(np.diff(nodes.feature[numerical])) + 1
        for group in np.split(numerical, cuts) if len(numerical) else []:
            self._add_field(int(nodes.feature[group[0]]), group, missing, nodes.threshold)
        self._fields.append((0, 0, 0, 0, 0, len(self.table)))
        self._add_sets(model, np.flatnonzero(categorical))

    def _add_field(self, feature: int, group: Longs, missing: npt.NDArray[Any], threshold: Floats) -> None:
        thresholds = np.unique(threshold[group])
        first = sum(map(len, self._thresholds))
        low, scale, starts, steps = buckets_of(thresholds)
        place = sum(map(len, self._buckets))
        self._fields.append((feature, first, steps, place, len(starts), len(self.table)))
        self._ranges.append((low, scale))
        self._buckets.append(starts)
        self._thresholds.append(np.concatenate([thresholds, np.full(1 << steps, np.inf)]))
        self.bound[group] = np.searchsorted(thresholds, threshold[group]) + 1
        for flags in np.unique(missing[group]).tolist():
            rank = 0 if flags & MISSING_LEFT else len(thresholds)
            if flags & NAN_IS_ZERO:
                rank = int(np.searchsorted(thresholds, 0.0))
            kind = ZERO_APART if flags & ZERO_MISSING else NAN_APART if rank else PLAIN
            self.view[group[missing[group] == flags]] = len(self.table)
            self.table.append((kind, rank, feature, 0, 0))

    def _add_sets(self, model: Ensemble, group: Longs) -> None:
        nodes = model.nodes
        known: dict[tuple[int, int, bytes], int] = {}
        place = 0
        for node in group.tolist():
            words = nodes.words[nodes.words_start[node] : nodes.words_end[node]]
            words = words if len(words) else np.zeros(1, dtype=np.uint32)  # a truncated value is looked up in any set
            key = (int(nodes.feature[node]), int(nodes.decision[node]), words.tobytes())
            if key not in known:
                known[key] = len(self.table)
                self.table.append((CATEGORY, int(nodes.decision[node]), key[0], place, place + len(words)))
                self._words.append(words)
                place += len(words)
            self.view[node] = known[key]

    def sections(self) -> dict[int, Any]:
        """The program's sections of fields and views."""
        return {
            FIELDS: np.array(self._fields, dtype=np.int32).ravel(),
            RANGES: np.array(self._ranges, dtype=np.float64).ravel(),
            BUCKETS: np.concatenate([np.zeros(0, dtype=np.uint16), *self._buckets]),
            THRESHOLDS: np.concatenate([np.zeros(0), *self._thresholds]),
            VIEWS: np.array(self.table, dtype=np.int32).ravel(),
            WORDS: np.concatenate([np.zeros(0, dtype=np.uint32), *self._words]),
        }


class Columns:
    """Slices of views, plain or mirrored; `column` and `bound` (1 to 255) of each node that is `wanted`."""

    def __init__(self, views: Views, mirrored: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_]) -> None:
        part = (views.bound - 1) // SLICE
        within = (views.bound - 1) % SLICE + 1
        key = np.column_stack([views.view, part, mirrored])
        unique, inverse = np.unique(key[wanted], axis=0, return_inverse=True)
        self.table = (unique * [1, SLICE, 255]).astype(np.int32).reshape(-1, 3)
        self.column: Longs = np.zeros(len(key), dtype=np.int64)
        self.column[wanted] = inverse.reshape(-1)
        self.bound: Longs = np.where(mirrored, 256 - within, within)


def buckets_of(thresholds: Floats) -> tuple[float, float, npt.NDArray[np.uint16], int]:
    """Where buckets begin, buckets a unit, thresholds before each bucket, and the steps of a search within one.

    As many buckets as leave two comparisons; fewer where more do not help, so that tables stay small.
    """
    best: tuple[float, float, npt.NDArray[np.uint16], int] | None = None
    finite = thresholds[np.isfinite(thresholds)]
    count = 1
    while count <= MOST_BUCKETS and len(thresholds) <= MOST_RANKED:
        low, scale = _line(finite, count)
        bucket = bucket_of(thresholds, low, scale, count)
        held = np.bincount(bucket, minlength=count)
        steps = int(held.max()).bit_length()
        if best is None or steps < best[3]:
            best = (low, scale, (np.cumsum(held) - held).astype(np.uint16), steps)
        if steps <= FEW_STEPS:
            break
        count *= 2
    return best or (0.0, 0.0, np.zeros(1, dtype=np.uint16), len(thresholds).bit_length())


def bucket_of(values: Floats, low: float, scale: float, count: int) -> Longs:
    """As the kernel does it, operation by operation: NaN and what is below the first bucket are in it."""
    with np.errstate(all="ignore"):
        place = (values - low) * scale
    place = np.where(place > 0.0, place, 0.0)
    return np.where(place < count - 1.0, place, count - 1.0).astype(np.int64)


def _line(finite: Floats, count: int) -> tuple[float, float]:
    if count == 1 or len(finite) < 2:
        return 0.0, 0.0
    with np.errstate(all="ignore"):
        scale = (count - 1) / (finite[-1] - finite[0])
    return (float(finite[0]), float(scale)) if np.isfinite(scale) else (0.0, 0.0)
