"""What building the views of a plan will take: rows, seconds and bytes, from what earlier builds took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.define.plan import Change, Plan
from flyball.define.spec import ViewSpec
from flyball.kernel.times import SECOND, show_duration

VALUES_A_SECOND = 2_000_000.0  # of one core, where nothing was measured yet: one event for one feature is a value
BYTES_A_ROW = 50.0
RECENT = 5  # builds that an estimate looks at


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """`rows` None: ingest did not say. `measured`: by earlier builds here, else by the stated assumptions."""

    rows: int | None
    seconds: float = 0.0
    bytes: int = 0
    measured: bool = False

    def __str__(self) -> str:
        if self.rows is None:
            return "how many rows that reads is not known while ingest does not answer"
        how = "as measured here" if self.measured else "assumed, nothing was measured yet"
        return f"reads {self.rows:,} rows, about {_time(self.seconds)} and {_size(self.bytes)} of online state ({how})"


def estimate(view: ViewSpec, rows: int | None, measured: Sequence[Mapping[str, Any]]) -> Estimate:
    """What building a view over `rows` events takes. `measured` are earlier builds, the oldest first."""
    if rows is None:
        return Estimate(rows=None)
    recent = [build for build in measured if build["seconds"] > 0][-RECENT:]
    alike = [build for build in recent if build["source"] == view.source and build["bytes"] is not None]
    done = sum(build["rows"] * build["features"] for build in recent)
    rate = done / sum(build["seconds"] for build in recent) if recent else VALUES_A_SECOND
    size = sum(build["bytes"] for build in alike) / sum(build["rows"] for build in alike) if alike else BYTES_A_ROW
    seconds = rows * max(1, len(view.features)) / rate
    return Estimate(rows=rows, seconds=seconds, bytes=int(rows * size), measured=bool(recent))


def with_estimates(plan: Plan, sizes: Mapping[str, int] | None, measured: Sequence[Mapping[str, Any]]) -> Plan:
    """The plan with what each backfill takes beside it. `sizes`: rows of each source; None where nobody says."""
    changes = tuple(_told(change, plan, sizes, measured) for change in plan.changes)
    return Plan(project=plan.project, base=plan.base, spec=plan.spec, changes=changes)


def _told(change: Change, plan: Plan, sizes: Mapping[str, int] | None, measured: Sequence[Mapping[str, Any]]) -> Change:
    builds = any(cause.startswith("backfills ") for cause in change.causes)
    if change.kind != "view" or not builds:
        return change
    view = plan.spec.view(change.name)
    rows = sizes.get(view.source, 0) if sizes is not None else None
    causes = (*change.causes, str(estimate(view, rows, measured)))
    return Change(
        action=change.action,
        kind=change.kind,
        name=change.name,
        fields=change.fields,
        causes=causes,
        refused=change.refused,
    )


def _time(seconds: float) -> str:
    return "less than a second" if seconds < 1 else show_duration(round(seconds) * SECOND)


def _size(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}"
        size //= 1000
    return f"{size:,} GB"
