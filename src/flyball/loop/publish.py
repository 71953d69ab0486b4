"""The plans that ingest and the workers run by. They are derived state: built from what is stored, never edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from flyball.define.derive import inputs_of
from flyball.define.expression import columns_of
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
            older = [ref for ref in (served.current, served.previous) if ref] if service.older else []
            planned[service.name] = _service(service, parts, rollout, manifest, versions, older)
        found = {"services": planned, "versions": versions, "tokens": self._tokens()}
        turns = unit.erasures.turns()
        return found | ({"segments": turns} if turns else {})

    def _ingest(self, unit: Unit) -> dict[str, Any]:
        """What ingest keeps up: all that is declared, and what served versions read as it was declared for them.

        A view in use does not change under a version, nor does the source that it reads: where a declaration went on,
        the version's own pair of view and source stands under `earlier`, and a source that left its project stays.
        """
        projects = unit.projects.all()
        sources = {source.name: source for project in projects for source in project.sources}
        views = {view.definition: view for project in projects for view in project.views}
        earlier: dict[str, tuple[ViewSpec, SourceSpec]] = {}
        for ref in needed(unit, projects):
            version = version_digest(unit, ref)
            for derived in self._derived_of(version):  # nor does a derived source change under a version
                sources.setdefault(derived.name, derived)
            for view, source in self._reads(version):
                current = sources.setdefault(source.name, source)
                if not reads_alike(view, source, current):
                    earlier[digest([view.definition, source.to_data()])] = (view, source)
                else:
                    views.setdefault(view.definition, view)
        return {
            "sources": [sources[name].to_data() for name in sorted(sources)],
            "views": [views[definition].to_data() for definition in sorted(views)],
            "earlier": [
                {"view": view.to_data(), "source": source.to_data()} for _, (view, source) in sorted(earlier.items())
            ],
            "tokens": self._tokens(),
        }

    def _derived_of(self, version: str) -> list[SourceSpec]:
        """The derived sources of a version, and the sources that they are derived from."""
        declared = self._packages.manifest(version).get("sources") or []
        found = {spec.name: spec for spec in (msgspec.convert(data, SourceSpec) for data in declared)}
        kept = {name for spec in found.values() if spec.derive for name in (spec.name, *inputs_of(spec))}
        return [found[name] for name in sorted(kept & set(found))]

    def _reads(self, version: str) -> list[tuple[ViewSpec, SourceSpec]]:
        """The views of a version, each with its source, as they were declared when it was made."""
        manifest = self._packages.manifest(version)
        declared = [msgspec.convert(data, SourceSpec) for data in manifest.get("sources") or []]
        sources = {source.name: source for source in declared}
        views = [msgspec.convert(data, ViewSpec) for data in manifest.get("views") or []]
        return [(view, sources[view.source]) for view in views if view.source in sources]


def needed(unit: Unit, projects: list[ProjectSpec]) -> list[str]:
    """The versions whose online state must be there: served, to be rolled back to, rolled out, or awaiting approval."""
    refs: dict[str, None] = {}
    for _, service in services(projects):
        rollout, served = unit.rollouts.open(service.name), unit.rollouts.served(service.name)
        awaiting = unit.loop.awaiting(service.name)
        found = [served.current, served.previous, awaiting.version if awaiting is not None else ""]
        found += [rollout.version, rollout.previous] if rollout is not None else []
        refs |= dict.fromkeys(filter(None, found))
    return list(refs)


def reads_alike(view: ViewSpec, was: SourceSpec, now: SourceSpec) -> bool:
    """Whether a view of `was` is the same view of `now`: no column that it reads was declared anew, nor how far ahead
    of the clock an event may be, which says how much a state holds."""
    names = set(view.entity) | {latest.column for latest in view.latest}
    for expr in [e for a in view.aggregates for e in (a.value, a.where)] + [view.where]:
        names |= columns_of(expr, view.source) if expr is not None else set()
    kept = {column.name: (column.type, column.scale, column.categories) for column in now.columns}
    return was.skew == now.skew and all(
        kept.get(column.name) == (column.type, column.scale, column.categories)
        for column in was.columns
        if column.name in names
    )


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
    older: list[str],
) -> dict[str, Any]:
    source: dict[str, Any] = next((s for s in manifest.get("sources") or [] if s["name"] == manifest.get("rows")), {})
    p99 = service.load.p99
    follows = DEADLINE if p99 is None else max(SHORTEST_DEADLINE, DEADLINE_PER_P99 * p99)
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
        "deadline_us": service.deadline or follows,
        "max_batch": service.max_batch,
        "cache": service.cache,
        "older": older,
        "log": service.log,
        "max_staleness": service.max_staleness,
        "views": service.views,
        "key": list(source.get("key") or []),
        "pii": [column["name"] for column in source.get("columns") or [] if column.get("pii")],
    }
