"""Stored things as plain data, for the API and the console."""

from __future__ import annotations

import math
from typing import Any

from flyball.loop.ports import Intent, Unit
from flyball.monitoring.ports import Alert, QualityPeriod
from flyball.rollout.evidence import e_value
from flyball.rollout.state import RolloutState
from flyball.training.ports import RunRecord


def run_data(record: RunRecord, intent: Intent | None) -> dict[str, Any]:
    return {
        "run": record.id,
        "kind": record.kind,
        "model": record.model,
        "state": record.state.value,
        "attempt": record.attempt,
        "actor": record.actor,
        "reason": record.reason,
        "cause": intent.cause if intent is not None else "",
        "not_yet": intent.not_yet if intent is not None else "",
        "created": record.created,
        "started": record.started,
        "finished": record.finished,
        "params": record.spec.params,
        "result": record.result,
        "error": record.error,
    }


def rollout_data(unit: Unit, state: RolloutState) -> dict[str, Any]:
    """A rollout with its evidence: requests and errors of each arm, and the e-value against its threshold."""
    counts = unit.rollouts.counts(state.id)
    value = e_value(counts)
    return state.to_data() | {
        "arms": [
            {"arm": count.arm, "weight": count.weight, "requests": count.requests, "errors": count.errors}
            for count in counts
        ],
        "e_value": value if math.isfinite(value) else 1e300,
        "aborts_at": 1.0 / state.spec.alpha,
    }


def alert_data(alert: Alert) -> dict[str, Any]:
    return {name: getattr(alert, name) for name in Alert.__dataclass_fields__}


def quality_data(period: QualityPeriod) -> dict[str, Any]:
    data = {name: getattr(period, name) for name in QualityPeriod.__dataclass_fields__}
    return data | {"mature_share": period.mature_share}
