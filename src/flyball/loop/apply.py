"""Applying a project: one transaction that stores it, and starts what follows from its changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flyball.define.effect import makes_version
from flyball.define.plan import KINDS, Plan, make_plan
from flyball.define.spec import ModelSpec, ProjectSpec, ServiceSpec
from flyball.governance.facts import Recorder
from flyball.kernel.clock import Clock
from flyball.kernel.errors import ConflictError, InvalidError
from flyball.kernel.facts import Actor
from flyball.kernel.ids import short
from flyball.loop.batches import scoring_version
from flyball.loop.changes import Changes
from flyball.loop.evolution import fitted_to_data
from flyball.loop.ports import Metadata, NewVersion, Packages, Unit
from flyball.loop.promote import Promotion
from flyball.loop.release import Releases, close
from flyball.loop.runs import Runs
from flyball.registry.ports import ArtifactStore
from flyball.rollout.ports import Served

QUARANTINE = ("_quarantine", "_quarantine_changes")
RESERVED = ("predictions", "flyball_feedback")  # tables of the lake that are the platform's own


class Projects:
    """Plans and applies projects. The scope is the project: nothing of another one is touched.

    `types` gives the columns that a table of the lake has, as people read them; empty where there is no such table.
    """

    def __init__(
        self,
        metadata: Metadata,
        changes: Changes,
        artifacts: ArtifactStore,
        packages: Packages,
        promotion: Promotion,
        releases: Releases,
        runs: Runs,
        recorder: Recorder,
        clock: Clock,
        types: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._metadata = metadata
        self._changes = changes
        self._artifacts = artifacts
        self._packages = packages
        self._promotion = promotion
        self._releases = releases
        self._runs = runs
        self._recorder = recorder
        self._clock = clock
        self._types = types

    def plan(self, project: ProjectSpec) -> Plan:
        """What an apply would do now. Changes nothing."""
        with self._metadata.read() as unit:
            check_names(project, unit.projects.all())
            return self._plan(unit, unit.projects.get(project.name), project)

    def _plan(self, unit: Unit, before: ProjectSpec | None, project: ProjectSpec) -> Plan:
        return fitted_to_data(make_plan(before, project), before, unit, self._packages, self._types)

    def apply(self, project: ProjectSpec, *, base: str, actor: Actor) -> dict[str, Any]:
        """Make the project what is declared, if it still is what `base` says (its hash; "" for none).

        Raises:
            ConflictError: `stale_plan`, `name_taken`, `change_refused`; nothing was changed.
            InvalidError: `artifact_missing`, `reserved_name`; nothing was changed.
        """
        self._check(project, self.plan(project), base)
        sealed = self._seal(project)
        with self._changes.change() as unit:
            check_names(project, unit.projects.all())
            before = unit.projects.get(project.name)
            plan = self._plan(unit, before, project)
            self._check(project, plan, base)  # again, under the lock: another apply may have come first
            unit.projects.put(project, at=self._clock.now(), actor=actor.name)
            self._recorder.record(
                unit.facts,
                actor,
                "project.apply",
                f"project:{project.name}",
                before={"digest": plan.base},
                after={"digest": project.hash},
                details={"changes": [f"{c.action} {c.kind} {c.name}" for c in plan.changes]},
            )
            self._remove(unit, plan, actor)
            started = self._follow(unit, before, project, sealed, actor)
        return {
            "project": project.name,
            "digest": project.hash,
            "changes": [change.to_data() for change in plan.changes],
            **started,
        }

    def _check(self, project: ProjectSpec, plan: Plan, base: str) -> None:
        if plan.base != base:
            raise ConflictError(
                f"project {project.name} changed since this plan was made: it is {short(plan.base) or 'not applied'} "
                f"now, and the plan starts from {short(base) or 'nothing'}",
                code="stale_plan",
                hint="flyball plan shows what would change now; then apply that",
                details={"base": base, "current": plan.base},
            )
        if plan.refused:
            reasons = [f"{change.kind} {change.name}: {change.refused}" for change in plan.refused]
            raise ConflictError(
                "; ".join(reasons),
                code="change_refused",
                hint="flyball plan shows all changes",
                details={"refused": reasons},
            )
        wanted = {project.bundle: "the bundle of training code"} | {
            model.pretrained_digest: f"the file {model.pretrained} of model {model.name}" for model in project.models
        }
        for digest, what in wanted.items():
            if digest and not self._artifacts.has(digest):
                raise InvalidError(
                    f"{what} ({short(digest)}) was not uploaded",
                    code="artifact_missing",
                    hint="flyball apply uploads it first; over HTTP, PUT /v1/artifacts/{digest}",
                )

    def _seal(self, project: ProjectSpec) -> dict[str, NewVersion]:
        """Versions of models that nothing trains. Files only, and idempotent: so it comes before the transaction."""
        return {
            model.name: self._packages.pretrained(model, project)
            for model in project.models
            if not model.function and not model.external
        }

    def _remove(self, unit: Unit, plan: Plan, actor: Actor) -> None:
        """Removed services leave the plan; their versions, predictions and facts stay."""
        for change in plan.changes:
            if change.action == "remove" and change.kind == "service":
                close(unit, change.name, "the service was removed")
                unit.loop.clear_awaiting(change.name)
                before = unit.rollouts.served(change.name)
                unit.rollouts.put_served(Served(service=change.name))
                self._recorder.record(
                    unit.facts,
                    actor,
                    "service.remove",
                    f"service:{change.name}",
                    before={"version": before.current},
                )

    def _follow(
        self, unit: Unit, before: ProjectSpec | None, project: ProjectSpec, sealed: dict[str, NewVersion], actor: Actor
    ) -> dict[str, list[str]]:
        """Start what the changes cause: versions of sealed models, training runs, releases."""
        runs, registered, released = [], [], []
        for model in project.models:
            if not _changed(before, project, model):
                continue
            if model.name in sealed:
                version = self._promotion.register_sealed(unit, model, sealed[model.name], actor=actor)
                registered.append(version.ref)
                for service in (s for s in project.services if s.model == model.name):
                    if unit.rollouts.served(service.name).current != version.ref:
                        self._release(unit, service, version.ref, actor, "applied")
                        released.append(service.name)
            elif model.function:
                runs.append(self._runs.submit(unit, project, model, cause="apply", actor=actor, reason="applied").id)
        for service in project.services:
            # A service that serves nothing takes the version that its model has already, unless its gate refused it.
            ref = scoring_version(unit, service.model)
            idle = not unit.rollouts.served(service.name).current and unit.rollouts.open(service.name) is None
            if ref and idle and _passed(unit, ref):
                self._release(unit, service, ref, actor, "its model has a version already")
                released.append(service.name)
            elif ref and _moved(before, project, service) and _passed(unit, ref):
                self._release(unit, service, ref, actor, f"applied with model {service.model}")
                released.append(service.name)
        return {"runs": runs, "versions": registered, "released": released}

    def _release(self, unit: Unit, service: ServiceSpec, ref: str, actor: Actor, reason: str) -> None:
        self._releases.start(unit, service, ref, actor=actor, strategy=None, reason=reason)


def _moved(before: ProjectSpec | None, project: ProjectSpec, service: ServiceSpec) -> bool:
    """Whether a service was given another model, as it stands, and takes it without a review."""
    was = next((s for s in before.services if s.name == service.name), None) if before is not None else None
    reviewed = service.retrain is not None and service.retrain.review == "manual"
    if was is None or was.model == service.model or reviewed:
        return False
    return not _changed(before, project, project.model(service.model))  # else its new version follows


def _passed(unit: Unit, ref: str) -> bool:
    """Whether a version may go out by itself; one that nothing trained has no gate."""
    model, _, number = ref.rpartition("/")
    return bool(unit.versions.get(model, int(number)).gate.get("passed", True))


def _changed(before: ProjectSpec | None, project: ProjectSpec, model: ModelSpec) -> bool:
    """Whether a model is new, or changed in what it answers."""
    was = next((m for m in before.models if m.name == model.name), None) if before is not None else None
    return before is None or was is None or makes_version(was, model, before, project)


def check_names(project: ProjectSpec, applied: list[ProjectSpec]) -> None:
    """Refuse names that another project or the platform itself has."""
    for source in project.sources:
        if source.name in RESERVED or source.name.endswith(QUARANTINE):
            raise InvalidError(
                f"{source.name!r} is a table of the platform's own; give the source another name", code="reserved_name"
            )
    tables = {source.name for other in applied for source in other.sources} | {s.name for s in project.sources}
    for batch in project.batches:
        if batch.output in tables or batch.output in RESERVED or batch.output.endswith(QUARANTINE):
            raise InvalidError(
                f"batch {batch.name} writes to {batch.output!r}, which is a source's or the platform's own table",
                code="reserved_name",
                hint="give it another output=",
            )
    for other in applied:
        if other.name == project.name:
            continue
        for kind, field in KINDS:
            theirs = {item.name for item in getattr(other, field)}
            for item in getattr(project, field):
                if item.name in theirs:
                    raise ConflictError(
                        f"{kind} {item.name!r} belongs to project {other.name}; names are unique across the platform",
                        code="name_taken",
                        hint=f"rename it in {project.name}, or remove it from {other.name} first",
                    )
