"""Triggers, cool-down, and what keeps a retraining back."""

from __future__ import annotations

from flyball.define.spec import RetrainSpec, TriggerSpec
from flyball.kernel.times import DAY, HOUR
from flyball.loop.retrain import Observed, decide
from flyball.monitoring.ports import Alert

SPEC = RetrainSpec(
    on=(
        TriggerSpec(kind="every", every=7 * DAY),
        TriggerSpec(kind="drift"),
        TriggerSpec(kind="quality_drop", metric="auc", drop=0.03),
    ),
    cooldown=6 * HOUR,
)


def alert(kind: str) -> Alert:
    return Alert(id="alert_1", service="tip", version="tip/1", kind=kind, opened_at=DAY)


def test_without_a_trigger_nothing_happens_and_nothing_is_said() -> None:
    decision = decide(SPEC, Observed(serving=True, trained_at=0, last_run_at=0), now=DAY)
    assert (decision.train, decision.reason) == (False, "")


def test_drift_and_quality_start_a_run() -> None:
    for kind in ("drift", "quality_drop"):
        observed = Observed(serving=True, trained_at=0, last_run_at=0, alerts=(alert(kind),))
        decision = decide(SPEC, observed, now=DAY + 1)
        assert (decision.train, decision.trigger) == (True, kind)


def test_time_starts_a_run() -> None:
    assert decide(SPEC, Observed(serving=True, trained_at=0), now=7 * DAY).trigger == "every"
    assert not decide(SPEC, Observed(serving=True, trained_at=0), now=7 * DAY - 1).train
    assert not decide(SPEC, Observed(serving=True, trained_at=0, last_run_at=DAY), now=7 * DAY).train


def test_a_cooldown_keeps_back_and_its_reason_does_not_move() -> None:
    observed = Observed(serving=True, trained_at=0, last_run_at=DAY, alerts=(alert("drift"),))
    first, second = (decide(SPEC, observed, now=DAY + hours * HOUR) for hours in (1, 5))
    assert not first.train
    assert first == second
    assert "cooling down until 1970-01-02T06:00:00Z" in first.reason
    assert decide(SPEC, observed, now=DAY + 6 * HOUR).train


def test_what_is_under_way_is_waited_for() -> None:
    observed = Observed(serving=True, busy="a rollout is under way", alerts=(alert("drift"),))
    decision = decide(SPEC, observed, now=90 * DAY)
    assert not decision.train
    assert "a rollout is under way" in decision.reason


def test_a_service_that_serves_nothing_is_not_retrained() -> None:
    assert not decide(SPEC, Observed(serving=False, alerts=(alert("drift"),)), now=90 * DAY).train
