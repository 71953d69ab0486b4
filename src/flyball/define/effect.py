"""What a change of a declaration causes on the platform; of a source, `evolution` says it."""

from __future__ import annotations

from flyball.define import evolution
from flyball.define.expression import leaves
from flyball.define.spec import (
    BatchSpec,
    ModelSpec,
    OriginSpec,
    ProjectSpec,
    RolloutSpec,
    ServiceSpec,
    SourceSpec,
    Spec,
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


def removed(kind: str, was: Spec) -> str:
    """What becomes of a declaration that is no more."""
    if isinstance(was, SourceSpec) and was.derive is not None:
        return f"derives {was.name} no more once no served version needs it; its data stays"
    return REMOVED[kind].format(name=getattr(was, "name", ""))


# Sources


def source_added(source: SourceSpec, new: ProjectSpec) -> Causes:
    if source.derive is not None:
        return (f"derives {source.name} from {source.derive.source}, from its first event on",)
    if source.origin is not None:
        return (_pulls(source.name, source.origin),)
    return (f"takes events into {source.name}",)


def _pulls(source: str, origin: OriginSpec) -> str:
    return f"pulls {source} from the database of {origin.dsn} every {show_duration(origin.every)}, by {origin.cursor}"


def source_changed(was: SourceSpec, now: SourceSpec, old: ProjectSpec, new: ProjectSpec) -> Causes:
    causes = evolution.source_changed(was, now)
    return causes if was.origin == now.origin else (*causes, _origin_changed(was.origin, now))


def _origin_changed(was: OriginSpec | None, now: SourceSpec) -> str:
    if now.origin is None:
        return f"pulls {now.name} no more"
    if was is None or was.cursor != now.origin.cursor:
        return f"{_pulls(now.name, now.origin)}, all rows anew; those that are there are left out by their key"
    return f"{_pulls(now.name, now.origin)}, from where the last pull ended"


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
