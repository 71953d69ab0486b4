"""Live traffic of services, from the counters that workers expose: rates and quantiles over the last seconds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

OVER = 10.0  # seconds over which rates and quantiles are taken
LINE = re.compile(r"(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(slots=True)
class Counts:
    """Cumulative counters of one service at one worker."""

    predictions: float = 0.0
    errors: float = 0.0
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))  # upper bound in s → predictions


class Traffic:
    """Keeps what was scraped lately, by worker and service. A worker that starts again counts from 0 again."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], list[tuple[float, Counts]]] = {}

    def take(self, text: str, now: float) -> None:
        """One worker's metrics, scraped at `now` (monotonic seconds)."""
        for key, counts in parse(text).items():
            history = self._seen.setdefault(key, [])
            if history and counts.predictions < history[-1][1].predictions:
                history.clear()
            history.append((now, counts))
            while len(history) > 2 and history[1][0] < now - OVER:
                history.pop(0)

    def of(self, service: str, now: float) -> dict[str, Any]:
        """`rate` (per second), `p50` and `p99` (microseconds), `errors` (a share); what is not known is left out."""
        rate, errors, replies = 0.0, 0.0, 0.0
        buckets: dict[float, float] = defaultdict(float)
        known = False
        for (_, name), history in self._seen.items():
            if name != service or not history:
                continue
            known = True
            (then, before), (last, after) = history[0], history[-1]
            if last <= then or now - last > OVER:
                continue
            grown = after.predictions - before.predictions
            failed = after.errors - before.errors
            rate += grown / (last - then)
            errors, replies = errors + failed, replies + grown
            for bound, count in after.buckets.items():
                buckets[bound] += count - before.buckets.get(bound, 0.0)
        if not known:
            return {}
        told: dict[str, Any] = {"rate": rate}
        if replies:
            told |= {"p50": quantile(buckets, 0.5), "p99": quantile(buckets, 0.99), "errors": errors / replies}
        return told


def parse(text: str) -> dict[tuple[str, str], Counts]:
    """Counters by (worker, service) from Prometheus text."""
    found: dict[tuple[str, str], Counts] = defaultdict(Counts)
    for name, labels, value in samples(text):
        if "service" not in labels:
            continue
        counts = found[labels.get("worker", ""), labels["service"]]
        if name == "flyball_prediction_seconds_bucket":
            counts.buckets[float(labels["le"])] += value
        elif name == "flyball_prediction_seconds_count":
            counts.predictions += value
        elif name == "flyball_prediction_errors_total":
            counts.errors += value
    return dict(found)


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if match is not None:
            yield match["name"], dict(LABEL.findall(match["labels"])), float(match["value"])


def quantile(buckets: dict[float, float], q: float) -> int:
    """Microseconds, interpolated within the bucket as Prometheus' `histogram_quantile` does.

    >>> quantile({0.001: 50.0, 0.002: 100.0, float("inf"): 100.0}, 0.75)
    1500
    """
    bounds = sorted(buckets)
    wanted = q * buckets[bounds[-1]]
    below, lower = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                break
            inside = buckets[bound] - below
            return round(1e6 * (lower + (bound - lower) * ((wanted - below) / inside if inside else 1.0)))
        below, lower = buckets[bound], bound
    return round(1e6 * lower)
