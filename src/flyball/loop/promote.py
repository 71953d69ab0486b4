"""What becomes of a new version: registered, judged by the gate, and released, held for approval, or left alone."""

from __future__ import annotations

from typing import Any

from flyball.define.spec import ModelSpec, RolloutSpec, ServiceSpec
from flyball.define.task import default_metric, higher_is_better
from flyball.governance.facts import Recorder
from flyball.kernel.clock import Clock
from flyball.kernel.facts import Actor
from flyball.loop.audit import skew_gate
from flyball.loop.ports import Awaiting, NewVersion, Unit
from flyball.loop.publish import services
from flyball.loop.release import Releases, set_alias
from flyball.registry.gates import Gate, GateResult
from flyball.registry.gates import decide as decide_gate
from flyball.registry.ports import VersionRecord

LOOP = Actor(name="loop:promote")


class Promotion:
    """Takes new versions in."""

    def __init__(self, releases: Releases, recorder: Recorder, clock: Clock) -> None:
        self._releases = releases
        self._recorder = recorder
        self._clock = clock

    def register(
        self, unit: Unit, model: ModelSpec, new: NewVersion, *, run: str, actor: Actor, gate: GateResult | None = None
    ) -> VersionRecord:
        """Give a sealed version its number, and the alias `latest`. Idempotent by `run`."""
        version = unit.versions.register(
            model.name,
            digest=new.digest,
            run=run,
            at=self._clock.now(),
            metrics=new.metrics,
            evaluation=new.evaluation,
            gate=gate.to_data() if gate else {},
        )
        set_alias(unit, version.ref, "latest", self._clock.now())
        self._recorder.record(
            unit.facts,
            actor,
            "version.register",
            f"model:{model.name}",
            after={"version": version.ref, "digest": version.digest, "run": run, "gate": version.gate},
        )
        return version

    def register_sealed(self, unit: Unit, model: ModelSpec, new: NewVersion, *, actor: Actor) -> VersionRecord:
        """Register a version that no run made; one with this content is registered already."""
        for version in unit.versions.find(new.digest):
            if version.model == model.name:
                return version
        return self.register(unit, model, new, run=f"apply:{new.digest[:40]}", actor=actor)

    def take(
        self, unit: Unit, model: ModelSpec, new: NewVersion, *, run: str, cause: str, actor: Actor
    ) -> VersionRecord:
        """Register a trained version and decide, for each service of its model, what follows.

        The first version of a service is released at once. One that was asked for by hand waits for `release`; one
        that a trigger or an apply asked for follows the service's rollout and review, if it passed its gate.
        """
        gate = judge(model, new)
        version = self.register(unit, model, new, run=run, actor=actor, gate=gate)
        users = [service for _, service in services(unit.projects.all()) if service.model == model.name]
        for service in users:
            self._decide(unit, service, version, gate, cause)
        if not users and gate.passed:  # scored in batches alone: there is no traffic to split
            set_alias(unit, version.ref, "champion", self._clock.now())
        return version

    def _decide(self, unit: Unit, service: ServiceSpec, version: VersionRecord, gate: GateResult, cause: str) -> None:
        served = unit.rollouts.served(service.name)
        first = not served.current and unit.rollouts.open(service.name) is None
        if cause == "manual" and not first:
            return
        skew = skew_gate(unit, service, served.current, self._clock.now())
        refused = (*gate.reasons, *(skew.reasons if skew is not None else ()))
        if refused:
            self._note(unit, service, "version.refuse", version, "; ".join(refused))
        elif not first and service.retrain is not None and service.retrain.review == "manual":
            reason = gate.note or "passed its gate"
            awaiting = Awaiting(service=service.name, version=version.ref, since=self._clock.now(), reason=reason)
            unit.loop.put_awaiting(awaiting)
            self._note(unit, service, "release.await", version, f"flyball release {service.name} approves it")
        else:
            strategy = RolloutSpec(kind="full") if first else None
            reason = "first version" if first else f"{cause}: {gate.note or 'passed its gate'}"
            self._releases.start(unit, service, version.ref, actor=LOOP, strategy=strategy, reason=reason)

    def _note(self, unit: Unit, service: ServiceSpec, kind: str, version: VersionRecord, note: str) -> None:
        after = {"version": version.ref}
        self._recorder.record(unit.facts, LOOP, kind, f"service:{service.name}", after=after, note=note)


def judge(model: ModelSpec, new: NewVersion) -> GateResult:
    """The gate's verdict, on the numbers that the run computed on its held-out rows."""
    assert model.task is not None  # only models with a task are trained
    metric = default_metric(model.task)
    champion = new.evaluation.get("champion")
    return decide_gate(
        new.metrics,
        _metrics(champion) if champion else None,
        rows=_rows(new.evaluation),
        gate=Gate(metric=metric, higher_is_better=higher_is_better(metric)),
    )


def _metrics(evaluated: dict[str, Any]) -> dict[str, Any]:
    metrics: dict[str, Any] = evaluated.get("metrics", evaluated)
    return metrics


def _rows(evaluation: dict[str, Any]) -> int:
    rows = evaluation.get("rows", 0)
    return int(rows.get("test", 0) if isinstance(rows, dict) else rows)
