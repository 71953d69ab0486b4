"""Whether a model's features, lookups and label fit its rows."""

from __future__ import annotations

from collections.abc import Iterator

from flyball.define.expression import leaves
from flyball.define.leak import columns_read, leaks
from flyball.define.problem import Problem
from flyball.define.spec import ColumnSpec, ExprData, FeatureSpec, ModelSpec, ProjectSpec, ViewSpec
from flyball.kernel.errors import did_you_mean

_TEXTS = ("string", "category")


def model_problems(model: ModelSpec, spec: ProjectSpec) -> Iterator[Problem]:
    rows = columns_of_rows(model, spec)
    for feature in model.features:
        if model.function or model.pretrained:
            yield from _type(model, feature)
        for leaf in leaves(feature.expr):
            if leaf[0] == "col":
                yield from _column(model, feature, leaf, rows, spec)
            elif leaf[0] == "view":
                yield from _lookup(model, feature, leaf, rows, spec)
    yield from leaks(model, spec)
    yield from _label(model, rows, spec)


def columns_of_rows(model: ModelSpec, spec: ProjectSpec) -> dict[str, ColumnSpec]:
    source = next((s for s in spec.sources if s.name == model.rows), None)
    columns = source.columns if source else model.request if not model.function else ()
    return {c.name: c for c in columns}


def _type(model: ModelSpec, feature: FeatureSpec) -> Iterator[Problem]:
    subject = f"model {model.name}"
    if feature.type == "string":
        yield Problem(
            code="text_feature",
            subject=subject,
            message=f"the feature {feature.name} is free text, and a model takes numbers and categories",
            hint="declare its column with fb.Category and its values, or compare it: (S.x == 'a').named('x_is_a')",
        )
    if feature.type == "timestamp":
        yield Problem(
            code="time_feature",
            subject=subject,
            message=f"the feature {feature.name} is a point in time, which no later row has again",
            hint="use .hour() or .weekday(), or the difference to fb.row_time(), in seconds",
            severity="warning",
        )


def _column(
    model: ModelSpec, feature: FeatureSpec, leaf: ExprData, rows: dict[str, ColumnSpec], spec: ProjectSpec
) -> Iterator[Problem]:
    subject, shown = f"model {model.name}", f"{leaf[1]}.{leaf[2]}"
    if leaf[1] != model.rows:
        yield _foreign(model, feature, leaf, spec)
    elif leaf[2] not in rows:
        message = f"the feature {feature.name} reads {shown}, which is not there; {did_you_mean(leaf[2], rows)}"
        yield Problem(code="unknown_column", subject=subject, message=message)
    elif rows[leaf[2]].sensitive:
        yield _sensitive(subject, feature, shown)


def _foreign(model: ModelSpec, feature: FeatureSpec, leaf: ExprData, spec: ProjectSpec) -> Problem:
    subject, shown = f"model {model.name}", f"{leaf[1]}.{leaf[2]}"
    if any(s.name == leaf[1] for s in spec.sources):
        return Problem(
            code="foreign_column",
            subject=subject,
            message=f"the feature {feature.name} reads {shown}, and the rows are of {model.rows or 'no source'}",
            hint=f"aggregate {leaf[1]} in an fb.WindowView, or take its newest value in an fb.LatestView",
        )
    return Problem(
        code="request_only",
        subject=subject,
        message=f"the feature {feature.name} reads {shown}, which only a request has; no training row does",
        hint=f"add the column to {model.rows or 'a source'}, or use a fb.Pretrained with rows={leaf[1]}",
    )


def _sensitive(subject: str, feature: FeatureSpec, shown: str) -> Problem:
    return Problem(
        code="sensitive_feature",
        subject=subject,
        message=f"the feature {feature.name} reads {shown}, which is declared sensitive",
        hint="sensitive columns serve to evaluate by group; leave it out of the features",
    )


def _lookup(
    model: ModelSpec, feature: FeatureSpec, leaf: ExprData, rows: dict[str, ColumnSpec], spec: ProjectSpec
) -> Iterator[Problem]:
    subject = f"model {model.name}"
    view = next((v for v in spec.views if v.name == leaf[1]), None)
    source = next((s for s in spec.sources if view is not None and s.name == view.source), None)
    if view is None or source is None or leaf[2] not in view.features:
        message = f"the feature {feature.name} reads {leaf[1]}.{leaf[2]}, which is not there"
        yield Problem(code="unknown_feature", subject=subject, message=message)
        return
    for name, entity in zip(leaf[3], view.entity, strict=False):
        yield from _lookup_column(model, view, source.column(entity), name, rows)
    columns = {c.name: c for c in source.columns}
    for name in sorted(columns_read(view, leaf[2])):
        if columns[name].sensitive:
            yield _sensitive(subject, feature, f"{source.name}.{name}")


def _lookup_column(
    model: ModelSpec, view: ViewSpec, entity: ColumnSpec, name: str, rows: dict[str, ColumnSpec]
) -> Iterator[Problem]:
    subject = f"model {model.name}"
    column = rows.get(name)
    if column is None:
        yield Problem(
            code="unknown_lookup",
            subject=subject,
            message=(
                f"the view {view.name} is looked up by {name!r}, and {model.rows or 'the model'} has no such column; "
                f"{did_you_mean(name, rows)}"
            ),
            hint=f"look it up by another column: {view.name}.by({model.rows or 'Rows'}.column)",
        )
    elif column.type != entity.type and not (column.type in _TEXTS and entity.type in _TEXTS):
        yield Problem(
            code="lookup_type",
            subject=subject,
            message=(
                f"the view {view.name} is looked up by {model.rows}.{name}, a {column.type}, "
                f"and its entity is a {entity.type}"
            ),
        )


def _label(model: ModelSpec, rows: dict[str, ColumnSpec], spec: ProjectSpec) -> Iterator[Problem]:
    label, subject = model.label, f"model {model.name}"
    if label is None:
        return
    if label.expr is not None:
        for leaf in leaves(label.expr):
            if leaf[0] != "col" or leaf[1] != model.rows or leaf[2] not in rows:
                yield Problem(
                    code="label_source",
                    subject=subject,
                    message=f"the label reads {'.'.join(map(str, leaf[1:3]))}, and the rows are of {model.rows}",
                    hint="for a label over another source write fb.Label(Source.any(on=…, within=…))",
                )
    if label.any is not None:
        if label.any.within <= 0:
            message = f"the label looks into {label.any.source} without within=, so it is never certain"
            yield Problem(code="label_source", subject=subject, message=message)
        if label.any.rows_on not in rows:
            message = f"the label joins by {label.any.rows_on!r}, which {model.rows} does not have"
            yield Problem(code="unknown_column", subject=subject, message=message)
