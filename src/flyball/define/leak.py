"""Leaks: features that would know, at training, what no request can know."""

from __future__ import annotations

from collections.abc import Iterator

from flyball.define.expression import columns_of, leaves
from flyball.define.label import outcome_of
from flyball.define.problem import Problem
from flyball.define.spec import ExprData, FeatureSpec, ModelSpec, ProjectSpec, SourceSpec, ViewSpec
from flyball.kernel.times import show_duration


def leaks(model: ModelSpec, spec: ProjectSpec) -> Iterator[Problem]:
    """Features that read the label: of their own row, or of rows whose label is not certain yet."""
    label = model.label
    if label is None or label.expr is None:
        return
    outcome = outcome_of(label.expr, label.given)
    rows = next((s for s in spec.sources if s.name == model.rows), None)
    if rows is None:
        return
    views = {v.name: v for v in spec.views}
    for feature in model.features:
        yield from _own_row(model, feature, outcome)
        for leaf in leaves(feature.expr):
            view = views.get(leaf[1]) if leaf[0] == "view" else None
            if view is not None and view.source == model.rows:
                yield from _known_too_soon(model, feature, view, leaf[2], rows, outcome)


def _own_row(model: ModelSpec, feature: FeatureSpec, outcome: set[str]) -> Iterator[Problem]:
    for column in sorted(columns_of(feature.expr, model.rows) & outcome):
        yield Problem(
            code="leak_label",
            subject=f"model {model.name}",
            message=f"the feature {feature.name} reads {model.rows}.{column}, which the label reads of the same row",
            hint=(
                f"leave it out; if {column} is known when a prediction is asked for, "
                f"say so: fb.Label(…, given={model.rows}.{column})"
            ),
        )


def _known_too_soon(
    model: ModelSpec, feature: FeatureSpec, view: ViewSpec, name: str, rows: SourceSpec, outcome: set[str]
) -> Iterator[Problem]:
    assert model.label is not None
    read = sorted(columns_read(view, name) & outcome)
    if not read or rows.known.kind != "delay" or rows.known.delay >= model.label.matures:
        return  # what comes live, or at a time that a column says, is known when it says so
    yield Problem(
        code="leak_view",
        subject=f"model {model.name}",
        message=(
            f"the feature {feature.name} reads {view.name}.{name} over {rows.name}.{', '.join(read)}, which the label "
            f"reads; history of {rows.name} counts as known {show_duration(rows.known.delay)} after its event, and the "
            f"label matures only after {show_duration(model.label.matures)}"
        ),
        hint=f'declare {rows.name} with known=fb.delay("{show_duration(model.label.matures)}")',
    )


def columns_read(view: ViewSpec, feature: str) -> set[str]:
    """The columns of its source that one feature of a view reads, its filters included."""
    found: set[str] = set()
    expressions: list[ExprData | None] = [view.where]
    for aggregate in view.aggregates:
        if aggregate.name == feature:
            expressions += [aggregate.value, aggregate.where]
    for expr in expressions:
        if expr is not None:
            found |= columns_of(expr, view.source)
    return found | {c.column for c in view.latest if c.name == feature}
