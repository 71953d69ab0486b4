"""What rollout needs from storage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from flyball.rollout.evidence import ArmCounts
from flyball.rollout.state import RolloutState


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What a service serves outside of a rollout, and what it served before: the target of a rollback."""

    service: str
    current: str = ""
    previous: str = ""


class RolloutStore(Protocol):
    """Rollouts, what each service serves, and the evidence, within one transaction. `put`s are idempotent."""

    def served(self, service: str) -> Served: ...

    def put_served(self, served: Served) -> None: ...

    def open(self, service: str) -> RolloutState | None:
        """The rollout that is not finished; at most one a service."""

    def get(self, id: str) -> RolloutState | None: ...

    def history(self, service: str, limit: int = 20) -> list[RolloutState]:
        """The newest first."""

    def put(self, state: RolloutState) -> None: ...

    def counts(self, rollout: str) -> tuple[ArmCounts, ...]: ...

    def add_counts(self, rollout: str, counts: Iterable[ArmCounts]) -> None:
        """Add to the stored counts. Not idempotent: the collector calls it once a manifest."""
