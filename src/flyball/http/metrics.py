"""What a worker counts, in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)
RUNGS = frozenset({"model", "default"})  # outcomes that are replies; all others are codes of errors

Labels = tuple[str, ...]


class Histogram:
    """Counts in buckets `<= bound`, and the sum, for each combination of labels."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: Counter[Labels] = Counter()

    def observe(self, labels: Labels, value: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value  # type: ignore[assignment]  # a Counter adds floats as well

    def lines(self, name: str, names: Sequence[str]) -> Iterator[str]:
        for labels, counts in list(self._counts.items()):
            shown = dict(zip(names, labels, strict=True))
            total = 0
            for bound, count in zip([*map(str, self._bounds), "+Inf"], counts, strict=True):
                total += count
                yield f"{name}_bucket{label_text({**shown, 'le': bound})} {total}"
            yield f"{name}_sum{label_text(shown)} {self._sums[labels]}"
            yield f"{name}_count{label_text(shown)} {total}"


class InferenceMetrics:
    """A worker's counts by service and version: `serving.ports.Observer`. `worker` labels every line, because each
    worker answers for itself."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._replies: Counter[Labels] = Counter()
        self._errors: Counter[Labels] = Counter()
        self._refusals: Counter[Labels] = Counter()
        self._features: Counter[Labels] = Counter()
        self._latency = Histogram(LATENCY)
        self._model = Histogram(LATENCY)
        self._rows = Histogram(ROWS)

    def replied(self, service: str, version: str, outcome: str, latency_us: int) -> None:
        with self._lock:
            counts = self._replies if outcome in RUNGS else self._errors
            counts[self._worker, service, version, outcome] += 1
            self._latency.observe((self._worker, service, version), latency_us / 1_000_000)

    def features(self, service: str, version: str, state: str, rows: int) -> None:
        with self._lock:
            self._features[self._worker, service, version, state] += rows

    def batch(self, service: str, version: str, rows: int, model_us: int) -> None:
        with self._lock:
            self._rows.observe((self._worker, service, version), rows)
            self._model.observe((self._worker, service, version), model_us / 1_000_000)

    def refused(self, code: str) -> None:
        """A request that did not get to a version."""
        with self._lock:
            self._refusals[self._worker, code] += 1

    def render(self, gauges: Mapping[str, float]) -> bytes:
        """All counts and the given gauges as text."""
        by_version = ("worker", "service", "version")
        with self._lock:
            lines = [
                *_counter("flyball_predictions_total", "Replies by rung.", (*by_version, "rung"), self._replies),
                *_counter(
                    "flyball_prediction_errors_total", "Rows without a reply.", (*by_version, "code"), self._errors
                ),
                *_counter(
                    "flyball_features_total",
                    "Rows by the state of their features.",
                    (*by_version, "state"),
                    self._features,
                ),
                *_counter("flyball_refused_total", "Refused requests.", ("worker", "code"), self._refusals),
                *_head("flyball_prediction_seconds", "histogram", "From arrival to the logged reply."),
                *self._latency.lines("flyball_prediction_seconds", by_version),
                *_head("flyball_model_seconds", "histogram", "Features and model, a batch."),
                *self._model.lines("flyball_model_seconds", by_version),
                *_head("flyball_batch_rows", "histogram", "Rows scored together."),
                *self._rows.lines("flyball_batch_rows", by_version),
            ]
        for name, value in gauges.items():
            lines += [*_head(name, "gauge", ""), f"{name}{label_text({'worker': self._worker})} {value}"]
        return ("\n".join(lines) + "\n").encode()


def label_text(labels: Mapping[str, str]) -> str:
    """`{a="x",b="y"}`, escaped; empty without labels."""
    if not labels:
        return ""
    shown = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return "{" + shown + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _head(name: str, kind: str, text: str) -> Iterable[str]:
    return [*([f"# HELP {name} {text}"] if text else []), f"# TYPE {name} {kind}"]


def _counter(name: str, text: str, names: Sequence[str], counts: Mapping[Labels, int]) -> Iterator[str]:
    yield from _head(name, "counter", text)
    for labels, count in counts.items():
        yield f"{name}{label_text(dict(zip(names, labels, strict=True)))} {count}"
