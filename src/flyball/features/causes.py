"""Why a served value differs from its recomputation: one thing is changed at a time, and what explains it is named.

A hypothesis says for which values it may hold and under which conditions the served value would be right. They are
tried from the cheapest and most specific to the most general; the first whose result equals the served value names the
cause. Two need no recomputation: a difference of rounding, and rows that are gone, so that nothing can be recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from flyball.define.expression import leaves
from flyball.define.spec import FeatureSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import Flags, Floats, Words
from flyball.features.recompute import Computed, Conditions, Definition, Recomputation
from flyball.features.views import CompiledView
from flyball.kernel.errors import FlyballError

RELATIVE = 1e-9  # of floats that count as equal
ROUNDING = 1e-4  # relative; up to it a difference is taken for one of rounding
_MOVED = ("min", "max", "first", "last", "nth_last", "count", "distinct")  # operators whose results are exact
_WHOLE = ("integer", "decimal", "boolean", "category", "timestamp", "string")
_ROUNDED = ("log", "log1p", "exp")  # whose last bit depends on the machine


class Cause(StrEnum):
    """In the order in which they are tried."""

    REQUEST_FIELD = "request_field"  # the row that arrived later says otherwise
    TTL = "ttl"  # a value was too old, or was taken for too old
    DEFINITION_CHANGED = "definition_changed"  # another definition of the view gives it
    DUPLICATE = "duplicate"  # events of one key were counted each
    LATE_DATA = "late_data"  # events that its horizon does not cover were counted
    NUMERIC = "numeric"  # it differs by rounding
    RETENTION = "retention"  # rows that it saw are gone
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What hypotheses draw on beside the records: other definitions of the version's views, each with its source, and
    of a source by its name the event time before which rows are gone (None: none are), asked only where it matters."""

    others: Mapping[str, Sequence[tuple[ViewSpec, SourceSpec]]]
    kept_from: Callable[[str], int | None]


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """`may` `(n, features)`: the values for which the served one is right under `conditions`, if it holds."""

    cause: Cause
    conditions: Conditions
    may: Flags


def hypotheses(again: Recomputation, known: Known, rows: Words) -> list[Hypothesis]:
    """What may explain mismatches of these rows, in the order of `Cause`."""
    features = again.definition.features
    n, anywhere = len(rows), np.ones((len(rows), len(features)), np.bool_)
    views = [{leaf[1] for leaf in leaves(f.expr) if leaf[0] == "view"} for f in features]
    reading = np.broadcast_to(np.array([bool(names) for names in views]), (n, len(features)))
    mortal = {view.name for view in again.definition.views if view.ttl is not None}
    aging = np.broadcast_to(np.array([bool(names & mortal) for names in views]), (n, len(features)))
    found = [
        Hypothesis(
            cause=Cause.REQUEST_FIELD,
            conditions=Conditions(inputs="logged"),
            may=anywhere & again.arrived.differs[rows][:, None],
        ),
        Hypothesis(cause=Cause.TTL, conditions=Conditions(ttl="ignored"), may=aging),
        Hypothesis(cause=Cause.TTL, conditions=Conditions(ttl="exclusive"), may=aging),
    ]
    for name, others in known.others.items():
        uses = np.broadcast_to(np.array([name in names for names in views]), (n, len(features)))
        found += [
            Hypothesis(cause=Cause.DEFINITION_CHANGED, conditions=Conditions(views={name: other}), may=uses)
            for other in others
        ]
    return [
        *found,
        Hypothesis(cause=Cause.DUPLICATE, conditions=Conditions(duplicates=True), may=reading),
        Hypothesis(cause=Cause.LATE_DATA, conditions=Conditions(seen="known"), may=reading),
        Hypothesis(cause=Cause.LATE_DATA, conditions=Conditions(seen="event"), may=reading),
    ]


def classify(
    again: Recomputation, known: Known, rows: Words, served: Floats, base: Computed, wrong: Flags
) -> list[tuple[int, int, Cause]]:
    """The cause of each mismatch: (row, feature, cause), rows as positions in `rows`.

    Args:
        served, base, wrong: `(n, features)`: what was served, its recomputation, and where they differ.
    """
    exact = np.array([is_exact(f, again.definition) for f in again.definition.features], np.bool_)
    causes: dict[tuple[int, int], Cause] = {}
    open_ = wrong.copy()
    for hypothesis in hypotheses(again, known, rows):
        test = open_ & hypothesis.may
        where = np.flatnonzero(test.any(axis=1))
        if not len(where):
            continue
        computed = again.compute(hypothesis.conditions, rows[where])
        right = test[where] & computed.known & equal(served[where], computed.matrix, exact, computed.slack)
        for i, k in zip(*np.nonzero(right), strict=True):
            causes[int(where[i]), int(k)] = hypothesis.cause
            open_[where[i], k] = False
    for i, k in zip(*np.nonzero(open_), strict=True):
        causes[int(i), int(k)] = _rest(again, known, int(rows[i]), int(k), served[i, k], base.matrix[i, k])
    return [(row, feature, cause) for (row, feature), cause in sorted(causes.items())]


def _rest(again: Recomputation, known: Known, row: int, k: int, served: float, recomputed: float) -> Cause:
    feature = again.definition.features[k]
    near = abs(served - recomputed) <= ROUNDING * max(abs(served), abs(recomputed))  # false where one is null
    if near and not counts(feature, again.definition):
        return Cause.NUMERIC
    newest = _newest_default(again, feature)
    if newest is not None:
        ttl, default = newest
        if ttl is not None and _same(served, default) and not _same(recomputed, default):
            return Cause.TTL  # a value that is there was taken for too old
        if not _same(recomputed, default):
            return Cause.UNKNOWN  # the newest row is there, so none that is gone would count
    for source, starts in again.starts(feature).items():
        kept = known.kept_from(source)
        if kept is not None and starts[row] < kept:
            return Cause.RETENTION
    return Cause.UNKNOWN


def _newest_default(again: Recomputation, feature: FeatureSpec) -> tuple[int | None, float] | None:
    """Of a feature that is a latest value: its view's ttl, and its default."""
    expr = feature.expr
    spec = again.definition.view(expr[1]) if expr[0] == "view" else None
    if spec is None or spec.kind != "latest":
        return None
    view = CompiledView(spec, again.definition.source(spec.source))
    return spec.ttl, float(view.defaults[spec.features.index(expr[2])])


def _same(a: float, b: float) -> bool:
    return a == b or (bool(np.isnan(a)) and bool(np.isnan(b)))


def equal(served: Floats, again: Floats, exact: Flags, slack: Floats | float = 0.0) -> Flags:
    """Where values agree: null with null; exact ones to the bit, floats to 1e-9 relative or to `slack` `(n, features)`.
    `exact` is `(features,)`."""
    with np.errstate(invalid="ignore"):
        near = np.abs(served - again) <= np.maximum(RELATIVE * np.maximum(np.abs(served), np.abs(again)), slack)
    same: Flags = (np.isnan(served) & np.isnan(again)) | (served == again) | (near & ~exact)
    return same


def is_exact(feature: FeatureSpec, definition: Definition) -> bool:
    """Whether a feature has one right value to the last bit: it is computed from whole numbers and moved values."""
    if _uses(feature.expr, _ROUNDED):
        return False
    return all(_exact_leaf(leaf, definition) for leaf in leaves(feature.expr))


def counts(feature: FeatureSpec, definition: Definition) -> bool:
    """Whether a feature is a count or a category, which no rounding can change."""
    if feature.categories or feature.type in ("boolean", "category"):
        return True
    expr = feature.expr
    if expr[0] != "view":
        return False
    view = definition.view(expr[1])
    return any(a.name == expr[2] and a.op in ("count", "distinct") for a in view.aggregates)


def _exact_leaf(leaf: list[object], definition: Definition) -> bool:
    if leaf[0] != "view":
        return True
    view = definition.view(str(leaf[1]))
    aggregate = next((a for a in view.aggregates if a.name == leaf[2]), None)
    if aggregate is None or aggregate.op in _MOVED:
        return True
    value = aggregate.value or ["lit", 0]
    whole = value[0] == "col" and definition.source(view.source).column(value[2]).type in _WHOLE
    return whole and aggregate.op in ("sum", "mean")


def _uses(expr: list[object], operators: Sequence[str]) -> bool:
    if expr[0] in operators:
        return True
    return any(_uses(part, operators) for part in expr[1:] if isinstance(part, list) and part)


def usable(
    others: Mapping[str, Sequence[tuple[ViewSpec, SourceSpec]]],
) -> dict[str, list[tuple[ViewSpec, SourceSpec]]]:
    """The definitions that can be computed at all."""
    found: dict[str, list[tuple[ViewSpec, SourceSpec]]] = {}
    for name, (view, source) in ((n, other) for n, several in others.items() for other in several):
        try:
            CompiledView(view, source)
        except FlyballError:
            continue
        found.setdefault(name, []).append((view, source))
    return found
