"""The loop that retrains: what is observed of each service, the decision, and the run that follows."""

from __future__ import annotations

from dataclasses import replace

from flyball.define.spec import ServiceSpec
from flyball.governance.facts import Recorder
from flyball.kernel.clock import Clock
from flyball.kernel.facts import Actor
from flyball.loop.ports import Metadata, RetrainState, Unit
from flyball.loop.publish import services
from flyball.loop.retrain import Observed, RetrainDecision, decide
from flyball.loop.runs import Runs
from flyball.training.ports import RunState

LOOP = Actor(name="loop:retrain")


class Retraining:
    """Starts runs when a trigger fires; a decision is recorded when it changes, not at each tick."""

    def __init__(self, metadata: Metadata, runs: Runs, recorder: Recorder, clock: Clock) -> None:
        self._metadata = metadata
        self._runs = runs
        self._recorder = recorder
        self._clock = clock

    def tick(self) -> dict[str, str]:
        """What was decided for each service that retrains."""
        decided = {}
        with self._metadata.write() as unit:
            for project, service in services(unit.projects.all()):
                if service.retrain is None:
                    continue
                decision = decide(service.retrain, observe(unit, service), self._clock.now())
                run = ""
                if decision.train:
                    run = self._runs.submit(
                        unit,
                        project,
                        project.model(service.model),
                        cause="retrain",
                        actor=LOOP,
                        reason=decision.reason,
                        service=service.name,
                    ).id
                self._remember(unit, service, decision, run)
                decided[service.name] = decision.reason
        return decided

    def _remember(self, unit: Unit, service: ServiceSpec, decision: RetrainDecision, run: str) -> None:
        state = unit.loop.retrain(service.name)
        words = f"train: {decision.reason}" if decision.train else decision.reason
        if words == state.decision and not run:
            return
        after = RetrainState(service=service.name, run=state.run, started_at=state.started_at, decision=words)
        if run:
            after = replace(after, run=run, started_at=self._clock.now())
        unit.loop.put_retrain(after)
        if words:
            self._recorder.record(
                unit.facts,
                LOOP,
                "retrain.start" if run else "retrain.wait",
                f"service:{service.name}",
                before={"decision": state.decision},
                after={"decision": words, "run": run},
                note=decision.reason,
            )


def observe(unit: Unit, service: ServiceSpec) -> Observed:
    """What is known of a service when it is asked whether to retrain."""
    current = unit.rollouts.served(service.name).current
    trained_at = None
    if current:
        model, _, number = current.rpartition("/")
        trained_at = unit.versions.get(model, int(number)).created
    runs = unit.runs.list(model=service.model, kind="train", limit=1)
    return Observed(
        serving=bool(current),
        trained_at=trained_at,
        last_run_at=runs[0].created if runs else None,
        busy=_busy(unit, service),
        alerts=tuple(a for a in unit.monitoring.alerts(service.name, open_only=True) if a.version == current),
    )


def _busy(unit: Unit, service: ServiceSpec) -> str:
    if unit.runs.list(model=service.model, kind="train", states=(RunState.QUEUED, RunState.RUNNING), limit=1):
        return "a run is under way"
    if unit.rollouts.open(service.name) is not None:
        return "a rollout is under way"
    if unit.loop.awaiting(service.name) is not None:
        return "a version waits for approval"
    return ""
