"""The questions of the API: read models over what is stored. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flyball.define.spec import ProjectSpec, ServiceSpec
from flyball.governance.facts import fact_data
from flyball.kernel.clock import Clock
from flyball.kernel.errors import NotFoundError, did_you_mean
from flyball.loop.audit import Audits
from flyball.loop.batches import scoring_version
from flyball.loop.erase import marks
from flyball.loop.names import batch_of, model_of, service_of, version_record
from flyball.loop.ports import IngestClient, Metadata, Packages, Unit
from flyball.loop.publish import Publisher
from flyball.loop.receipt import receipt, version_data
from flyball.loop.runs import Runs, read_lines
from flyball.loop.show import alert_data, quality_data, rollout_data, run_data
from flyball.loop.skew import skew_report
from flyball.loop.views import explained, sql_of, views_data
from flyball.loop.watch import Readers, Watch, watched_metric
from flyball.monitoring.drift import DriftRule
from flyball.rollout.decide import shares
from flyball.training.ports import RunState


class Questions:
    """What `Control` answers. `health` is how each loop's last tick ended."""

    def __init__(
        self,
        metadata: Metadata,
        packages: Packages,
        publisher: Publisher,
        runs: Runs,
        watch: Watch,
        readers: Readers,
        audits: Audits,
        ingest: IngestClient,
        clock: Clock,
        rule: DriftRule,
    ) -> None:
        self._metadata = metadata
        self._packages = packages
        self._publisher = publisher
        self._runs = runs
        self._watch = watch
        self._readers = readers
        self._audits = audits
        self._ingest = ingest
        self._clock = clock
        self._rule = rule
        self.health: dict[str, dict[str, Any]] = {}

    def project(self, name: str) -> ProjectSpec:
        with self._metadata.read() as unit:
            found = unit.projects.get(name)
            if found is None:
                names = [project.name for project in unit.projects.all()]
                raise NotFoundError(
                    f"there is no project {name!r}: {did_you_mean(name, names)}",
                    code="project_not_found",
                    hint="flyball apply makes one",
                )
            return found

    def runs(self, *, model: str = "", kind: str = "", limit: int = 50) -> list[dict[str, Any]]:
        """The newest first."""
        with self._metadata.read() as unit:
            records = unit.runs.list(model=model, kind=kind, limit=limit)
            return [run_data(record, unit.loop.intent(record.id)) for record in records]

    def run(self, run: str) -> dict[str, Any]:
        """A run with its progress and its metrics so far."""
        with self._metadata.read() as unit:
            record = unit.runs.get(run)
            data = run_data(record, unit.loop.intent(run)) | {"erased": marks(unit.erasures.list(limit=10_000), run)}
        return data | self._runs.reports(run)

    def run_logs(self, run: str, after: int = 0) -> dict[str, Any]:
        """Log lines behind the first `after`, and `next` to ask with again."""
        with self._metadata.read() as unit:
            state = unit.runs.get(run).state
        lines = read_lines(self._runs.directory(run) / "log.jsonl", after)
        return {"lines": lines, "next": after + len(lines), "final": state.final}

    def versions(self, model: str) -> dict[str, Any]:
        with self._metadata.read() as unit:
            model_of(unit, model)
            erasures = unit.erasures.list(limit=10_000)
            found = [version_data(v) | {"erased": marks(erasures, v.run)} for v in unit.versions.list(model)]
            return {"model": model, "versions": found, "aliases": unit.versions.aliases(model)}

    def service(self, name: str) -> dict[str, Any]:
        """What a service serves, its rollout with the evidence, and what waits."""
        with self._metadata.read() as unit:
            _, spec = service_of(unit, name)
            served, rollout = unit.rollouts.served(name), unit.rollouts.open(name)
            awaiting = unit.loop.awaiting(name)
            return {
                "service": name,
                "model": spec.model,
                "version": served.current,
                "previous": served.previous,
                "routes": [
                    {"version": share.version, "weight": share.weight, "arm": share.arm}
                    for share in shares(served.current, rollout)
                ],
                "rollout": rollout_data(unit, rollout) if rollout is not None else None,
                "history": [rollout_data(unit, state) for state in unit.rollouts.history(name, limit=10)],
                "awaiting": {"version": awaiting.version, "since": awaiting.since} if awaiting is not None else None,
                "retrain": unit.loop.retrain(name).decision,
                "alerts": [alert_data(alert) for alert in unit.monitoring.alerts(name, limit=20)],
                "spec": spec.to_data(),
            }

    def quality(self, service: str) -> dict[str, Any]:
        """Quality per version and period against the baseline of the version that serves; the newest first."""
        with self._metadata.read() as unit:
            project, spec = service_of(unit, service)
            metric = watched_metric(spec, project.model(spec.model))
            current = unit.rollouts.served(service).current
            baseline = version_record(unit, current).metrics.get(metric) if current else None
            return {
                "service": service,
                "version": current,
                "metric": metric,
                "baseline": baseline,
                "uncalibrated": True,
                "periods": [quality_data(period) for period in unit.monitoring.quality(service)],
                "alerts": [a for a in map(alert_data, unit.monitoring.alerts(service)) if a["kind"] == "quality_drop"],
            }

    def drift(self, service: str) -> dict[str, Any]:
        """Drift of the version that serves, per period, the newest first; features with the largest distance first."""
        with self._metadata.read() as unit:
            service_of(unit, service)
            current = unit.rollouts.served(service).current
            reports = self._watch.drift_reports(unit, service, current) if current else []
            rule = self._rule
            return {
                "service": service,
                "version": current,
                "uncalibrated": True,
                "rule": {"period": rule.period, "threshold": rule.threshold, "min_rows": rule.min_rows},
                "periods": [report.to_data() for report in reports],
                "alerts": [a for a in map(alert_data, unit.monitoring.alerts(service)) if a["kind"] == "drift"],
            }

    def skew(self, service: str) -> dict[str, Any]:
        """What the audit found about the values that a service served."""
        with self._metadata.read() as unit:
            return skew_report(unit, service, self._clock.now(), rule=self._audits.rule)

    def views(self) -> list[dict[str, Any]]:
        """Every view with its features, and the models and versions that use it."""
        with self._metadata.read() as unit:
            return views_data(unit, self._packages)

    def view_sql(self, view: str, *, kind: str = "delta", table: str = "") -> dict[str, Any]:
        """The DuckDB query of a view over its source's table."""
        with self._metadata.read() as unit:
            return sql_of(unit, view, kind=kind, table=table, lake=self._audits.lake)

    def explain(
        self, view: str, feature: str, *, entity: Mapping[str, Any], at: int | None = None, prediction: str = ""
    ) -> dict[str, Any]:
        """What is behind a value: of an entity at a time (None: now), or as a prediction was served it."""
        record = self._record(prediction) if prediction else None
        with self._metadata.read() as unit:
            return explained(
                unit,
                self._packages,
                view,
                feature,
                entity=entity,
                at=self._clock.now() if at is None else at,
                record=record,
                history=self._audits.history,
                ingest=self._ingest,
                seal=self._audits.seal,
                online=self._audits.online,
            )

    def _record(self, prediction: str) -> dict[str, Any]:
        record = self._readers.predictions.find(prediction)
        if record is None:
            raise NotFoundError(
                f"there is no prediction {prediction!r} in the lake",
                code="prediction_not_found",
                hint="a prediction can be looked up a moment after it was answered, when it has been collected",
            )
        return record

    def prediction(self, prediction: str) -> dict[str, Any]:
        """The receipt of a prediction. One that is not in the lake yet is collected first."""
        record = self._record(prediction)
        with self._metadata.read() as unit:
            return receipt(unit, self._packages, record)

    def batch(self, name: str) -> dict[str, Any]:
        """A batch: its schedule, its version, its runs."""
        with self._metadata.read() as unit:
            spec = batch_of(unit, name)
            schedule = unit.loop.schedule(name)
            runs = [
                run for run in unit.runs.list(kind="batch", limit=200) if run.spec.batch and run.spec.batch.name == name
            ]
            return {
                "batch": name,
                "spec": spec.to_data(),
                "version": scoring_version(unit, spec.model),
                "last_at": schedule.last_at,
                "next_at": None if schedule.last_at is None else schedule.last_at + spec.every,
                "scored_through": schedule.after,
                "note": schedule.note,
                "runs": [run_data(run, unit.loop.intent(run.id)) for run in runs[:20]],
            }

    def facts(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """The newest first."""
        with self._metadata.read() as unit:
            return [fact_data(fact) for fact in unit.facts.list(subject=subject, kind=kind, limit=limit)]

    def erasure(self, erasure: str) -> dict[str, Any]:
        with self._metadata.read() as unit:
            return unit.erasures.get(erasure).shown()

    def erasures(self, *, limit: int = 100) -> list[dict[str, Any]]:
        """The newest first."""
        with self._metadata.read() as unit:
            return [erasure.shown() for erasure in unit.erasures.list(limit=limit)]

    def status(self) -> dict[str, Any]:
        """What is running, what is behind, what is wrong."""
        workers = self._publisher.workers()
        ingest = self._publisher.ingest()
        with self._metadata.read() as unit:
            projects = unit.projects.all()
            active = unit.runs.list(states=(RunState.QUEUED, RunState.RUNNING))
            plans = {kind: unit.loop.plan(kind).epoch for kind in ("ingest", "serving")}
            services = [self._service_status(unit, s) for project in projects for s in project.services]
            alerts = [alert_data(alert) for alert in unit.monitoring.alerts(open_only=True)]
            runs = [run_data(record, unit.loop.intent(record.id)) for record in active]
            collected = unit.loop.collected_rows()
            pending = unit.loop.pending() is not None
            erasures = [erasure.shown() for erasure in unit.erasures.list(limit=20)]
        return {
            "at": self._clock.now(),
            "projects": [{"name": project.name, "digest": project.hash} for project in projects],
            "services": services,
            "runs": runs,
            "predictions": {"collected": collected, "pending": pending},
            "plans": {
                "ingest": {"epoch": plans["ingest"], "taken": _taken([ingest] if ingest else [], plans["ingest"])},
                "serving": {"epoch": plans["serving"], "taken": _taken(workers, plans["serving"])},
                "refused": [
                    f"{ack.process}: {ack.error}" for ack in [*workers, *([ingest] if ingest else [])] if ack.error
                ],
            },
            "alerts": alerts,
            "erasures": erasures,
            "loops": dict(self.health),
        }

    def _service_status(self, unit: Unit, spec: ServiceSpec) -> dict[str, Any]:
        served, rollout = unit.rollouts.served(spec.name), unit.rollouts.open(spec.name)
        awaiting = unit.loop.awaiting(spec.name)
        return {
            "service": spec.name,
            "version": served.current,
            "rollout": None if rollout is None else {"version": rollout.version, "weight": rollout.weight},
            "awaiting": awaiting.version if awaiting is not None else "",
            "retrain": unit.loop.retrain(spec.name).decision,
        }


def _taken(acknowledgements: Sequence[Any], epoch: int) -> bool:
    return bool(acknowledgements) and all(ack.epoch >= epoch and not ack.error for ack in acknowledgements)
