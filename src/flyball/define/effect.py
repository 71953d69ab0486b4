"""What a change of a declaration causes on the platform, and which changes of a source cannot be made."""

from __future__ import annotations

from flyball.define.expression import leaves
from flyball.define.spec import (
    BatchSpec,
    ColumnSpec,
    ModelSpec,
    ProjectSpec,
    RolloutSpec,
    ServiceSpec,
    SourceSpec,
    ViewSpec,
)
from flyball.kernel.times import show_duration

Causes = tuple[str, ...]

REMOVED = {
    "source": "takes no more events into {name} once no served version reads it; its data stays until it is destroyed",
    "view": "drops the online state of {name} once no served version needs it",
    "model": "trains {name} no more; its versions stay",
    "service": "stops answering for {name}; its predictions stay",
    "batch": "stops scoring {name}; its table stays",
}
_LEARNED = ("task", "rows", "request", "label", "features", "split", "module", "function")


# Sources


def source_added(source: SourceSpec, new: ProjectSpec) -> Causes:
    return (f"takes events into {source.name}",)


def source_changed(was: SourceSpec, now: SourceSpec, old: ProjectSpec, new: ProjectSpec) -> Causes:
    causes: list[str] = []
    before = {c.name: c for c in was.columns}
    for column in now.columns:
        known = before.get(column.name)
        if known is None:
            causes.append(f"{column.name} is null in the events of {now.name} that came before")
        elif _narrower(known, column):
            causes.append(f"events whose {column.name} breaks the new contract are quarantined from now on")
    if now.retention is not None and (was.retention is None or now.retention < was.retention):
        causes.append(f"deletes events of {now.name} that are older than {show_duration(now.retention)}")
    return tuple(causes)


def refusal(was: SourceSpec, now: SourceSpec) -> str:
    """Why a change of a source cannot be made, since its events are there; empty where it can."""
    after = {c.name: c for c in now.columns}
    before = {c.name: c for c in was.columns}
    for name, column in before.items():
        if name not in after:
            return f"the column {name} is gone, and events have it; keep it, or declare a new source"
        kept = after[name]
        if kept.type != column.type or kept.scale != column.scale:
            return f"the column {name} was {_type(column)} and is {_type(kept)}; declare a column of another name"
        if column.nullable and not kept.nullable:
            return f"the column {name} may be missing in events that are there; keep nullable=True"
    for name, column in after.items():
        if name not in before and not column.nullable:
            return f"events that are there have no {name}; add it with nullable=True"
    for field in ("key", "event_time", "event_time_unit"):
        if getattr(was, field) != getattr(now, field):
            return f"{field} changed, and with it which events are the same; declare a new source"
    return ""


def _type(column: ColumnSpec) -> str:
    return f"a decimal({column.scale})" if column.type == "decimal" else f"a {column.type}"


def _narrower(was: ColumnSpec, now: ColumnSpec) -> bool:
    if set(was.categories) - set(now.categories) or (now.pattern and now.pattern != was.pattern):
        return True
    if now.max_length is not None and (was.max_length is None or now.max_length < was.max_length):
        return True
    rising = any(
        _bound(now, b) and (getattr(was, b) is None or getattr(now, b) > getattr(was, b)) for b in ("ge", "gt")
    )
    falling = any(
        _bound(now, b) and (getattr(was, b) is None or getattr(now, b) < getattr(was, b)) for b in ("le", "lt")
    )
    return rising or falling


def _bound(column: ColumnSpec, name: str) -> bool:
    return getattr(column, name) is not None


# Views


def view_added(view: ViewSpec, new: ProjectSpec) -> Causes:
    return (f"backfills view {view.name} from {view.source}",)


def view_changed(was: ViewSpec, now: ViewSpec, old: ProjectSpec, new: ProjectSpec) -> Causes:
    if was.definition == now.definition:
        return ()
    return (f"backfills view {now.name} under its new definition; the old one stays while a served version needs it",)


# Models


def model_added(model: ModelSpec, new: ProjectSpec) -> Causes:
    if model.function:
        return (f"trains the first version of {model.name}",)
    if model.pretrained:
        return (f"registers {model.pretrained} as a version of {model.name}",)
    return ()


def model_changed(was: ModelSpec, now: ModelSpec, old: ProjectSpec, new: ProjectSpec) -> Causes:
    if not makes_version(was, now, old, new):
        return ()
    if now.function:
        return (f"trains a new version of {now.name}",)
    if now.pretrained:
        return (f"registers {now.pretrained} as a new version of {now.name}",)
    return (f"answers {now.name} with the new features",)


def makes_version(was: ModelSpec, now: ModelSpec, old: ProjectSpec, new: ProjectSpec) -> bool:
    """Whether a new version is needed: the model itself, a view it reads, or a column of its rows is another."""
    if any(getattr(was, field) != getattr(now, field) for field in _LEARNED):
        return True
    if (was.pretrained_digest, was.external) != (now.pretrained_digest, now.external):
        return True
    for name in sorted(views_of(now)):
        before = next((v for v in old.views if v.name == name), None)
        after = next((v for v in new.views if v.name == name), None)
        if before is None or after is None or before.definition != after.definition:
            return True
    return False


def views_of(model: ModelSpec) -> set[str]:
    """The names of the views that a model's features look up."""
    return {leaf[1] for feature in model.features for leaf in leaves(feature.expr) if leaf[0] == "view"}


# Services and batches


def service_added(service: ServiceSpec, new: ProjectSpec) -> Causes:
    model = new.model(service.model)
    if model.external:
        return (f"logs and watches what {service.name} answers elsewhere",)
    first = " once its first version is trained" if model.function else ""
    return (f"answers for {service.name}{first}",)


def service_changed(was: ServiceSpec, now: ServiceSpec, old: ProjectSpec, new: ProjectSpec) -> Causes:
    if was.model != now.model:
        return (_rollout(now, f"model {now.model} in the place of {was.model}"),)
    before = next((m for m in old.models if m.name == was.model), None)
    if before is None or not makes_version(before, new.model(now.model), old, new):
        return ()
    return (_rollout(now, f"the new version of {now.model}"),)


def _rollout(service: ServiceSpec, what: str) -> str:
    rollout: RolloutSpec = service.rollout
    if service.retrain is not None and service.retrain.review == "manual":
        return f"waits for flyball release {service.name} with {what}"
    if rollout.kind == "canary":
        steps = ", ".join(f"{step:g}" for step in rollout.steps)
        return f"starts a canary of service {service.name} with {what} ({steps} %)"
    return f"gives all traffic of service {service.name} to {what}"


def batch_added(batch: BatchSpec, new: ProjectSpec) -> Causes:
    return (f"scores {batch.rows} with {batch.model} every {show_duration(batch.every)} into {batch.output}",)


def batch_changed(was: BatchSpec, now: BatchSpec, old: ProjectSpec, new: ProjectSpec) -> Causes:
    if (was.model, was.rows, was.every, was.output) == (now.model, now.rows, now.every, now.output):
        return ()
    return batch_added(now, new)
