"""The reference profile of a matrix: what features and scores looked like when a model was trained, as counts in bins.

Bins of numbers are cut at quantiles of the reference, so an outlier moves no edge; what lies outside of all edges is
counted apart, and so is null. `binned` counts any other matrix in the same bins, and counts add up: a period's drift
is judged from sums (`counts` of equal shapes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 32
SCORE = "score"

Floats = npt.NDArray[np.float64]


def profile(
    matrix: Floats,
    features: Sequence[str],
    categorical: Sequence[str],
    categories: Mapping[str, Sequence[str]],
    score: Floats | None = None,
) -> dict[str, Any]:
    """Bins and reference counts of `(n, features)` values, NaN for null, codes for the `categorical` ones.

    Gives `{"rows", "features": {name: bins}, "score": bins, "counts": counts}`, JSON-able. Bins of a number:
    `{"kind": "number", "edges": [at most 33, ascending], "mean", "std"}`; of a category: `{"kind": "category",
    "categories"}`; a score of several classes: `{"kind": "classes", "classes": [bins of each class's score]}`.
    `score` is `(n,)` or `(n, classes)`; None leaves it out.
    """
    bins: dict[str, Any] = {"rows": len(matrix), "features": {}}
    for position, name in enumerate(features):
        if name in categorical:
            bins["features"][name] = {"kind": "category", "categories": list(categories[name])}
        else:
            bins["features"][name] = _number_bins(matrix[:, position])
    if score is not None:
        bins[SCORE] = (
            _number_bins(score)
            if score.ndim == 1
            else {"kind": "classes", "classes": [_number_bins(column) for column in score.T]}
        )
    return bins | {"counts": binned(bins, features, matrix, score)}


def binned(
    reference: Mapping[str, Any], features: Sequence[str], matrix: Floats, score: Floats | None = None
) -> dict[str, Any]:
    """Counts of a matrix in the bins of a profile: `{"rows": n, "features": {name: counts}, "score": counts}`.

    `features` names the matrix's columns; a stored profile does not keep their order.

    Counts of a number: `[null, below, one for each of the len(edges) - 1 bins, above]`; of a category: `[null, one for
    each category, other]`. They sum to the rows. A bin holds `edge <= value < next edge`, the last one its right edge.
    """
    counts: dict[str, Any] = {"rows": len(matrix), "features": {}}
    for position, name in enumerate(features):
        bins = reference["features"][name]
        count = _count_categories if bins["kind"] == "category" else _count_numbers
        counts["features"][name] = count(bins, matrix[:, position])
    if score is not None and SCORE in reference:
        bins = reference[SCORE]
        counts[SCORE] = (
            [_count_numbers(one, column) for one, column in zip(bins["classes"], score.T, strict=True)]
            if bins["kind"] == "classes"
            else _count_numbers(bins, score)
        )
    return counts


def _number_bins(values: Floats) -> dict[str, Any]:
    """Edges at 33 quantiles; of a feature of few values, a bin for each value (the last edge twice)."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return {"kind": "number", "edges": [], "mean": None, "std": None}
    edges = np.unique(known)
    if edges.size <= BINS:
        edges = np.append(edges, edges[-1])
    else:  # values that occurred: interpolation would invent edges between those of a discrete feature
        edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1), method="nearest"))
    return {
        "kind": "number",
        "edges": [float(edge) for edge in edges],
        "mean": float(known.mean()),
        "std": float(known.std()),
    }


def _count_numbers(bins: Mapping[str, Any], values: Floats) -> list[int]:
    edges = np.asarray(bins["edges"], dtype=np.float64)
    known = values[~np.isnan(values)]
    null = len(values) - len(known)
    if edges.size == 0:  # nothing was known in the reference, so everything known is beyond it
        return [null, 0, len(known)]
    inner = edges.size - 1
    positions = np.searchsorted(edges[:-1], known, side="right")
    positions = np.where(known > edges[-1], inner + 1, positions)
    return [null, *np.bincount(positions, minlength=inner + 2).tolist()]


def _count_categories(bins: Mapping[str, Any], values: Floats) -> list[int]:
    size = len(bins["categories"])
    known = values[~np.isnan(values)]
    inside = (known >= 0) & (known < size)
    codes = known[inside].astype(np.int64)
    return [len(values) - len(known), *np.bincount(codes, minlength=size).tolist(), int((~inside).sum())]
