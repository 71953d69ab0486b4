"""The ingest process's numbers in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flyball.ingest.group import GroupCounters, GroupLimits

_SOURCES = (
    ("flyball_ingest_events_total", "counter", "rows", "Events accepted, all time."),
    ("flyball_ingest_duplicates_total", "counter", "duplicates", "Rows dropped for a key of the same batch."),
    ("flyball_ingest_lag_events", "gauge", "lag", "Events in the log that the online state does not show yet."),
    ("flyball_ingest_lake_lag_events", "gauge", "lake_lag", "Events in the log that the lake does not have yet."),
    ("flyball_ingest_quarantine_open", "gauge", "quarantine_open", "Quarantined rows, not retried or dropped yet."),
    ("flyball_ingest_log_batches", "gauge", "pending_batches", "Batches that the log holds."),
)
_RULES = (
    ("flyball_ingest_quarantined_total", "rules", "Rows that broke their contract."),
    (
        "flyball_ingest_warnings_total",
        "warnings",
        "Rows, or whole pushes, accepted in spite of a rule.",
    ),
    ("flyball_ingest_batches_refused_total", "refused", "Pushes of which nothing was stored, for a rule."),
)
_PULLED = (
    ("flyball_ingest_pulls_total", "counter", "pulls", "Pulls that went well, of this process."),
    ("flyball_ingest_pulls_failed_total", "counter", "failed", "Pulls that failed, of this process."),
    ("flyball_ingest_pulled_rows_total", "counter", "rows", "Rows taken from origins, of this process."),
    ("flyball_ingest_pull_failures", "gauge", "failures", "Pulls that failed since the last that went well."),
)
_DERIVED = (
    ("flyball_ingest_derive_lag_events", "gauge", "behind", "Events of the parent that are not derived yet."),
    ("flyball_ingest_derive_held_events", "gauge", "held", "Events of the parent that are not known yet."),
    ("flyball_ingest_derive_late_total", "counter", "late", "Events of views that came after what they concern."),
)
_WRITER = (
    ("flyball_ingest_commits_total", "counter", "commits", "Transactions of pushes."),
    ("flyball_ingest_pushes_total", "counter", "pushes", "Pushes that came to the writer."),
    ("flyball_ingest_pushes_refused_total", "counter", "refused", "Pushes refused because the queue was full."),
    (
        "flyball_ingest_pushes_refused_behind_total",
        "counter",
        "refused_behind",
        "Pushes refused because applying or the lake was too far behind.",
    ),
    ("flyball_ingest_pushes_failed_total", "counter", "failed", "Pushes that could not be stored."),
    ("flyball_ingest_queue_pushes", "gauge", "waiting", "Pushes that wait for the writer."),
    ("flyball_ingest_queue_bytes", "gauge", "waiting_bytes", "Bytes of the bodies of those."),
)
_LIMITS = (
    ("flyball_ingest_queue_pushes_limit", "queue_pushes", "Pushes that may wait for the writer."),
    ("flyball_ingest_queue_bytes_limit", "queue_bytes", "Bytes of the bodies that may wait for the writer."),
)
_BACKLOG = (
    ("flyball_ingest_unapplied_events", "unapplied", "Pushed events that wait to be applied."),
    ("flyball_ingest_unapplied_events_limit", "unapplied_limit", "As many may; beyond, pushes are refused."),
    ("flyball_ingest_unflushed_events", "unflushed", "Pushed events that wait for the lake."),
    ("flyball_ingest_unflushed_events_limit", "unflushed_limit", "As many may; beyond, pushes are refused."),
)


def metrics_text(status: Mapping[str, Any], counters: GroupCounters, limits: GroupLimits) -> str:
    """`Ingest.status()`, the writer's counters and its limits, as text."""
    sources = status["sources"]
    lines: list[str] = []
    for name, kind, field, text in _SOURCES:
        lines += _family(name, kind, text, ((f'{{source="{s["name"]}"}}', s[field]) for s in sources))
    for name, field, text in _RULES:
        lines += _family(name, "counter", text, _by_rule(sources, field))
    for part, families in (("pull", _PULLED), ("derive", _DERIVED)):
        there = [s for s in sources if s.get(part)]
        for name, kind, field, text in families:
            lines += _family(name, kind, text, [(f'{{source="{s["name"]}"}}', s[part][field]) for s in there])
    for name, kind, field, text in _WRITER:
        lines += _family(name, kind, text, [("", getattr(counters, field))])
    for name, field, text in _LIMITS:
        lines += _family(name, "gauge", text, [("", getattr(limits, field))])
    for name, field, text in _BACKLOG:
        lines += _family(name, "gauge", text, [("", status["backlog"][field])])
    return "\n".join(lines) + "\n"


def _by_rule(sources: Iterable[Mapping[str, Any]], field: str) -> Iterator[tuple[str, int]]:
    for source in sources:
        for rule, count in sorted(source[field].items()):
            yield f'{{source="{source["name"]}",rule="{rule}"}}', count


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, int]]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(f"{name}{labels} {value}" for labels, value in samples)]
