"""Monitoring as a loop: drift counts while predictions are collected, quality when labels had time to arrive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.define.spec import LabelSpec, ModelSpec, ProjectSpec, ServiceSpec, SourceSpec
from flyball.define.task import default_metric
from flyball.governance.facts import Recorder
from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError, NotFoundError, UnavailableError
from flyball.kernel.facts import Actor
from flyball.kernel.ids import new_id
from flyball.loop.ports import IngestClient, Metadata, Packages, Unit
from flyball.loop.publish import services, version_digest
from flyball.loop.records import failed
from flyball.monitoring.alerts import Finding, follow
from flyball.monitoring.drift import DriftReport, DriftRule, binned_features, judge, newest
from flyball.monitoring.ports import DriftPeriod, LabelReader, PredictionReader, QualityPeriod
from flyball.monitoring.profile import binned
from flyball.monitoring.quality import (
    Evaluate,
    Labelling,
    Metrics,
    QualityRule,
    Seal,
    maturity,
    quality_drop,
    score,
    with_labels,
)

LOOP = Actor(name="loop:monitor")
FEEDBACK = "flyball_feedback"
SEALED = "pii:"
PERIODS = 4  # that are scored again at each look, since their labels may still be arriving
LOOKS_PER_PERIOD = 4

Record = dict[str, Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Readers:
    """Where predictions and labels are read, and how they are evaluated."""

    predictions: PredictionReader
    labels: LabelReader
    evaluate: Evaluate
    metrics: Metrics
    seal: Seal


class Watch:
    """Counts what is served, scores what was answered, and opens and closes alerts."""

    def __init__(
        self,
        metadata: Metadata,
        packages: Packages,
        readers: Readers,
        ingest: IngestClient,
        recorder: Recorder,
        clock: Clock,
        *,
        drift: DriftRule | None = None,
        quality: QualityRule | None = None,
        ids: Callable[[str], str] = new_id,
    ) -> None:
        self._metadata = metadata
        self._packages = packages
        self._readers = readers
        self._ingest = ingest
        self._recorder = recorder
        self._clock = clock
        self._drift = drift or DriftRule()
        self._quality = quality or QualityRule()
        self._ids = ids
        self._looked: dict[str, int] = {}

    # drift

    def count(self, unit: Unit, records: Sequence[Record]) -> None:
        """Observer of the collector: bin the served features of each version and period."""
        groups: dict[tuple[str, str, int], list[Record]] = {}
        for record in records:
            if record.get("features") is not None and not failed(record):
                start = int(record["at"]) // self._drift.period * self._drift.period
                groups.setdefault((str(record["service"]), str(record["version"]), start), []).append(record)
        for (service, version, start), group in groups.items():
            try:
                manifest = self._packages.manifest(version_digest(unit, version))
            except FlyballError as error:  # what cannot be binned must not keep predictions from the lake
                logger.warning("drift is not counted: %s", error.message, extra={"version": version})
                continue
            profile = manifest.get("profile") or {}
            if profile.get("features"):
                names = [feature["name"] for feature in manifest["features"]]
                counts = binned(profile, names, matrix(group, manifest["features"]))
                for name in sealed_features(group):
                    counts["features"].pop(name, None)
                period = DriftPeriod(service=service, version=version, start=start, rows=len(group), counts=counts)
                unit.monitoring.add_drift(period)

    def drift_reports(self, unit: Unit, service: str, version: str, *, limit: int = 30) -> list[DriftReport]:
        """The verdict on each of the newest periods of a version, the newest first."""
        profile = self._packages.manifest(version_digest(unit, version)).get("profile") or {}
        if not profile.get("features"):
            return []
        reference = binned_features(profile, profile["counts"])
        return [
            judge(reference, binned_features(profile, period.counts), period, self._drift)
            for period in unit.monitoring.drift(service, version=version, limit=limit)
        ]

    # the loop

    def tick(self) -> dict[str, str]:
        """Judge drift now, and quality where it is time; what was found for each service."""
        with self._metadata.read() as unit:
            served = [
                (project, service, unit.rollouts.served(service.name).current)
                for project, service in services(unit.projects.all())
            ]
        found = {}
        for project, service, version in served:
            if version:
                # An alert on a version that serves no more is closed now, not at the next look at quality.
                self._follow(
                    Finding(kind="quality_drop", service=service.name, version=version, firing=None, details={})
                )
                notes = [self._judge_drift(service, version), self._judge_quality(project, service, version)]
                found[service.name] = "; ".join(filter(None, notes))
        return found

    def _judge_drift(self, service: ServiceSpec, version: str) -> str:
        with self._metadata.read() as unit:
            report = newest(self.drift_reports(unit, service.name, version, limit=2))
        if report is None:
            self._follow(Finding(kind="drift", service=service.name, version=version, firing=None, details={}))
            return ""
        top = report.features[0] if report.features else None
        self._follow(
            Finding(
                kind="drift",
                service=service.name,
                version=version,
                firing=report.drifted,
                details=report.to_data() | {"features": report.to_data()["features"][:10]},
            )
        )
        return f"drift {top.distance:.3f} ({top.feature})" if top else ""

    def _judge_quality(self, project: ProjectSpec, service: ServiceSpec, version: str) -> str:
        now = self._clock.now()
        last = self._looked.get(service.name)
        if last is not None and now < last + self._quality.period // LOOKS_PER_PERIOD:
            return ""
        model = project.model(service.model)
        if model.task is None:
            return ""
        try:
            scored = self._score(project, service, model, now)
        except (UnavailableError, NotFoundError) as error:  # ingest is away, or has not taken the newest plan
            return f"quality not yet: {error.message}"
        with self._metadata.write() as unit:
            for period in scored:
                unit.monitoring.put_quality(period)
        self._looked[service.name] = now
        return self._judge_drop(service, model, version)

    def _score(self, project: ProjectSpec, service: ServiceSpec, model: ModelSpec, now: int) -> list[QualityPeriod]:
        assert model.task is not None  # the caller looked
        label = model.label or LabelSpec()
        rows, other = _source(project, model.rows), _source(project, label.any.source if label.any else "")
        self._ingest.flush([source.name for source in (rows, other) if source is not None] + [FEEDBACK])
        period = self._quality.period
        start = max(0, (now - maturity(label)) // period - PERIODS + 1) * period
        predictions = self._readers.predictions.between(service.name, start, now + 1)
        if predictions.is_empty():
            return []
        by = Labelling(
            label=label,
            rows=rows,
            other=other,
            reader=self._readers.labels,
            evaluate=self._readers.evaluate,
            seal=self._readers.seal,
        )
        labelled = with_labels(predictions, by, start=start, end=now + 1, now=now)
        return score(
            labelled,
            service=service.name,
            task=model.task,
            metric=watched_metric(service, model),
            metrics=self._readers.metrics,
            rule=self._quality,
        )

    def _judge_drop(self, service: ServiceSpec, model: ModelSpec, version: str) -> str:
        trigger = next((t for t in (service.retrain.on if service.retrain else ()) if t.kind == "quality_drop"), None)
        metric = watched_metric(service, model)
        with self._metadata.read() as unit:
            periods = unit.monitoring.quality(service.name, version=version, limit=PERIODS)
            name, _, number = version.rpartition("/")
            baseline = unit.versions.get(name, int(number)).metrics.get(metric)
        if trigger is None:
            return f"{metric} of {sum(p.labelled for p in periods)} labels"
        verdict = quality_drop(periods, baseline=baseline, metric=metric, drop=trigger.drop, rule=self._quality)
        details = {"reason": verdict.reason, "loss": verdict.loss, "drop": trigger.drop, "uncalibrated": True}
        self._follow(
            Finding(kind="quality_drop", service=service.name, version=version, firing=verdict.dropped, details=details)
        )
        return verdict.reason

    def _follow(self, finding: Finding) -> None:
        with self._metadata.read() as unit:
            alerts = unit.monitoring.alerts(finding.service, open_only=True)
        opened = next((alert for alert in alerts if alert.kind == finding.kind), None)
        alert = follow(opened, finding, now=self._clock.now(), new_id=lambda: self._ids("alert"))
        if alert is None:
            return
        verb = "open" if alert.closed_at is None else "close"
        with self._metadata.write() as unit:
            unit.monitoring.put_alert(alert)
            self._recorder.record(
                unit.facts,
                LOOP,
                f"alert.{verb}",
                f"service:{alert.service}",
                after={"alert": alert.id, "kind": alert.kind, "version": alert.version, "details": alert.details},
            )
        logger.warning("alert %s: %s", verb, alert.kind, extra={"service": alert.service, "version": alert.version})


def watched_metric(service: ServiceSpec, model: ModelSpec) -> str:
    """The metric that is followed: the one of the service's trigger, or the task's."""
    triggers = service.retrain.on if service.retrain else ()
    named = next((t.metric for t in triggers if t.kind == "quality_drop" and t.metric), "")
    return named or (default_metric(model.task) if model.task is not None else "")


def matrix(records: Sequence[Record], features: Sequence[dict[str, Any]]) -> npt.NDArray[np.float64]:
    """Served features `(n, features)`: NaN for null, codes for categories, as they were when the model was trained.

    A record has them by name or by position; a category's value is its code or its text.
    """
    result = np.full((len(records), len(features)), np.nan)
    codes = [{text: code for code, text in enumerate(feature.get("categories") or ())} for feature in features]
    for row, record in enumerate(records):
        served = record["features"]
        for column, feature in enumerate(features):
            value = served.get(feature["name"]) if isinstance(served, dict) else served[column]
            if isinstance(value, str) and not value.startswith(SEALED):
                value = codes[column].get(value, len(codes[column]))  # one that training did not know: "other"
            if value is not None and not isinstance(value, str):
                result[row, column] = value
    return result


def sealed_features(records: Sequence[Record]) -> set[str]:
    """Features that are computed from pii: their values are digests in a record, and cannot be binned."""
    return {
        name
        for record in records
        if isinstance(record["features"], dict)
        for name, value in record["features"].items()
        if isinstance(value, str) and value.startswith(SEALED)
    }


def _source(project: ProjectSpec, name: str) -> SourceSpec | None:
    return next((source for source in project.sources if source.name == name), None)
