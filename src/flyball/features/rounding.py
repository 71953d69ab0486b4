"""How far apart right values of a float's standard deviation may lie, and with it what is computed from one.

It is merged from means and squared deviations, online from other parts than offline. Each part's mean is rounded to a
unit in the last place of the *mean*: where that is much larger than the deviation, as with seconds since 1970, the
deviation has fewer right digits than a float can hold (Chan, Golub and LeVeque 1979), however it is computed in floats.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from flyball.define.expression import leaves
from flyball.define.spec import AggregateSpec, FeatureSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import Floats
from flyball.features.assemble import stack
from flyball.features.evaluate import evaluate
from flyball.features.vector import LeafKey, Vector, leaf_key

UNITS = 4 * float(np.finfo(np.float64).eps)  # of the mean, by which two deviations may differ; 0.3 were seen
_MEAN = "~mean"  # no declared name ends so


def with_means(view: ViewSpec, source: SourceSpec) -> ViewSpec:
    """The view with the mean beside each standard deviation of floats."""
    means = [
        msgspec.structs.replace(a, name=a.name + _MEAN, op="mean", default=None)
        for a in view.aggregates
        if _rounds(a, source)
    ]
    return msgspec.structs.replace(view, aggregates=(*view.aggregates, *means)) if means else view


def slack(feature: FeatureSpec, found: Mapping[LeafKey, Vector], value: Floats) -> Floats:
    """How far from `value` `(n,)` the feature of each row may be and still be right: what it moves by if the deviations
    in it do. 0 where it reads none; `found` are the leaves, with those of `with_means`."""
    n = len(value)
    total = np.zeros(n)
    views = [leaf for leaf in leaves(feature.expr) if leaf[0] == "view"]
    for key, beside in {leaf_key(leaf): _mean_of(leaf) for leaf in views}.items():
        if beside not in found:
            continue
        deviation, mean = found[key], found[beside]
        apart, worst = np.where(mean.valid, UNITS * np.abs(mean.values), 0.0), np.zeros(n)
        for moved in (deviation.values + apart, np.maximum(deviation.values - apart, 0.0)):
            leaf = {key: Vector(moved, deviation.valid)}
            there = stack([feature], [evaluate(feature.expr, {**found, **leaf}, rows=n)], n)[:, 0]
            worst = np.fmax(worst, np.abs(there - value))
        total += np.where(np.isfinite(worst), worst, 0.0)
    return total


def _mean_of(leaf: list[object]) -> LeafKey:
    return leaf_key([*leaf[:2], f"{leaf[2]}{_MEAN}", *leaf[3:]])


def _rounds(a: AggregateSpec, source: SourceSpec) -> bool:
    """Whether it is a standard deviation that is computed in floats; of whole numbers it is exact."""
    if a.op != "std" or a.value is None:
        return False
    return a.value[0] != "col" or source.column(a.value[2]).type == "float"
