"""What is stored about a rollout, what is observed, and what may be decided."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flyball.define.spec import RolloutSpec
from flyball.rollout.evidence import TOTAL_WEIGHT, ArmCounts


class Phase(StrEnum):
    """Where a rollout stands. The first four are open; each open one waits for the workers' acknowledgement first."""

    STEPPING = "stepping"  # the version takes the weight of the current step
    PROMOTING = "promoting"  # it takes all traffic; not yet acknowledged
    ABORTING = "aborting"  # the previous version takes all traffic again; not yet acknowledged
    PROMOTED = "promoted"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"  # another release or a rollback took its place


OPEN = (Phase.STEPPING, Phase.PROMOTING, Phase.ABORTING)


class Action(StrEnum):
    WAIT = "wait"  # something must happen first: an acknowledgement, more requests
    HOLD = "hold"  # only time must pass
    ADVANCE = "advance"
    PROMOTE = "promote"
    ABORT = "abort"
    FINISH = "finish"  # the last plan is acknowledged: the phase becomes final


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutState:
    """One rollout. `previous` is "" where the service served nothing before; `step_at` is None until the workers took
    the current step's weight (domain time from then on)."""

    id: str
    service: str
    version: str
    previous: str
    spec: RolloutSpec
    phase: Phase
    started_at: int
    step: int = 0
    step_at: int | None = None
    epoch: int = 0  # the serving plan that carries the current step; 0: not published yet
    reason: str = ""

    def to_data(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "service": self.service,
            "version": self.version,
            "previous": self.previous,
            "spec": self.spec.to_data(),
            "phase": self.phase.value,
            "started_at": self.started_at,
            "step": self.step,
            "step_at": self.step_at,
            "epoch": self.epoch,
            "reason": self.reason,
            "weight": self.weight,
        }

    @property
    def weight(self) -> int:
        """The version's weight, of 10 000."""
        if self.phase in (Phase.PROMOTING, Phase.PROMOTED):
            return TOTAL_WEIGHT
        if self.phase is Phase.STEPPING:
            return step_weight(self.spec, self.step)
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known when a decision is made. `acknowledged`: all live workers run the rollout's plan; `refused`: why
    a worker refused it, or ""; `counts`: per arm and weight, of this rollout alone."""

    acknowledged: bool = False
    refused: str = ""
    counts: tuple[ArmCounts, ...] = ()

    def requests(self, arm: str, weight: int) -> int:
        return sum(count.requests for count in self.counts if count.arm == arm and count.weight == weight)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    action: Action
    reason: str
    e_value: float = 1.0


def step_weight(spec: RolloutSpec, step: int) -> int:
    """The weight of a step, of 10 000; a full replacement, and what lies beyond the last step, take all."""
    if spec.kind == "full" or step >= len(spec.steps):
        return TOTAL_WEIGHT
    return min(TOTAL_WEIGHT, round(spec.steps[step] * TOTAL_WEIGHT / 100))
