"""The plans that ingest and the workers run by. They are derived state: built from what is stored, never edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from flyball.define.derive import inputs_of
from flyball.define.spec import ProjectSpec, ServiceSpec, SourceSpec, ViewSpec
from flyball.kernel.ids import digest
from flyball.kernel.times import MILLISECOND, SECOND
from flyball.loop.ports import Acknowledgement, Packages, PlanEpoch, Plans, Unit
from flyball.rollout.decide import Share, shares
from flyball.rollout.state import OPEN, Evidence, RolloutState

KINDS = ("ingest", "serving")
INGEST_PROCESS = "ingest"
DEADLINE = 1 * SECOND  # of a request, where the service states no p99
DEADLINE_PER_P99 = 5
SHORTEST_DEADLINE = 50 * MILLISECOND


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """A plan whose epoch is stored; it is written after the transaction that stored it was committed."""

    kind: str
    plan: dict[str, Any]


class Publisher:
    """Builds, numbers and publishes the plans, and reads what processes say about them.

    `tokens` gives the hashed keys with their permissions, as the platform has them.
    """

    def __init__(self, plans: Plans, packages: Packages, *, tokens: Callable[[], dict[str, list[str]]]) -> None:
        self._plans = plans
        self._packages = packages
        self._tokens = tokens

    def stage(self, unit: Unit) -> list[Staged]:
        """Within a transaction: give each plan that changed its next epoch, and note it on the rollouts it carries."""
        staged = []
        for kind, contents in (("serving", self._serving(unit)), ("ingest", self._ingest(unit))):
            stored = unit.loop.plan(kind)
            content_digest = digest(contents)
            if stored.digest != content_digest:
                stored = PlanEpoch(kind=kind, epoch=stored.epoch + 1, digest=content_digest)
                unit.loop.put_plan(stored)
            staged.append(Staged(kind=kind, plan={"epoch": stored.epoch, "digest": content_digest, **contents}))
            if kind == "serving":
                self._mark_rollouts(unit, stored.epoch)
        return staged

    def write(self, staged: list[Staged]) -> list[str]:
        """Publish what differs from the files; the kinds that were written."""
        written = []
        for item in staged:
            current = self._plans.current(item.kind)
            if current is None or (current.get("epoch"), current.get("digest")) != (
                item.plan["epoch"],
                item.plan["digest"],
            ):
                self._plans.publish(item.kind, item.plan)
                written.append(item.kind)
        return written

    def workers(self) -> list[Acknowledgement]:
        return [ack for ack in self._plans.acknowledgements() if ack.process != INGEST_PROCESS]

    def ingest(self) -> Acknowledgement | None:
        return next((ack for ack in self._plans.acknowledgements() if ack.process == INGEST_PROCESS), None)

    def _mark_rollouts(self, unit: Unit, epoch: int) -> None:
        for _, service in services(unit.projects.all()):
            rollout = unit.rollouts.open(service.name)
            if rollout is not None and rollout.epoch == 0:
                unit.rollouts.put(replace(rollout, epoch=epoch))

    def _serving(self, unit: Unit) -> dict[str, Any]:
        planned: dict[str, Any] = {}
        versions: dict[str, Any] = {}
        for _project, service in services(unit.projects.all()):
            rollout = unit.rollouts.open(service.name)
            served = unit.rollouts.served(service.name)
            parts = shares(served.current, rollout)
            if not parts:
                continue  # nothing was released yet
            kept = [part.version for part in parts] + [served.current, served.previous]
            kept += [rollout.version, rollout.previous] if rollout is not None else []
            for ref in filter(None, kept):
                versions[ref] = {"digest": version_digest(unit, ref)}
                versions[ref]["path"] = str(self._packages.path(versions[ref]["digest"]))
            manifest = self._packages.manifest(versions[parts[0].version]["digest"])
            planned[service.name] = _service(service, parts, rollout, manifest, versions)
        return {"services": planned, "versions": versions, "tokens": self._tokens()}

    def _ingest(self, unit: Unit) -> dict[str, Any]:
        projects = unit.projects.all()
        sources = {source.name: source.to_data() for project in projects for source in project.sources}
        views = {view.definition: view.to_data() for project in projects for view in project.views}
        for _, service in services(projects):
            rollout, served = unit.rollouts.open(service.name), unit.rollouts.served(service.name)
            refs = [served.current, served.previous, *([rollout.version] if rollout else [])]
            for ref in filter(None, refs):  # a view in use does not change under a version
                version = version_digest(unit, ref)
                for definition, data in self._views_of(version).items():
                    views.setdefault(definition, data)
                for name, data in self._derived_of(version).items():  # nor does a derived source
                    sources.setdefault(name, data)
        return {
            "sources": [sources[name] for name in sorted(sources)],
            "views": [views[definition] for definition in sorted(views)],
            "tokens": self._tokens(),
        }

    def _derived_of(self, version: str) -> dict[str, dict[str, Any]]:
        """The derived sources of a version, and the sources that they are derived from."""
        found = {data["name"]: data for data in self._packages.manifest(version).get("sources") or []}
        specs = [msgspec.convert(data, SourceSpec) for data in found.values()]
        kept = {name for spec in specs if spec.derive for name in (spec.name, *inputs_of(spec))}
        return {name: found[name] for name in kept & set(found)}

    def _views_of(self, version: str) -> dict[str, dict[str, Any]]:
        views = self._packages.manifest(version).get("views") or []
        return {msgspec.convert(data, ViewSpec).definition: data for data in views}


def services(projects: list[ProjectSpec]) -> list[tuple[ProjectSpec, ServiceSpec]]:
    return [(project, service) for project in projects for service in project.services]


def version_digest(unit: Unit, ref: str) -> str:
    model, _, number = ref.rpartition("/")
    return unit.versions.get(model, int(number)).digest


def observe_rollout(unit: Unit, state: RolloutState, workers: list[Acknowledgement]) -> Evidence:
    """What is known about a rollout: its counts, and what the live workers say about the plan that carries it."""
    refused = next((w.error for w in workers if w.error and w.epoch >= state.epoch and state.step_at is None), "")
    taken = bool(workers) and all(worker.epoch >= state.epoch and not worker.error for worker in workers)
    return Evidence(
        acknowledged=state.epoch > 0 and taken,
        refused=refused if state.epoch > 0 and state.phase in OPEN else "",
        counts=unit.rollouts.counts(state.id),
    )


def _service(
    service: ServiceSpec,
    parts: tuple[Share, ...],
    rollout: RolloutState | None,
    manifest: dict[str, Any],
    versions: dict[str, Any],
) -> dict[str, Any]:
    source: dict[str, Any] = next((s for s in manifest.get("sources") or [] if s["name"] == manifest.get("rows")), {})
    p99 = service.load.p99
    return {
        "routes": [
            {
                "version": part.version,
                "digest": versions[part.version]["digest"],
                "weight": part.weight,
                "arm": part.arm,
            }
            for part in parts
        ],
        "salt": rollout.id if rollout is not None else service.name,
        "default": service.default,
        "deadline_us": DEADLINE if p99 is None else max(SHORTEST_DEADLINE, DEADLINE_PER_P99 * p99),
        "log": service.log,
        "key": list(source.get("key") or []),
        "pii": [column["name"] for column in source.get("columns") or [] if column.get("pii")],
    }
