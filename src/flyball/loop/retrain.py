"""When a model is trained again by itself: a pure decision over alerts, runs and domain time."""

from __future__ import annotations

from dataclasses import dataclass, field

from flyball.define.spec import RetrainSpec, TriggerSpec
from flyball.kernel.times import show_duration, show_time
from flyball.monitoring.ports import Alert


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What is known of a service when a tick asks whether to retrain. Times are domain time; None: never."""

    serving: bool
    trained_at: int | None = None  # when the version that serves was registered
    last_run_at: int | None = None  # when the last training run of the model was asked for, by anyone
    busy: str = ""  # why nothing can start now: a run, a rollout or an approval is under way
    alerts: tuple[Alert, ...] = field(default=())


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainDecision:
    """`reason` is "" where no trigger fired; it names no moving value, so it changes only when the decision does."""

    train: bool
    trigger: str = ""
    reason: str = ""


def decide(spec: RetrainSpec, observed: Observed, now: int) -> RetrainDecision:
    """Decide whether to train now. Safe to call on every tick."""
    if not observed.serving:
        return RetrainDecision(train=False)
    fired = next(filter(None, (_fired(trigger, observed, now) for trigger in spec.on)), None)
    if fired is None:
        return RetrainDecision(train=False)
    trigger, why = fired
    if observed.busy:
        return RetrainDecision(train=False, trigger=trigger, reason=f"{why}; not now: {observed.busy}")
    if observed.last_run_at is not None and now < observed.last_run_at + spec.cooldown:
        until = show_time(observed.last_run_at + spec.cooldown)
        return RetrainDecision(train=False, trigger=trigger, reason=f"{why}; not now: cooling down until {until}")
    return RetrainDecision(train=True, trigger=trigger, reason=why)


def _fired(trigger: TriggerSpec, observed: Observed, now: int) -> tuple[str, str] | None:
    if trigger.kind == "every":
        since = max((t for t in (observed.trained_at, observed.last_run_at) if t is not None), default=None)
        if since is not None and now < since + trigger.every:
            return None
        return trigger.kind, f"{show_duration(trigger.every)} passed since the last training"
    alert = next((alert for alert in observed.alerts if alert.kind == trigger.kind), None)
    if alert is None:
        return None
    return trigger.kind, f"{trigger.kind} since {show_time(alert.opened_at)}"
