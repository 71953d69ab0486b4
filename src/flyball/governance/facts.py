"""Recording facts: one place that stamps them with both clocks and an id."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flyball.governance.ports import FactStore
from flyball.kernel.clock import Clock
from flyball.kernel.facts import Actor, Fact
from flyball.kernel.ids import new_id


def wall_now() -> int:
    """Real time in microseconds since 1970-01-01 UTC, whatever domain time is."""
    return time.time_ns() // 1_000


class Recorder:
    """Writes facts into the store of the transaction in which the change itself is made."""

    def __init__(self, clock: Clock, *, wall: Callable[[], int] = wall_now, ids: Callable[[str], str] = new_id) -> None:
        self._clock = clock
        self._wall = wall
        self._ids = ids

    def record(
        self,
        store: FactStore,
        actor: Actor,
        kind: str,
        subject: str,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
        note: str = "",
        details: dict[str, Any] | None = None,
    ) -> Fact:
        """Add one fact. `kind` is `noun.verb` (`rollout.abort`), `subject` is `kind:name` (`service:tip`)."""
        fact = Fact(
            id=self._ids("fact"),
            at=self._clock.now(),
            wall=self._wall(),
            actor=actor.name,
            request_id=actor.request_id,
            kind=kind,
            subject=subject,
            before=before,
            after=after,
            note=note,
            details=details or {},
        )
        store.add(fact)
        return fact


def fact_data(fact: Fact) -> dict[str, Any]:
    """A fact as plain data, for the API and the console."""
    return {name: getattr(fact, name) for name in Fact.__dataclass_fields__}
