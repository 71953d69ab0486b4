"""An erasure: a stored request that is carried out step by step, and the mark that it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Step(StrEnum):
    """What is done. Each is stored before the next is begun; a crash repeats the one that was under way."""

    REQUESTED = "requested"
    COUNTED = "counted"  # what will go is known, and the runs that it was in are marked
    ERASED = "erased"  # gone from online state, log, lake and quarantine; workers begin new segments of their logs
    TURNED = "turned"  # every worker has: what came before can be collected and removed
    DONE = "done"  # gone from the predictions and the tables of batches, too


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A column of a source that is searched, and the rows that were found: `lsns` until they are gone."""

    source: str
    column: str
    rows: int = 0
    quarantined: int = 0
    lsns: tuple[int, ...] = ()
    entity: str = ""  # the key of the entity that is this value alone, in hex, until it is gone


@dataclass(frozen=True, kw_only=True, slots=True)
class Erasure:
    """One erasure. The value stands nowhere: `digests` are keyed. `at`, `done_at`: domain time.

    `runs`: training runs whose set held rows of it, with how many.
    """

    id: str
    digests: tuple[str, ...]
    targets: tuple[Target, ...]
    at: int
    actor: str
    step: Step = Step.REQUESTED
    runs: dict[str, int] = field(default_factory=dict)
    predictions: int = 0
    done_at: int | None = None

    @property
    def rows(self) -> int:
        return sum(target.rows for target in self.targets)

    def mark(self, run: str) -> dict[str, Any] | None:
        """What is said of a run that held rows of it; None: it held none."""
        if run not in self.runs:
            return None
        sources = sorted({target.source for target in self.targets})
        return {"erasure": self.id, "at": self.at, "sources": sources, "rows": self.runs[run]}

    def shown(self) -> dict[str, Any]:
        """For people and the API."""
        return {
            "erasure": self.id,
            "step": self.step.value,
            "at": self.at,
            "done_at": self.done_at,
            "actor": self.actor,
            "targets": [
                {"source": t.source, "column": t.column, "rows": t.rows, "quarantined": t.quarantined}
                for t in self.targets
            ],
            "predictions": self.predictions,
            "runs": [{"run": run, "rows": rows} for run, rows in self.runs.items()],
        }

    def to_data(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "digests": list(self.digests),
            "targets": [
                {name: _plain(getattr(target, name)) for name in Target.__dataclass_fields__} for target in self.targets
            ],
            "at": self.at,
            "actor": self.actor,
            "runs": self.runs,
            "predictions": self.predictions,
            "done_at": self.done_at,
        }

    @classmethod
    def from_data(cls, id: str, step: str, data: dict[str, Any]) -> Erasure:
        targets = tuple(Target(**target | {"lsns": tuple(target["lsns"])}) for target in data["targets"])
        return cls(id=id, step=Step(step), **data | {"targets": targets, "digests": tuple(data["digests"])})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
