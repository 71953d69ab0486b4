"""Releases and rollbacks: which version a service serves, and the loop that moves rollouts on."""

from __future__ import annotations

import logging
from dataclasses import replace

from flyball.define.spec import RolloutSpec, ServiceSpec
from flyball.governance.facts import Recorder
from flyball.kernel.clock import Clock
from flyball.kernel.errors import ConflictError
from flyball.kernel.facts import Actor
from flyball.kernel.ids import new_id
from flyball.loop.audit import skew_gate
from flyball.loop.changes import Changes
from flyball.loop.names import service_of
from flyball.loop.ports import Acknowledgement, Metadata, Unit
from flyball.loop.publish import Publisher, observe_rollout, services
from flyball.rollout.decide import begin, decide, step
from flyball.rollout.ports import Served
from flyball.rollout.state import Action, Decision, Evidence, Phase, RolloutState

LOOP = Actor(name="loop:rollout")
logger = logging.getLogger(__name__)


class Releases:
    """Starts, moves and ends rollouts."""

    def __init__(
        self, metadata: Metadata, changes: Changes, publisher: Publisher, recorder: Recorder, clock: Clock
    ) -> None:
        self._metadata = metadata
        self._changes = changes
        self._publisher = publisher
        self._recorder = recorder
        self._clock = clock

    def start(
        self, unit: Unit, service: ServiceSpec, version: str, *, actor: Actor, strategy: RolloutSpec | None, reason: str
    ) -> RolloutState:
        """Begin to serve `version`; an open rollout is superseded, and what served before it stays the other arm."""
        now = self._clock.now()
        served = unit.rollouts.served(service.name)
        running = unit.rollouts.open(service.name)
        if running is None and served.current == version:
            raise ConflictError(
                f"service {service.name} serves {version} already",
                code="already_served",
                hint=f"flyball status shows what {service.name} serves",
            )
        close(unit, service.name, f"superseded by {version}")
        state = begin(
            id=new_id("ro"),
            service=service.name,
            version=version,
            previous=served.current,
            spec=strategy or service.rollout,
            now=now,
            reason=reason,
        )
        unit.rollouts.put(state)
        unit.loop.clear_awaiting(service.name)
        self._recorder.record(
            unit.facts,
            actor,
            "rollout.start",
            f"service:{service.name}",
            before={"version": served.current},
            after={"version": version, "rollout": state.id, "weight": state.weight, "spec": state.spec.to_data()},
            note=reason,
        )
        return state

    def rollback(self, unit: Unit, service: ServiceSpec, *, actor: Actor) -> RolloutState:
        """Serve the previous version again, all at once: it is still loaded. An open rollout is aborted."""
        running = unit.rollouts.open(service.name)
        if running is not None and running.phase is Phase.ABORTING:
            return running  # it goes back already
        if running is not None and running.previous:
            decision = Decision(action=Action.ABORT, reason=f"rolled back by {actor.name}")
            return self._apply(unit, running, decision, actor)
        served = unit.rollouts.served(service.name)
        if not served.previous:
            raise ConflictError(
                f"service {service.name} has no previous version to go back to",
                code="no_previous",
                hint=f"flyball release {service.name} --version N serves any registered version",
            )
        return self.start(
            unit, service, served.previous, actor=actor, strategy=RolloutSpec(kind="full"), reason="rollback"
        )

    def tick(self) -> dict[str, str]:
        """Move every open rollout on; what was decided for each service."""
        with self._metadata.read() as unit:
            open_services = [s.name for _, s in services(unit.projects.all()) if unit.rollouts.open(s.name)]
        if not open_services:
            return {}
        decided = {}
        workers = self._publisher.workers()
        with self._changes.change() as unit:
            for name in open_services:
                state = unit.rollouts.open(name)
                if state is not None:
                    decided[name] = self._advance(unit, state, workers)
        return decided

    def _advance(self, unit: Unit, state: RolloutState, workers: list[Acknowledgement]) -> str:
        evidence: Evidence = observe_rollout(unit, state, workers)
        now = self._clock.now()
        if state.phase is Phase.STEPPING and evidence.acknowledged and state.step_at is None:
            state = replace(state, step_at=now)
            unit.rollouts.put(state)
        decision = decide(state, evidence, state.spec, now)
        if decision.action is Action.PROMOTE:
            decision = self._unless_skewed(unit, state, decision, now)
        if decision.action not in (Action.HOLD, Action.WAIT):
            self._apply(unit, state, decision, LOOP)
        return f"{decision.action.value}: {decision.reason}"

    def _unless_skewed(self, unit: Unit, state: RolloutState, decision: Decision, now: int) -> Decision:
        """A canary whose own served values are not known to agree with training waits, where that is asked for."""
        gate = skew_gate(unit, service_of(unit, state.service)[1], state.version, now)
        if gate is None or gate.passed:
            return decision
        return Decision(action=Action.WAIT, reason="; ".join(gate.reasons), e_value=decision.e_value)

    def _apply(self, unit: Unit, state: RolloutState, decision: Decision, actor: Actor) -> RolloutState:
        after = step(state, decision, self._clock.now())
        unit.rollouts.put(after)
        if after.phase is Phase.PROMOTED:
            before = state.previous
            if before == state.version:  # it served already, and a canary was superseded: the way back stays
                before = unit.rollouts.served(state.service).previous
            unit.rollouts.put_served(Served(service=state.service, current=state.version, previous=before))
            set_alias(unit, state.version, "champion", self._clock.now())
        subject = f"service:{state.service}"
        self._recorder.record(
            unit.facts,
            actor,
            f"rollout.{decision.action.value}",
            subject,
            before={"phase": state.phase.value, "weight": state.weight, "rollout": state.id},
            after={"phase": after.phase.value, "weight": after.weight, "version": state.version},
            note=decision.reason,
            details={"e_value": min(decision.e_value, 1e300)},
        )
        logger.info("rollout %s", decision.action.value, extra={"service": state.service, "version": state.version})
        return after


def close(unit: Unit, service: str, reason: str) -> None:
    """End a service's open rollout, if there is one, because something else takes its place."""
    running = unit.rollouts.open(service)
    if running is not None:
        unit.rollouts.put(replace(running, phase=Phase.SUPERSEDED, reason=reason))


def set_alias(unit: Unit, version: str, alias: str, now: int) -> None:
    """Point an alias of the version's model at it."""
    model, _, number = version.rpartition("/")
    current = unit.versions.aliases(model).get(alias)
    if current != int(number):
        unit.versions.set_alias(model, alias, int(number), expected=current, at=now)
