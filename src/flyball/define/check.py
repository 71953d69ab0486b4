"""Checking a project: what no single declaration can see."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

from flyball.define.algebra import Named
from flyball.define.compile import compile_project
from flyball.define.declaration import Declared
from flyball.define.derive import inputs_of
from flyball.define.expression import leaves
from flyball.define.fitness import columns_of_rows, model_problems
from flyball.define.model import Model
from flyball.define.problem import Problem
from flyball.define.project import Project
from flyball.define.source import Source
from flyball.define.spec import (
    BatchSpec,
    ProjectSpec,
    ServiceSpec,
    SourceSpec,
    TaskSpec,
)
from flyball.define.task import METRICS
from flyball.define.view import View
from flyball.kernel.errors import InvalidError, did_you_mean
from flyball.kernel.times import show_duration


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
        yield from model_problems(model, spec)
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
    used |= {("view", v.name) for s in spec.sources if s.derive for v in s.derive.views}
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
    there = {s.name for s in spec.sources}
    for name in inputs_of(source):
        if name not in there:
            yield Problem(
                code="unknown_source",
                subject=f"source {source.name}",
                message=f"it is derived from {name!r}, which the project does not have; {did_you_mean(name, there)}",
            )
    if source.origin is not None and source.known.kind == "live":
        yield Problem(
            code="history_not_declared",
            subject=f"source {source.name}",
            message=(
                "it is pulled and does not say when its history was known, so of the rows that are there, those older "
                f"than {show_duration(source.lateness)} and 7 days are quarantined as too late"
            ),
            hint='write known=fb.delay("1h"), or known=fb.known_at("loaded_at"), and the first pull takes all of them',
            severity="warning",
        )
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
    wanted = columns_of_rows(model, spec)
    needed = {leaf[2] for f in model.features for leaf in leaves(f.expr) if leaf[0] == "col"}
    needed |= {name for f in model.features for leaf in leaves(f.expr) if leaf[0] == "view" for name in leaf[3]}
    for name in sorted(needed):
        if name not in there or (name in wanted and wanted[name].type != there[name]):
            yield Problem(
                code="unknown_column",
                subject=f"batch {batch.name}",
                message=f"the model {model.name} needs {name!r}, and {batch.rows} has it not, or as another type",
            )
