"""The rollout's decisions, one sentence a test."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import RolloutSpec
from flyball.kernel.times import MINUTE
from flyball.rollout.decide import begin, decide, shares, step
from flyball.rollout.evidence import ArmCounts
from flyball.rollout.state import Action, Evidence, Phase, RolloutState

SPEC = RolloutSpec(kind="canary", steps=(1, 5, 100), hold=10 * MINUTE, min_requests=50, alpha=0.01)


def canary(**changes: object) -> RolloutState:
    state = begin(id="ro_1", service="tip", version="tip/2", previous="tip/1", spec=SPEC, now=0)
    return replace(state, epoch=1, step_at=0, **changes)  # type: ignore[arg-type]


def seen(requests: int = 0, errors: int = 0, weight: int = 100, stable: int = 0) -> Evidence:
    counts = (
        ArmCounts(arm="canary", weight=weight, requests=requests, errors=errors),
        ArmCounts(arm="stable", weight=weight, requests=10_000, errors=stable),
    )
    return Evidence(acknowledged=True, counts=counts)


def test_a_step_is_held() -> None:
    assert decide(canary(), seen(requests=500), SPEC, now=9 * MINUTE).action is Action.HOLD


def test_a_step_waits_for_its_requests() -> None:
    decision = decide(canary(), seen(requests=49), SPEC, now=11 * MINUTE)
    assert decision.action is Action.WAIT
    assert "49 of the 50" in decision.reason


def test_requests_of_another_step_do_not_count() -> None:
    assert decide(canary(step=1), seen(requests=500, weight=100), SPEC, now=11 * MINUTE).action is Action.WAIT


def test_a_step_advances_after_its_hold() -> None:
    state = canary()
    decision = decide(state, seen(requests=50), SPEC, now=10 * MINUTE)
    assert decision.action is Action.ADVANCE
    after = step(state, decision, 10 * MINUTE)
    assert (after.step, after.step_at, after.epoch, after.weight) == (1, None, 0, 500)


def test_the_last_step_promotes() -> None:
    state = canary(step=1)
    decision = decide(state, seen(requests=50, weight=500), SPEC, now=10 * MINUTE)
    assert decision.action is Action.PROMOTE
    assert step(state, decision, 1).phase is Phase.PROMOTING


def test_steps_that_do_not_end_in_all_still_promote() -> None:
    spec = RolloutSpec(kind="canary", steps=(5,), hold=0, min_requests=0)
    state = replace(canary(), spec=spec)
    assert decide(state, seen(weight=500), spec, now=1).action is Action.PROMOTE


def test_errors_abort_within_the_hold_and_the_reason_says_the_rate() -> None:
    decision = decide(canary(), seen(requests=4, errors=4), SPEC, now=1)
    assert decision.action is Action.ABORT
    assert "probability at most 0.01" in decision.reason


def test_errors_that_both_arms_share_do_not_abort() -> None:
    assert decide(canary(), seen(requests=100, errors=10, stable=1_000), SPEC, now=11 * MINUTE).action is Action.ADVANCE


def test_a_refused_plan_aborts_with_the_reason() -> None:
    decision = decide(canary(), Evidence(refused="the file is corrupt"), SPEC, now=1)
    assert decision.action is Action.ABORT
    assert "corrupt" in decision.reason
    promoting = replace(canary(), phase=Phase.PROMOTING)
    assert decide(promoting, Evidence(refused="no"), SPEC, now=1).action is Action.ABORT
    aborting = replace(canary(), phase=Phase.ABORTING)
    assert decide(aborting, Evidence(refused="no"), SPEC, now=1).action is Action.WAIT


def test_nothing_advances_before_the_workers_took_the_step() -> None:
    evidence = replace(seen(requests=500), acknowledged=False)
    assert decide(canary(), evidence, SPEC, now=11 * MINUTE).action is Action.WAIT
    assert decide(replace(canary(), step_at=None), seen(requests=500), SPEC, now=11 * MINUTE).action is Action.WAIT


@pytest.mark.parametrize(
    ("phase", "final"), [(Phase.PROMOTING, Phase.PROMOTED), (Phase.ABORTING, Phase.ABORTED)], ids=str
)
def test_a_rollout_is_done_when_it_is_acknowledged(phase: Phase, final: Phase) -> None:
    state = canary(phase=phase)
    assert decide(state, Evidence(), SPEC, now=1).action is Action.WAIT
    decision = decide(state, Evidence(acknowledged=True), SPEC, now=1)
    assert decision.action is Action.FINISH
    done = step(state, decision, 1)
    assert done.phase is final
    assert decide(done, seen(errors=500), SPEC, now=1).action is Action.HOLD


def test_a_full_replacement_and_a_first_version_take_all_at_once() -> None:
    for spec, previous in ((RolloutSpec(), "tip/1"), (SPEC, ""), (SPEC, "tip/2")):
        state = begin(id="ro_1", service="tip", version="tip/2", previous=previous, spec=spec, now=0)
        assert state.phase is Phase.PROMOTING
        assert [share.weight for share in shares("", state)] == [10_000]


def test_shares_always_sum_to_all() -> None:
    for percent in (0.01, 1, 33.333, 66.67, 99.99):
        spec = RolloutSpec(kind="canary", steps=(percent,))
        state = begin(id="ro_1", service="tip", version="tip/2", previous="tip/1", spec=spec, now=0)
        assert sum(share.weight for share in shares("tip/1", state)) == 10_000
    assert [(s.version, s.arm) for s in shares("tip/1", canary())] == [("tip/1", "stable"), ("tip/2", "canary")]
    assert shares("tip/1", canary(phase=Phase.ABORTING))[0].version == "tip/1"
    assert shares("tip/2", canary(phase=Phase.PROMOTED))[0].version == "tip/2"
    assert shares("", None) == ()


@given(
    steps=st.lists(st.floats(0.01, 99.99), min_size=1, max_size=5, unique=True).map(sorted),
    ticks=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 100), st.integers(0, 3), st.booleans()), max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_observed_the_weight_only_rises_until_it_is_all_or_nothing(
    steps: list[float], ticks: list[tuple[int, int, int, bool]]
) -> None:
    spec = RolloutSpec(kind="canary", steps=tuple(steps), hold=10 * MINUTE, min_requests=50)
    state = begin(id="ro_1", service="tip", version="tip/2", previous="tip/1", spec=spec, now=0)
    now, counts = 0, dict[int, ArmCounts]()
    for minutes, requests, errors, acknowledged in ticks:
        now += minutes * MINUTE
        if state.phase is Phase.STEPPING and acknowledged and state.step_at is None:
            state = replace(state, step_at=now)
        seen = counts.get(state.weight, ArmCounts(arm="canary", weight=state.weight))
        counts[state.weight] = replace(
            seen, requests=seen.requests + requests, errors=seen.errors + min(errors, requests)
        )
        evidence = Evidence(acknowledged=acknowledged, counts=tuple(counts.values()))
        after = step(state, decide(state, evidence, spec, now), now)
        assert sum(share.weight for share in shares("tip/1", after)) == 10_000
        aborted = after.phase in (Phase.ABORTING, Phase.ABORTED)
        assert after.weight == 0 if aborted else after.weight >= state.weight
        state = after
