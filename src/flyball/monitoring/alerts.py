"""Alerts as episodes: one opens when its cause is first seen, is silent while it lasts, and closes when it is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flyball.monitoring.ports import Alert


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a monitor says now. `firing` None: not enough to say anything, so nothing changes."""

    kind: str
    service: str
    version: str
    firing: bool | None
    details: dict[str, Any]


def follow(open_alert: Alert | None, finding: Finding, *, now: int, new_id: Callable[[], str]) -> Alert | None:
    """The alert to store, or None where nothing changes. An alert on a version that is served no more is closed; if
    its successor fires too, the next tick opens another episode. Pure but for `new_id`."""
    if open_alert is not None and open_alert.version != finding.version:
        return replace(open_alert, closed_at=now, details={**open_alert.details, "closed": "version replaced"})
    if finding.firing and open_alert is None:
        return Alert(
            id=new_id(),
            service=finding.service,
            version=finding.version,
            kind=finding.kind,
            opened_at=now,
            details=finding.details,
        )
    if finding.firing is False and open_alert is not None:
        return replace(open_alert, closed_at=now, details={**open_alert.details, "closed": "quiet again"})
    return None
