"""Checking a project: what no single declaration can see."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

from flyball.define.algebra import Named
from flyball.define.compile import compile_project
from flyball.define.declaration import Declared
from flyball.define.expression import leaves
from flyball.define.leak import columns_read, leaks
from flyball.define.model import Model
from flyball.define.problem import Problem
from flyball.define.project import Project
from flyball.define.source import Source
from flyball.define.spec import (
    BatchSpec,
    ColumnSpec,
    ExprData,
    FeatureSpec,
    ModelSpec,
    ProjectSpec,
    ServiceSpec,
    SourceSpec,
    TaskSpec,
    ViewSpec,
)
from flyball.define.task import METRICS
from flyball.define.view import View
from flyball.kernel.errors import InvalidError, did_you_mean
from flyball.kernel.times import show_duration

_TEXTS = ("string", "category")


def check(project: Project | ProjectSpec) -> list[Problem]:
    """All problems of a project, errors first; of a project that does not compile, why it does not."""
    if isinstance(project, Project):
        try:
            spec = compile_project(project)
        except InvalidError as error:
            subject = f"project {project.name}"
            return [Problem(code=error.code, subject=subject, message=error.message, hint=error.hint)]
        found = [*_spec(spec), *_unreached(project, spec)]
    else:
        found = list(_spec(project))
    return sorted(dict.fromkeys(found), key=lambda p: p.severity != "error")


def _spec(spec: ProjectSpec) -> Iterator[Problem]:
    yield from _names(spec)
    for source in spec.sources:
        yield from _source(source, spec)
    for model in spec.models:
        yield from _model(model, spec)
    for service in spec.services:
        yield from _service(service, spec)
    for batch in spec.batches:
        yield from _batch(batch, spec)


# Names


def _names(spec: ProjectSpec) -> Iterator[Problem]:
    for kind, plural in (("source", "sources"), ("view", "views"), ("model", "models"), ("service", "services")):
        yield from _twice(kind, [item.name for item in getattr(spec, plural)])
    yield from _twice("batch", [b.name for b in spec.batches])
    tables = {s.name for s in spec.sources} | {"predictions"}
    yield from _twice("table", [b.output for b in spec.batches])
    for batch in spec.batches:
        if batch.output in tables:
            yield Problem(
                code="duplicate_name",
                subject=f"batch {batch.name}",
                message=f"its output {batch.output!r} is the table of something else; name another with output=",
            )


def _twice(kind: str, names: list[str]) -> Iterator[Problem]:
    for name, count in Counter(names).items():
        if count > 1:
            yield Problem(code="duplicate_name", subject=f"{kind} {name}", message=f"the name stands {count} times")


def _unreached(project: Project, spec: ProjectSpec) -> Iterator[Problem]:
    """Declarations in the project's own module that nothing uses."""
    module = sys.modules.get(project.module)
    used = {("source", s.name) for s in spec.sources} | {("view", v.name) for v in spec.views}
    used |= {("model", m.name) for m in spec.models}
    used |= {("transform", f.name) for m in spec.models for f in m.features}
    inner = {id(part) for m in _models(project) for _, expr in m.features for part in expr.parts()}
    for value in list(vars(module).values()) if module else ():
        kind = _kind(value)
        name = str(getattr(value, "__name__", "") or getattr(value, "name", ""))
        if not kind or id(value) in inner or (kind, name) in used or _module(value) != project.module:
            continue
        yield Problem(
            code="unreachable",
            subject=f"{kind} {name}",
            message="it is declared, and nothing in the project uses it",
            hint="sources=[…] of fb.Project takes in a source that is not used yet" if kind == "source" else "",
            severity="warning",
        )


def _models(project: Project) -> list[Model]:
    used = [s.model for s in project.services] + [b.model for b in project.batches]
    return [m for m in used if isinstance(m, Model)]


def _module(value: object) -> str:
    """Where something is declared, so that what a module merely imports is not counted as its own."""
    if isinstance(value, Model):
        return value.function.__module__
    return value.module if isinstance(value, Named) else str(getattr(value, "__module__", ""))


def _kind(value: object) -> str:
    if isinstance(value, Model):
        return "model"
    if isinstance(value, Named):
        return "transform"
    if isinstance(value, Declared) and "_sealed" in value.__dict__:
        return "source" if issubclass(value, Source) else "view" if issubclass(value, View) else ""
    return ""


# Sources


def _source(source: SourceSpec, spec: ProjectSpec) -> Iterator[Problem]:
    if source.retention is None:
        return
    for view in spec.views:
        longest = max((a.window for a in view.aggregates), default=0)
        if view.source == source.name and longest > source.retention:
            yield Problem(
                code="retention_too_short",
                subject=f"source {source.name}",
                message=(
                    f"events are kept for {show_duration(source.retention)}, and the view {view.name} "
                    f"looks back {show_duration(longest)}"
                ),
                hint=f'write retention="{show_duration(longest)}" or more, or shorten the window',
            )


# Models


def _model(model: ModelSpec, spec: ProjectSpec) -> Iterator[Problem]:
    rows = _columns_of_rows(model, spec)
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


def _columns_of_rows(model: ModelSpec, spec: ProjectSpec) -> dict[str, ColumnSpec]:
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


# Services and batches


def _service(service: ServiceSpec, spec: ProjectSpec) -> Iterator[Problem]:
    subject = f"service {service.name}"
    model = next((m for m in spec.models if m.name == service.model), None)
    if model is None:
        message = f"there is no model {service.model!r}; {did_you_mean(service.model, [m.name for m in spec.models])}"
        yield Problem(code="unknown_model", subject=subject, message=message)
        return
    if service.default is not None and model.task is not None:
        wrong = _default(service.default, model.task)
        if wrong:
            yield Problem(code="bad_default", subject=subject, message=f"default {service.default!r}: {wrong}")
    steps = service.rollout.steps
    if service.rollout.kind == "canary" and (not steps or steps[-1] != 100 or list(steps) != sorted(set(steps))):
        message = f"the steps of its canary, {steps}, do not rise to 100"
        yield Problem(code="bad_steps", subject=subject, message=message)
    for trigger in service.retrain.on if service.retrain else ():
        if trigger.kind == "quality_drop" and model.task is not None and trigger.metric not in METRICS[model.task.kind]:
            near = did_you_mean(trigger.metric, METRICS[model.task.kind])
            message = (
                f"fb.quality_drop watches {trigger.metric!r}, which a {model.task.kind} task does not have; {near}"
            )
            yield Problem(code="unknown_metric", subject=subject, message=message)


def _default(default: float | str, task: TaskSpec) -> str:
    """What is wrong with a service's default; empty where it is in the task's range."""
    if task.kind == "binary":
        inside = not isinstance(default, str) and 0 <= default <= 1
        return "" if inside else "a binary task answers a probability, 0 to 1"
    if task.kind == "multiclass":
        inside = isinstance(default, str) and default in task.classes
        return (
            ""
            if inside
            else f"a multi-class task answers one of its classes; {did_you_mean(str(default), task.classes)}"
        )
    return "a regression answers a number" if isinstance(default, str) else ""


def _batch(batch: BatchSpec, spec: ProjectSpec) -> Iterator[Problem]:
    model = next((m for m in spec.models if m.name == batch.model), None)
    rows = next((s for s in spec.sources if s.name == batch.rows), None)
    if model is None or rows is None or model.rows in ("", batch.rows):
        return
    there = {c.name: c.type for c in rows.columns}
    wanted = _columns_of_rows(model, spec)
    needed = {leaf[2] for f in model.features for leaf in leaves(f.expr) if leaf[0] == "col"}
    needed |= {name for f in model.features for leaf in leaves(f.expr) if leaf[0] == "view" for name in leaf[3]}
    for name in sorted(needed):
        if name not in there or (name in wanted and wanted[name].type != there[name]):
            yield Problem(
                code="unknown_column",
                subject=f"batch {batch.name}",
                message=f"the model {model.name} needs {name!r}, and {batch.rows} has it not, or as another type",
            )
