"""The platform's state as Prometheus text, from the status that the console shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

METRICS: dict[str, tuple[str, str]] = {  # name → type, help
    "flyball_domain_time_seconds": ("gauge", "Domain time, seconds since 1970."),
    "flyball_source_rows_total": ("counter", "Accepted events of a source."),
    "flyball_source_quarantined_total": ("counter", "Rows of a source that broke its contract."),
    "flyball_source_lag_rows": ("gauge", "Logged events that online state does not show yet."),
    "flyball_service_predictions_total": ("counter", "Predictions of a service in the log."),
    "flyball_service_error_ratio": ("gauge", "Share of a service's recent predictions that failed."),
    "flyball_service_p99_seconds": ("gauge", "99th percentile of a service's recent latencies."),
    "flyball_quality": ("gauge", "A service's metric from late labels."),
    "flyball_drift_score": ("gauge", "How far a service's inputs moved from training."),
    "flyball_skew_values": ("gauge", "Served values of a service that the audit compared lately."),
    "flyball_skew_mismatches": ("gauge", "Those that differ from their recomputation, by cause."),
    "flyball_skew_bound": ("gauge", "The largest rate of mismatches that these do not rule out at 95 %."),
    "flyball_alerts_open": ("gauge", "Alerts that are open."),
    "flyball_runs": ("gauge", "Runs by state, among those listed in the status."),
    "flyball_process_up": ("gauge", "1 while a process of the platform runs."),
}


def exposition(status: Mapping[str, Any]) -> str:
    """Prometheus text format 0.0.4."""
    grouped: dict[str, list[str]] = {name: [] for name in METRICS}
    for name, labels, value in samples(status):
        if value is not None:
            grouped[name].append(f"{name}{labelled(labels)} {value:.10g}")
    lines = []
    for name, found in grouped.items():
        if found:
            kind, text = METRICS[name]
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *found]
    return "\n".join(lines) + "\n"


def samples(status: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, str], float | None]]:
    if status.get("at") is not None:
        yield "flyball_domain_time_seconds", {}, status["at"] / 1e6
    for source in status.get("sources") or []:
        labels = {"source": str(source.get("name", ""))}
        yield "flyball_source_rows_total", labels, source.get("rows")
        yield "flyball_source_quarantined_total", labels, source.get("quarantined")
        yield "flyball_source_lag_rows", labels, source.get("lag")
    for service in status.get("services") or []:
        labels = {"service": str(service.get("name", ""))}
        yield "flyball_service_predictions_total", labels, service.get("requests")
        yield "flyball_service_error_ratio", labels, service.get("errors")
        p99 = service.get("p99")
        yield "flyball_service_p99_seconds", labels, None if p99 is None else p99 / 1e6
    for quality in status.get("quality") or []:
        labels = {"service": str(quality.get("service", "")), "metric": str(quality.get("metric", ""))}
        yield "flyball_quality", labels, quality.get("value")
    for drift in status.get("drift") or []:
        yield "flyball_drift_score", {"service": str(drift.get("service", ""))}, drift.get("score")
    for skew in status.get("skew") or []:
        labels = {"service": str(skew.get("service", ""))}
        yield "flyball_skew_values", labels, skew.get("compared")
        yield "flyball_skew_bound", labels, skew.get("bound")
        for cause, count in (skew.get("causes") or {}).items():
            yield "flyball_skew_mismatches", {**labels, "cause": str(cause)}, count
    yield "flyball_alerts_open", {}, float(sum(1 for a in status.get("alerts") or [] if a.get("open")))
    states: dict[str, int] = {}
    for run in status.get("runs") or []:
        states[str(run.get("state", ""))] = states.get(str(run.get("state", "")), 0) + 1
    for state, n in states.items():
        yield "flyball_runs", {"state": state}, float(n)
    for process in status.get("processes") or []:
        labels = {"process": str(process.get("name", ""))}
        yield "flyball_process_up", labels, float(process.get("state") == "running")


def labelled(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    escaped = (
        (key, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for key, value in labels.items()
    )
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}"
