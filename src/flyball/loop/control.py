"""The core of the control process: every change and question of the API, and the tick that runs the loops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyball.define.spec import BatchSpec, ModelSpec, ProjectSpec, RolloutSpec, ServiceSpec
from flyball.governance.facts import Recorder, fact_data
from flyball.kernel.clock import Clock
from flyball.kernel.errors import (
    ConflictError,
    FlyballError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    did_you_mean,
)
from flyball.kernel.facts import Actor
from flyball.loop.apply import Projects
from flyball.loop.batches import Batches, scoring_version
from flyball.loop.changes import Changes
from flyball.loop.collect import Collector
from flyball.loop.ports import IngestClient, Lake, Metadata, Packages, Plans, PredictionLog, Unit
from flyball.loop.promote import Promotion
from flyball.loop.publish import Publisher
from flyball.loop.receipt import receipt, version_data
from flyball.loop.release import Releases
from flyball.loop.retraining import Retraining
from flyball.loop.runs import Runs, read_lines
from flyball.loop.show import alert_data, quality_data, rollout_data, run_data
from flyball.loop.watch import Readers, Watch, watched_metric
from flyball.monitoring.drift import DriftRule
from flyball.monitoring.quality import QualityRule
from flyball.registry.ports import ArtifactStore, VersionRecord
from flyball.rollout.decide import shares
from flyball.training.ports import Engine, RunState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """What control is wired with. `runs` is the folder of run directories; `tokens` gives hashed keys and their
    permissions, for the plans; `wall` is real time in microseconds, for facts."""

    metadata: Metadata
    artifacts: ArtifactStore
    packages: Packages
    engine: Engine
    ingest: IngestClient
    plans: Plans
    log: PredictionLog
    lake: Lake
    readers: Readers
    clock: Clock
    runs: Path
    tokens: Callable[[], dict[str, list[str]]] = dict
    drift: DriftRule = field(default_factory=DriftRule)
    quality: QualityRule = field(default_factory=QualityRule)


class Control:
    """All methods take and give plain values and raise `FlyballError`s. Any thread may call; one at a time, `tick`."""

    def __init__(self, adapters: Adapters) -> None:
        a = self._a = adapters
        self._clock = a.clock
        self._metadata = a.metadata
        self._recorder = Recorder(a.clock)
        self._publisher = Publisher(a.plans, a.packages, tokens=a.tokens)
        self._changes = Changes(a.metadata, self._publisher)
        self._releases = Releases(a.metadata, self._changes, self._publisher, self._recorder, a.clock)
        promotion = Promotion(self._releases, self._recorder, a.clock)
        self._runs = Runs(
            a.metadata, self._changes, a.engine, a.ingest, a.packages, promotion, self._recorder, a.clock, folder=a.runs
        )
        self._projects = Projects(
            a.metadata,
            self._changes,
            a.artifacts,
            a.packages,
            promotion,
            self._releases,
            self._runs,
            self._recorder,
            a.clock,
        )
        self._watch = Watch(
            a.metadata, a.packages, a.readers, a.ingest, self._recorder, a.clock, drift=a.drift, quality=a.quality
        )
        self._collector = Collector(a.metadata, a.log, a.lake, a.clock, observers=[self._watch.count])
        self._loops: dict[str, Callable[[], Any]] = {
            "collect": self._collect,
            "runs": self._runs.tick,
            "rollout": self._releases.tick,
            "monitor": self._watch.tick,
            "retrain": Retraining(a.metadata, self._runs, self._recorder, a.clock).tick,
            "schedule": Batches(a.metadata, self._runs, a.clock).tick,
        }
        self._health: dict[str, dict[str, Any]] = {}

    # the loops

    def start(self) -> list[str]:
        """To be called once, before the first tick: the plans on disk become what is stored."""
        return self._changes.republish()

    def tick(self) -> dict[str, Any]:
        """Run each loop once. One that fails is logged and shown in `status`; the others go on."""
        done: dict[str, Any] = {}
        for name, loop in self._loops.items():
            try:
                done[name] = loop()
                self._health[name] = {"ok": True, "at": self._clock.now()}
            except UnavailableError as error:
                done[name] = f"not yet: {error.message}"
                self._health[name] = {"ok": True, "at": self._clock.now(), "waiting": error.message}
            except Exception as error:  # a loop's defect must not stop the other loops
                logger.exception("the %s loop failed", name)
                done[name] = f"failed: {error}"
                shown = error.to_data() if isinstance(error, FlyballError) else {"message": repr(error)}
                self._health[name] = {"ok": False, "at": self._clock.now(), "error": shown}
        return done

    def _collect(self) -> dict[str, int]:
        done = self._collector.tick()
        return {"rows": done.rows, "torn": done.torn, "removed": done.removed}

    # projects and artifacts

    def put_artifact(self, data: bytes) -> str:
        """Keep bytes by their SHA-256, which is returned. Idempotent."""
        return self._a.artifacts.put(data)

    def project(self, name: str) -> ProjectSpec:
        with self._metadata.read() as unit:
            found = unit.projects.get(name)
            if found is None:
                names = [project.name for project in unit.projects.all()]
                raise NotFoundError(
                    f"there is no project {name!r}: {did_you_mean(name, names)}",
                    code="project_not_found",
                    hint="flyball apply makes one",
                )
            return found

    def plan(self, project: ProjectSpec) -> dict[str, Any]:
        """What `apply` would do: `define.plan.Plan` as data."""
        return self._projects.plan(project).to_data()

    def apply(self, project: ProjectSpec, *, base: str, actor: Actor) -> dict[str, Any]:
        """Do what `plan` showed; see `loop.apply.Projects.apply`. Gives `changes`, `runs`, `versions`, `released`."""
        return self._projects.apply(project, base=base, actor=actor)

    # training

    def train(
        self, model: str, *, actor: Actor, reason: str = "", params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Queue a training run, or take the one that waits already."""
        with self._metadata.write() as unit:
            project, spec = self._model(unit, model)
            if not spec.function:
                raise InvalidError(
                    f"model {model} is not trained here; only models with a training function are", code="not_trainable"
                )
            record = self._runs.submit(
                unit, project, spec, cause="manual", actor=actor, reason=reason or "asked for", params=params
            )
            return run_data(record, unit.loop.intent(record.id))

    def runs(self, *, model: str = "", kind: str = "", limit: int = 50) -> list[dict[str, Any]]:
        """The newest first."""
        with self._metadata.read() as unit:
            records = unit.runs.list(model=model, kind=kind, limit=limit)
            return [run_data(record, unit.loop.intent(record.id)) for record in records]

    def run(self, run: str) -> dict[str, Any]:
        """A run with its progress and its metrics so far."""
        with self._metadata.read() as unit:
            record = unit.runs.get(run)
            data = run_data(record, unit.loop.intent(run))
        return data | self._runs.reports(run)

    def run_logs(self, run: str, after: int = 0) -> dict[str, Any]:
        """Log lines behind the first `after`, and `next` to ask with again."""
        with self._metadata.read() as unit:
            state = unit.runs.get(run).state
        lines = read_lines(self._runs.directory(run) / "log.jsonl", after)
        return {"lines": lines, "next": after + len(lines), "final": state.final}

    def versions(self, model: str) -> dict[str, Any]:
        with self._metadata.read() as unit:
            self._model(unit, model)
            found = [version_data(version) for version in unit.versions.list(model)]
            return {"model": model, "versions": found, "aliases": unit.versions.aliases(model)}

    # services

    def service(self, name: str) -> dict[str, Any]:
        """What a service serves, its rollout with the evidence, and what waits."""
        with self._metadata.read() as unit:
            _, spec = self._service(unit, name)
            served, rollout = unit.rollouts.served(name), unit.rollouts.open(name)
            awaiting = unit.loop.awaiting(name)
            return {
                "service": name,
                "model": spec.model,
                "version": served.current,
                "previous": served.previous,
                "routes": [
                    {"version": share.version, "weight": share.weight, "arm": share.arm}
                    for share in shares(served.current, rollout)
                ],
                "rollout": rollout_data(unit, rollout) if rollout is not None else None,
                "history": [rollout_data(unit, state) for state in unit.rollouts.history(name, limit=10)],
                "awaiting": {"version": awaiting.version, "since": awaiting.since} if awaiting is not None else None,
                "retrain": unit.loop.retrain(name).decision,
                "alerts": [alert_data(alert) for alert in unit.monitoring.alerts(name, limit=20)],
                "spec": spec.to_data(),
            }

    def release(
        self, service: str, *, version: int | str, strategy: RolloutSpec | None = None, actor: Actor, reason: str = ""
    ) -> dict[str, Any]:
        """Begin to serve a version (a number, or `model/number`) by the service's rollout, or by `strategy`."""
        with self._changes.change() as unit:
            _, spec = self._service(unit, service)
            ref = self._version(unit, spec, version)
            state = self._releases.start(
                unit, spec, ref, actor=actor, strategy=strategy, reason=reason or f"released by {actor.name}"
            )
        return state.to_data()

    def rollback(self, service: str, *, actor: Actor) -> dict[str, Any]:
        """Serve the previous version again, at once."""
        with self._changes.change() as unit:
            _, spec = self._service(unit, service)
            state = self._releases.rollback(unit, spec, actor=actor)
        return state.to_data()

    def approve(self, service: str, *, version: int | str, actor: Actor) -> dict[str, Any]:
        """Release the version that waits for approval; naming another one is refused."""
        with self._changes.change() as unit:
            _, spec = self._service(unit, service)
            ref = self._version(unit, spec, version)
            awaiting = unit.loop.awaiting(service)
            if awaiting is None or awaiting.version != ref:
                waits = f"{awaiting.version} does" if awaiting is not None else "none does"
                raise ConflictError(
                    f"{ref} does not wait for approval by {service}; {waits}",
                    code="not_awaiting",
                    hint=f"flyball release {service} --version N releases any registered version",
                )
            self._recorder.record(
                unit.facts, actor, "release.approve", f"service:{service}", after={"version": ref}, note=awaiting.reason
            )
            state = self._releases.start(
                unit, spec, ref, actor=actor, strategy=None, reason=f"approved by {actor.name}"
            )
        return state.to_data()

    # monitoring

    def quality(self, service: str) -> dict[str, Any]:
        """Quality per version and period against the baseline of the version that serves; the newest first."""
        with self._metadata.read() as unit:
            project, spec = self._service(unit, service)
            metric = watched_metric(spec, project.model(spec.model))
            current = unit.rollouts.served(service).current
            baseline = self._version_record(unit, current).metrics.get(metric) if current else None
            return {
                "service": service,
                "version": current,
                "metric": metric,
                "baseline": baseline,
                "uncalibrated": True,
                "periods": [quality_data(period) for period in unit.monitoring.quality(service)],
                "alerts": [a for a in map(alert_data, unit.monitoring.alerts(service)) if a["kind"] == "quality_drop"],
            }

    def drift(self, service: str) -> dict[str, Any]:
        """Drift of the version that serves, per period, the newest first; features with the largest distance first."""
        with self._metadata.read() as unit:
            self._service(unit, service)
            current = unit.rollouts.served(service).current
            reports = self._watch.drift_reports(unit, service, current) if current else []
            rule = self._a.drift
            return {
                "service": service,
                "version": current,
                "uncalibrated": True,
                "rule": {"period": rule.period, "threshold": rule.threshold, "min_rows": rule.min_rows},
                "periods": [report.to_data() for report in reports],
                "alerts": [a for a in map(alert_data, unit.monitoring.alerts(service)) if a["kind"] == "drift"],
            }

    def prediction(self, prediction: str) -> dict[str, Any]:
        """The receipt of a prediction. One that is not in the lake yet is collected first."""
        record = self._a.readers.predictions.find(prediction)
        if record is None:
            raise NotFoundError(
                f"there is no prediction {prediction!r} in the lake",
                code="prediction_not_found",
                hint="a prediction can be looked up a moment after it was answered, when it has been collected",
            )
        with self._metadata.read() as unit:
            return receipt(unit, self._a.packages, record)

    def batch(self, name: str) -> dict[str, Any]:
        """A batch: its schedule, its version, its runs."""
        with self._metadata.read() as unit:
            spec = self._batch(unit, name)
            schedule = unit.loop.schedule(name)
            runs = [
                run for run in unit.runs.list(kind="batch", limit=200) if run.spec.batch and run.spec.batch.name == name
            ]
            return {
                "batch": name,
                "spec": spec.to_data(),
                "version": scoring_version(unit, spec.model),
                "last_at": schedule.last_at,
                "next_at": None if schedule.last_at is None else schedule.last_at + spec.every,
                "scored_through": schedule.after,
                "note": schedule.note,
                "runs": [run_data(run, unit.loop.intent(run.id)) for run in runs[:20]],
            }

    # the platform

    def facts(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """The newest first."""
        with self._metadata.read() as unit:
            return [fact_data(fact) for fact in unit.facts.list(subject=subject, kind=kind, limit=limit)]

    def advance_clock(self, at: int, actor: Actor) -> dict[str, Any]:
        """Move a replay clock forward. Not a fact: a replay driver does it many times a second."""
        advance = getattr(self._clock, "advance_to", None)
        if advance is None:
            raise ConflictError(
                "domain time is the wall clock here, and nobody advances it",
                code="clock_is_wall",
                hint="flyball up --replay-from TIME makes a platform with a replay clock",
            )
        advance(at)
        return {"at": self._clock.now()}

    def status(self) -> dict[str, Any]:
        """What is running, what is behind, what is wrong."""
        workers = self._publisher.workers()
        ingest = self._publisher.ingest()
        with self._metadata.read() as unit:
            projects = unit.projects.all()
            active = unit.runs.list(states=(RunState.QUEUED, RunState.RUNNING))
            plans = {kind: unit.loop.plan(kind).epoch for kind in ("ingest", "serving")}
            services = [self._service_status(unit, s) for project in projects for s in project.services]
            alerts = [alert_data(alert) for alert in unit.monitoring.alerts(open_only=True)]
            runs = [run_data(record, unit.loop.intent(record.id)) for record in active]
            collected = unit.loop.collected_rows()
            pending = unit.loop.pending() is not None
        return {
            "at": self._clock.now(),
            "projects": [{"name": project.name, "digest": project.hash} for project in projects],
            "services": services,
            "runs": runs,
            "predictions": {"collected": collected, "pending": pending},
            "plans": {
                "ingest": {"epoch": plans["ingest"], "taken": _taken([ingest] if ingest else [], plans["ingest"])},
                "serving": {"epoch": plans["serving"], "taken": _taken(workers, plans["serving"])},
                "refused": [
                    f"{ack.process}: {ack.error}" for ack in [*workers, *([ingest] if ingest else [])] if ack.error
                ],
            },
            "alerts": alerts,
            "loops": dict(self._health),
        }

    def _service_status(self, unit: Unit, spec: ServiceSpec) -> dict[str, Any]:
        served, rollout = unit.rollouts.served(spec.name), unit.rollouts.open(spec.name)
        awaiting = unit.loop.awaiting(spec.name)
        return {
            "service": spec.name,
            "version": served.current,
            "rollout": None if rollout is None else {"version": rollout.version, "weight": rollout.weight},
            "awaiting": awaiting.version if awaiting is not None else "",
            "retrain": unit.loop.retrain(spec.name).decision,
        }

    # finding things by name

    def _service(self, unit: Unit, name: str) -> tuple[ProjectSpec, ServiceSpec]:
        pairs = {s.name: (project, s) for project in unit.projects.all() for s in project.services}
        if name not in pairs:
            raise NotFoundError(f"there is no service {name!r}: {did_you_mean(name, pairs)}", code="service_not_found")
        return pairs[name]

    def _model(self, unit: Unit, name: str) -> tuple[ProjectSpec, ModelSpec]:
        pairs = {m.name: (project, m) for project in unit.projects.all() for m in project.models}
        if name not in pairs:
            raise NotFoundError(f"there is no model {name!r}: {did_you_mean(name, pairs)}", code="model_not_found")
        return pairs[name]

    def _batch(self, unit: Unit, name: str) -> BatchSpec:
        batches = {b.name: b for project in unit.projects.all() for b in project.batches}
        if name not in batches:
            raise NotFoundError(f"there is no batch {name!r}: {did_you_mean(name, batches)}", code="batch_not_found")
        return batches[name]

    def _version(self, unit: Unit, service: ServiceSpec, version: int | str) -> str:
        text = str(version)
        ref = text if "/" in text else f"{service.model}/{text}"
        model, _, number = ref.rpartition("/")
        if model != service.model or not number.isdigit():
            raise InvalidError(
                f"{text!r} is not a version of {service.model}, which {service.name} serves",
                code="bad_version",
                hint=f"write its number, as `flyball status` or GET /v1/models/{service.model}/versions shows it",
            )
        return self._version_record(unit, ref).ref

    def _version_record(self, unit: Unit, ref: str) -> VersionRecord:
        model, _, number = ref.rpartition("/")
        return unit.versions.get(model, int(number))


def _taken(acknowledgements: Sequence[Any], epoch: int) -> bool:
    return bool(acknowledgements) and all(ack.epoch >= epoch and not ack.error for ack in acknowledgements)
