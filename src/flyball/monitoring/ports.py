"""What monitoring needs from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftPeriod:
    """Binned counts of served features in one period: `counts` is `monitoring.profile.binned`'s, summed."""

    service: str
    version: str
    start: int
    rows: int
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityPeriod:
    """How a version did on the predictions of one period.

    `rows` were answered, `matured` of them are old enough for their label to be certain, `labelled` of those have
    one; `value` is the metric over the labelled ones, None where it is not defined (no labels, one class).
    """

    service: str
    version: str
    start: int
    rows: int
    matured: int
    labelled: int
    metric: str
    value: float | None

    @property
    def mature_share(self) -> float:
        return self.matured / self.rows if self.rows else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """An episode: opened once, silent while it is open, closed when its cause is gone or its version is replaced."""

    id: str
    service: str
    version: str
    kind: str  # "drift" or "quality_drop"
    opened_at: int
    closed_at: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


class MonitoringStore(Protocol):
    """Counts, scores and alerts within one transaction."""

    def add_drift(self, period: DriftPeriod) -> None:
        """Add to the stored counts. Not idempotent: the collector calls it once a manifest."""

    def drift(self, service: str, *, version: str = "", limit: int = 60) -> list[DriftPeriod]:
        """The newest period first."""

    def put_quality(self, period: QualityPeriod) -> None:
        """Idempotent: replaces the period's row."""

    def quality(self, service: str, *, version: str = "", limit: int = 60) -> list[QualityPeriod]:
        """The newest period first."""

    def put_alert(self, alert: Alert) -> None: ...

    def alerts(self, service: str = "", *, open_only: bool = False, limit: int = 100) -> list[Alert]:
        """The newest first."""


class PredictionReader(Protocol):
    """Predictions in the lake, after the collector brought them there."""

    def between(self, service: str, start: int, end: int) -> pl.DataFrame:
        """Predictions with `start <= at < end`: `id`, `version`, `at` (Int64), `key` and `inputs` (String,
        JSON), `score` (Float64, or a list of them for multi-class; null where the model gave none)."""

    def find(self, prediction: str) -> dict[str, Any] | None:
        """One record as it was logged, or None."""


class LabelReader(Protocol):
    """Events that carry labels, from the lake, as physical frames."""

    def events(self, source: str, columns: list[str], start: int, end: int) -> pl.DataFrame:
        """Events with `start <= event_time < end`: the named columns, `_event_time`, `_known_at`, `_lsn`."""

    def feedback(self, start: int) -> pl.DataFrame:
        """Labels sent for a prediction since `start` (domain time): `prediction_id`, `label` (Float64)."""
