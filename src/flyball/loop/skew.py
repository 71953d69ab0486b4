"""The report of the skew audit: what was compared, what differs and why, and how large the rate may still be."""

from __future__ import annotations

from typing import Any

from flyball.features.causes import Cause
from flyball.features.confidence import LEVEL, told, upper_bound
from flyball.features.ports import AuditPeriod
from flyball.loop.audit import AuditRule
from flyball.loop.names import service_of
from flyball.loop.ports import Unit


def skew_report(unit: Unit, service: str, now: int, *, rule: AuditRule) -> dict[str, Any]:
    """Of the version that serves and of all others of the last `rule.window`; features with most mismatches first."""
    _, spec = service_of(unit, service)
    current = unit.rollouts.served(service).current
    state = unit.audit.state(service)
    periods = unit.audit.periods(service, since=now - rule.window)
    versions = sorted({period.version for period in periods} | ({current} if current else set()))
    return {
        "service": service,
        "version": current,
        "limit": spec.max_skew,
        "level": LEVEL,
        **totals([p for p in periods if p.version == current]),
        "versions": [{"version": v, **totals([p for p in periods if p.version == v])} for v in versions],
        "features": by_feature([p for p in periods if p.version == current]),
        "effect": {
            "rows": state.effect_rows,
            "mean": state.effect_total / state.effect_rows if state.effect_rows else None,
            "max": state.effect_largest if state.effect_rows else None,
        },
        "examples": list(state.examples),
        "sampling": {
            "share": rule.sampled(state),
            "predictions": state.audited,
            "waiting": unit.audit.waiting(service),
            "dropped": state.dropped,
            "at": state.at,
        },
        "window": rule.window,
    }


def totals(periods: list[AuditPeriod]) -> dict[str, Any]:
    compared, mismatched = sum(p.compared for p in periods), sum(p.mismatched for p in periods)
    return {
        "compared": compared,
        "mismatched": mismatched,
        "skipped": added([p.skipped for p in periods]),
        "causes": {cause.value: n for cause in Cause if (n := sum(p.causes.get(cause.value, 0) for p in periods))},
        "bound": upper_bound(mismatched, compared),
        "told": told(mismatched, compared),
    }


def by_feature(periods: list[AuditPeriod]) -> list[dict[str, Any]]:
    names = dict.fromkeys(period.feature for period in periods)
    rows = [{"feature": name, **totals([p for p in periods if p.feature == name])} for name in names]
    return sorted(rows, key=lambda row: (-row["mismatched"], row["feature"]))


def added(counts: list[dict[str, int]]) -> dict[str, int]:
    names = sorted({name for count in counts for name in count})
    return {name: sum(count.get(name, 0) for count in counts) for name in names}
