"""The core of the control process: every change and question of the API, and the tick that runs the loops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyball.define.spec import ProjectSpec, RolloutSpec, ServiceSpec
from flyball.governance.facts import Recorder
from flyball.kernel.clock import Clock
from flyball.kernel.errors import (
    ConflictError,
    FlyballError,
    InvalidError,
    UnavailableError,
)
from flyball.kernel.facts import Actor
from flyball.loop.apply import Projects
from flyball.loop.audit import Audits, SkewAudit, skew_gate
from flyball.loop.backfill import with_estimates
from flyball.loop.batches import Batches
from flyball.loop.changes import Changes
from flyball.loop.collect import Collector
from flyball.loop.erase import ErasablePredictions, ErasableTables, ErasurePlaces, Erasures
from flyball.loop.names import model_of, service_of, version_of
from flyball.loop.ports import IngestClient, Lake, Metadata, Packages, Plans, PredictionLog, Unit
from flyball.loop.promote import Promotion
from flyball.loop.publish import Publisher
from flyball.loop.questions import Questions
from flyball.loop.release import Releases
from flyball.loop.retraining import Retraining
from flyball.loop.runs import Runs
from flyball.loop.show import run_data
from flyball.loop.watch import Readers, Watch
from flyball.monitoring.drift import DriftRule
from flyball.monitoring.quality import QualityRule
from flyball.registry.ports import ArtifactStore
from flyball.training.ports import Engine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """What control is wired with. `runs` is the folder of run directories; `tokens` gives hashed keys and their
    permissions, for the plans; `measured` what earlier builds of views took."""

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
    erasable: ErasableTables
    predictions: ErasablePredictions
    audits: Audits
    tokens: Callable[[], dict[str, list[str]]] = dict
    measured: Callable[[], list[dict[str, Any]]] = list
    drift: DriftRule = field(default_factory=DriftRule)
    quality: QualityRule = field(default_factory=QualityRule)


class Control(Questions):
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
            a.lake.types,
        )
        self._watch = Watch(
            a.metadata, a.packages, a.readers, a.ingest, self._recorder, a.clock, drift=a.drift, quality=a.quality
        )
        places = ErasurePlaces(
            predictions=a.predictions, tables=a.erasable, log=a.log, packages=a.packages, runs=a.runs
        )
        self._erasures = Erasures(
            a.metadata, self._changes, self._publisher, a.ingest, places, self._recorder, a.clock, seal=a.readers.seal
        )
        self._audit = SkewAudit(a.metadata, a.packages, a.ingest, a.audits, self._recorder, a.clock)
        observers = [self._watch.count, self._audit.sample]
        self._collector = Collector(a.metadata, a.log, a.lake, a.clock, observers=observers)
        super().__init__(
            a.metadata,
            a.packages,
            self._publisher,
            self._runs,
            self._watch,
            a.readers,
            a.audits,
            a.ingest,
            a.clock,
            a.drift,
        )
        self._loops: dict[str, Callable[[], Any]] = {
            "collect": self._collect,
            "runs": self._runs.tick,
            "rollout": self._releases.tick,
            "monitor": self._watch.tick,
            "audit": self._audit.tick,
            "retrain": Retraining(a.metadata, self._runs, self._recorder, a.clock).tick,
            "schedule": Batches(a.metadata, self._runs, a.clock).tick,
            "erase": self._erasures.tick,
        }

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
                self.health[name] = {"ok": True, "at": self._clock.now()}
            except UnavailableError as error:
                done[name] = f"not yet: {error.message}"
                self.health[name] = {"ok": True, "at": self._clock.now(), "waiting": error.message}
            except Exception as error:  # a loop's defect must not stop the other loops
                logger.exception("the %s loop failed", name)
                done[name] = f"failed: {error}"
                shown = error.to_data() if isinstance(error, FlyballError) else {"message": repr(error)}
                self.health[name] = {"ok": False, "at": self._clock.now(), "error": shown}
        return done

    def _collect(self) -> dict[str, int]:
        done = self._collector.tick()
        return {"rows": done.rows, "torn": done.torn, "removed": done.removed}

    # projects and artifacts

    def put_artifact(self, data: bytes) -> str:
        """Keep bytes by their SHA-256, which is returned. Idempotent."""
        return self._a.artifacts.put(data)

    def plan(self, project: ProjectSpec) -> dict[str, Any]:
        """What `apply` would do: `define.plan.Plan` as data, with what its backfills take."""
        plan = self._projects.plan(project)
        try:
            sizes = self._a.ingest.sizes()
        except UnavailableError:
            sizes = None
        return with_estimates(plan, sizes, self._a.measured()).to_data()

    def apply(self, project: ProjectSpec, *, base: str, actor: Actor) -> dict[str, Any]:
        """Do what `plan` showed; see `loop.apply.Projects.apply`. Gives `changes`, `runs`, `versions`, `released`."""
        return self._projects.apply(project, base=base, actor=actor)

    # training

    def train(
        self, model: str, *, actor: Actor, reason: str = "", params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Queue a training run, or take the one that waits already."""
        with self._metadata.write() as unit:
            project, spec = model_of(unit, model)
            if not spec.function:
                raise InvalidError(
                    f"model {model} is not trained here; only models with a training function are", code="not_trainable"
                )
            record = self._runs.submit(
                unit, project, spec, cause="manual", actor=actor, reason=reason or "asked for", params=params
            )
            return run_data(record, unit.loop.intent(record.id))

    # services

    def release(
        self, service: str, *, version: int | str, strategy: RolloutSpec | None = None, actor: Actor, reason: str = ""
    ) -> dict[str, Any]:
        """Begin to serve a version (a number, or `model/number`) by the service's rollout, or by `strategy`."""
        with self._changes.change() as unit:
            _, spec = service_of(unit, service)
            ref = version_of(unit, spec, version)
            self._refuse_skew(unit, spec)
            state = self._releases.start(
                unit, spec, ref, actor=actor, strategy=strategy, reason=reason or f"released by {actor.name}"
            )
        return state.to_data()

    def _refuse_skew(self, unit: Unit, service: ServiceSpec) -> None:
        """Nothing new is released while what is served is not known to agree with training, where that is asked for."""
        gate = skew_gate(unit, service, unit.rollouts.served(service.name).current, self._clock.now())
        if gate is not None and not gate.passed:
            raise ConflictError(
                "; ".join(gate.reasons),
                code="skew_too_high",
                hint=f"flyball skew {service.name}; flyball rollback {service.name} is always possible",
                details=dict(gate.values),
            )

    def rollback(self, service: str, *, actor: Actor) -> dict[str, Any]:
        """Serve the previous version again, at once."""
        with self._changes.change() as unit:
            _, spec = service_of(unit, service)
            state = self._releases.rollback(unit, spec, actor=actor)
        return state.to_data()

    def approve(self, service: str, *, version: int | str, actor: Actor) -> dict[str, Any]:
        """Release the version that waits for approval; naming another one is refused."""
        with self._changes.change() as unit:
            _, spec = service_of(unit, service)
            ref = version_of(unit, spec, version)
            awaiting = unit.loop.awaiting(service)
            if awaiting is None or awaiting.version != ref:
                waits = f"{awaiting.version} does" if awaiting is not None else "none does"
                raise ConflictError(
                    f"{ref} does not wait for approval by {service}; {waits}",
                    code="not_awaiting",
                    hint=f"flyball release {service} --version N releases any registered version",
                )
            self._refuse_skew(unit, spec)
            self._recorder.record(
                unit.facts, actor, "release.approve", f"service:{service}", after={"version": ref}, note=awaiting.reason
            )
            state = self._releases.start(
                unit, spec, ref, actor=actor, strategy=None, reason=f"approved by {actor.name}"
            )
        return state.to_data()

    # erasure

    def erase(
        self,
        source: str,
        column: str,
        value: str,
        *,
        also: Sequence[tuple[str, str]] = (),
        actor: Actor,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Ask for all of one value of a column to be erased, and of the columns `also`; the loops carry it out."""
        return self._erasures.request([(source, column), *also], value, actor=actor, dry_run=dry_run)

    # the platform

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
