"""The next move of a rollout: a pure function of what is stored, what was observed, and domain time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flyball.define.spec import RolloutSpec
from flyball.kernel.times import show_duration
from flyball.rollout.evidence import TOTAL_WEIGHT, e_value
from flyball.rollout.state import Action, Decision, Evidence, Phase, RolloutState, step_weight


def begin(
    *, id: str, service: str, version: str, previous: str, spec: RolloutSpec, now: int, reason: str = ""
) -> RolloutState:
    """The first state of a rollout; a canary with nothing to compare with becomes a full replacement."""
    canary = spec.kind == "canary" and previous not in ("", version) and step_weight(spec, 0) < TOTAL_WEIGHT
    return RolloutState(
        id=id,
        service=service,
        version=version,
        previous=previous,
        spec=spec,
        phase=Phase.STEPPING if canary else Phase.PROMOTING,
        started_at=now,
        reason=reason,
    )


def decide(state: RolloutState, evidence: Evidence, spec: RolloutSpec, now: int) -> Decision:
    """Decide what a rollout does next. Safe to call on every tick.

    An abort is decided by the e-process of `rollout.evidence` at `spec.alpha`, the probability of ever aborting a
    canary that fails no more often than the stable version. A promotion says that no such evidence was found while
    the steps were held; it is no proof that the version is as good.
    """
    if state.phase not in (Phase.STEPPING, Phase.PROMOTING, Phase.ABORTING):
        return Decision(action=Action.HOLD, reason=f"the rollout is {state.phase.value}")
    if evidence.refused and state.phase is not Phase.ABORTING:
        return Decision(action=Action.ABORT, reason=f"a worker refused the plan: {evidence.refused}")
    if state.phase is not Phase.STEPPING:
        if not evidence.acknowledged:
            return Decision(action=Action.WAIT, reason="not all live workers have taken the plan")
        return Decision(action=Action.FINISH, reason=state.reason)
    return _decide_step(state, evidence, spec, now)


def _decide_step(state: RolloutState, evidence: Evidence, spec: RolloutSpec, now: int) -> Decision:
    value = e_value(evidence.counts)
    if value >= 1.0 / spec.alpha:
        failed = sum(count.errors for count in evidence.counts if count.arm == "canary")
        return Decision(
            action=Action.ABORT,
            reason=f"{failed} failed requests on the canary: e-value {value:.0f} reached {1 / spec.alpha:.0f}, "
            f"which a canary that is no worse does with probability at most {spec.alpha:g}",
            e_value=value,
        )
    if not evidence.acknowledged or state.step_at is None:
        return Decision(action=Action.WAIT, reason="not all live workers have taken the plan", e_value=value)
    left = state.step_at + spec.hold - now
    if left > 0:
        return Decision(action=Action.HOLD, reason=f"this step is held for {show_duration(left)} more", e_value=value)
    seen = evidence.requests("canary", state.weight)
    if seen < spec.min_requests:
        reason = f"the canary answered {seen} of the {spec.min_requests} requests this step needs"
        return Decision(action=Action.WAIT, reason=reason, e_value=value)
    weight = step_weight(spec, state.step + 1)
    if weight >= TOTAL_WEIGHT:
        return Decision(action=Action.PROMOTE, reason=f"all steps held at e-value {value:.2f}", e_value=value)
    return Decision(action=Action.ADVANCE, reason=f"to {weight / 100:g} % at e-value {value:.2f}", e_value=value)


def step(state: RolloutState, decision: Decision, now: int) -> RolloutState:
    """The state after a decision; `epoch` 0 asks for a new serving plan."""
    if decision.action is Action.ADVANCE:
        return replace(state, step=state.step + 1, step_at=None, epoch=0, reason=decision.reason)
    if decision.action is Action.PROMOTE:
        return replace(state, phase=Phase.PROMOTING, step_at=None, epoch=0, reason=decision.reason)
    if decision.action is Action.ABORT:
        return replace(state, phase=Phase.ABORTING, step_at=None, epoch=0, reason=decision.reason)
    if decision.action is Action.FINISH:
        final = Phase.PROMOTED if state.phase is Phase.PROMOTING else Phase.ABORTED
        return replace(state, phase=final, step_at=now)
    return state


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A version's part of a service's traffic: `weight` of 10 000."""

    version: str
    weight: int
    arm: str


def shares(current: str, state: RolloutState | None) -> tuple[Share, ...]:
    """The routes of a service: integers that sum to 10 000, or nothing where no version serves.

    `current` is what serves outside of a rollout, `state` the open rollout, if there is one.
    """
    if state is None or state.phase in (Phase.PROMOTED, Phase.ABORTED, Phase.SUPERSEDED):
        return (Share(version=current, weight=TOTAL_WEIGHT, arm="stable"),) if current else ()
    if state.phase is Phase.PROMOTING:
        return (Share(version=state.version, weight=TOTAL_WEIGHT, arm="stable"),)
    if state.phase is Phase.ABORTING:
        return (Share(version=state.previous, weight=TOTAL_WEIGHT, arm="stable"),) if state.previous else ()
    return (
        Share(version=state.previous, weight=TOTAL_WEIGHT - state.weight, arm="stable"),
        Share(version=state.version, weight=state.weight, arm="canary"),
    )
