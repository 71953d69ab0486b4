"""The queue of runs: one at a time, from the flush of its sources to the registered version."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from flyball.define.expression import leaves
from flyball.define.spec import BatchSpec, ModelSpec, ProjectSpec
from flyball.governance.facts import Recorder
from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError, NotFoundError, UnavailableError
from flyball.kernel.facts import Actor
from flyball.kernel.files import read_document, write_document
from flyball.kernel.ids import new_id
from flyball.loop.changes import Changes
from flyball.loop.ports import IngestClient, Intent, Metadata, Packages, SourceHorizon, Unit
from flyball.loop.promote import Promotion
from flyball.loop.publish import services, version_digest
from flyball.training.ports import (
    ERROR_FORMAT,
    PROGRESS_FORMAT,
    RESULT_FORMAT,
    SPEC_FORMAT,
    SPOOL,
    Engine,
    Horizon,
    RunRecord,
    RunSpec,
    RunState,
)

LOOP = Actor(name="loop:runs")
MAX_ATTEMPTS = 2  # of a run whose process was lost without a word
ALL = 1_000_000  # of a model's versions
ENOUGH_ROWS = 1_000  # for a run that an apply queued; one that was asked for starts with any

logger = logging.getLogger(__name__)


class Runs:
    """Queues, starts and finishes runs. `folder` holds the run directories."""

    def __init__(
        self,
        metadata: Metadata,
        changes: Changes,
        engine: Engine,
        ingest: IngestClient,
        packages: Packages,
        promotion: Promotion,
        recorder: Recorder,
        clock: Clock,
        *,
        folder: Path,
    ) -> None:
        self._metadata = metadata
        self._changes = changes
        self._engine = engine
        self._ingest = ingest
        self._packages = packages
        self._promotion = promotion
        self._recorder = recorder
        self._clock = clock
        self._folder = folder

    def directory(self, run: str) -> Path:
        return self._folder / run

    def reports(self, run: str) -> dict[str, Any]:
        """What a run says of itself: its progress, and the metrics that it logged."""
        folder = self.directory(run)
        try:
            progress = read_document(folder / "progress.json", PROGRESS_FORMAT)
        except (FlyballError, FileNotFoundError):
            progress = {}
        return {"progress": progress, "metrics": read_lines(folder / "metrics.jsonl")}

    # asking for one

    def submit(
        self,
        unit: Unit,
        project: ProjectSpec,
        model: ModelSpec,
        *,
        cause: str,
        actor: Actor,
        reason: str = "",
        params: dict[str, Any] | None = None,
        service: str = "",
        batch: BatchSpec | None = None,
        version: str = "",
        after: int = 0,
    ) -> RunRecord:
        """Queue a run. A training run of the model that waits already is taken for it, where its parameters agree;
        one that an apply queued gives way to one that was asked for with others."""
        given_way: list[RunRecord] = []
        if batch is None:
            for waiting in unit.runs.list(model=model.name, kind="train", states=(RunState.QUEUED,)):
                intent = unit.loop.intent(waiting.id)
                if waiting.spec.params == (params or {}) and waiting.spec.model == model:
                    if intent is not None and intent.cause == "apply" and cause != "apply":
                        unit.loop.put_intent(Intent(run=waiting.id, cause=cause, service=service))
                    return waiting
                if intent is not None and intent.cause == "apply" and cause != "apply":
                    given_way.append(waiting)
        spec = RunSpec(
            run=new_id("run"),
            kind="train" if batch is None else "batch",
            model=model,
            project=project,
            bundle=project.bundle,
            at=self._clock.now(),
            params=params or {},
            batch=batch,
            version=version,
            after=after,
        )
        record = unit.runs.create(spec, actor=actor.name, reason=reason, at=self._clock.now())
        unit.loop.put_intent(
            Intent(run=record.id, cause=cause, service=service, batch=batch.name if batch is not None else "")
        )
        self._note(unit, record, "run.queue", actor=actor, note=reason, after={"cause": cause})
        for waiting in given_way:
            self._stop(unit, waiting, f"gives way to {record.id}")
        return record

    # the loop

    def tick(self) -> dict[str, str]:
        """Look after the running run, or start the next; what was done to each."""
        with self._metadata.read() as unit:
            running = unit.runs.list(states=(RunState.RUNNING,))
            queued = unit.runs.list(states=(RunState.QUEUED,))
        done = {record.id: self._look_after(record) for record in running}
        if not running:
            for record in reversed(queued):  # the oldest first; one that cannot start yet holds up no other
                done[record.id] = self._start(record)
                if done[record.id] == "started":
                    break
        return done

    def _start(self, record: RunRecord) -> str:
        with self._metadata.read() as unit:
            intent = unit.loop.intent(record.id) or Intent(run=record.id, cause="manual")
            champion = self._champion(unit, record.model)
            served = _versions(unit, record.spec)
        if record.kind == "batch" and (self.directory(record.id) / "spec.json").exists():
            # An attempt that was lost may have added its rows: only the same horizon again adds them once.
            return self._begin(record, intent)
        try:
            horizons = self._ingest.flush(sources_of(record.spec))
        except (UnavailableError, NotFoundError) as error:  # it is away, or has not taken the newest plan
            return self._not_yet(intent, f"ingest cannot answer: {error.message}")
        missing = _missing(record.spec, horizons, intent)
        if missing and record.kind == "batch":
            return self._skip(record, missing)
        if missing:
            return self._not_yet(intent, missing)
        spec = msgspec.structs.replace(
            record.spec,
            horizon={n: Horizon(lsn=h.lsn, version=h.version, rows=h.rows) for n, h in horizons.items()},
            at=self._clock.now(),
            champion=champion if record.kind == "train" else "",
            versions=served,
        )
        folder = self.directory(record.id)
        folder.mkdir(parents=True, exist_ok=True)
        write_document(folder / "spec.json", SPEC_FORMAT, spec.to_data())
        return self._begin(record, intent)

    def _begin(self, record: RunRecord, intent: Intent) -> str:
        with self._metadata.write() as unit:
            started = unit.runs.update(
                record.id, expected=RunState.QUEUED, state=RunState.RUNNING, at=self._clock.now()
            )
            unit.loop.put_intent(replace(intent, not_yet=""))
            self._note(unit, started, "run.start", after={"attempt": started.attempt})
        self._launch(started)
        return "started"

    def _launch(self, record: RunRecord) -> None:
        handle = self._engine.launch(self.directory(record.id))
        with self._metadata.write() as unit:
            unit.runs.update(
                record.id,
                expected=RunState.RUNNING,
                state=RunState.RUNNING,
                at=self._clock.now(),
                attempt=record.attempt,
                handle=handle,
            )

    def _look_after(self, record: RunRecord) -> str:
        folder = self.directory(record.id)
        ended = (folder / "result.json").exists() or (folder / "error.json").exists()
        if record.handle is None and not ended:  # a crash came between the ledger and the launch
            self._launch(record)
            return "launched again"
        if record.handle is not None and self._engine.poll(record.handle).running:
            return "running"
        return self._finish(record)

    def _finish(self, record: RunRecord) -> str:
        folder = self.directory(record.id)
        shutil.rmtree(folder / SPOOL, ignore_errors=True)  # a killed process left it: events, which nobody may keep
        if (folder / "result.json").exists():
            try:
                return self._succeed(record, read_document(folder / "result.json", RESULT_FORMAT))
            except FlyballError as error:
                return self._fail(record, error.to_data())
        if (folder / "error.json").exists():
            return self._fail(record, read_document(folder / "error.json", ERROR_FORMAT))
        if record.attempt < MAX_ATTEMPTS:
            with self._metadata.write() as unit:
                again = unit.runs.update(
                    record.id, expected=RunState.RUNNING, state=RunState.QUEUED, at=self._clock.now()
                )
                self._note(unit, again, "run.retry", note="its process ended without a result")
            return "queued again"
        return self._fail(
            record,
            {
                "code": "run_lost",
                "kind": "unavailable",
                "message": f"the process of {record.id} ended {record.attempt} times without a result or an error",
                "hint": f"flyball logs {record.id} shows how far it came; out of memory is the usual reason",
            },
        )

    def _succeed(self, record: RunRecord, result: dict[str, Any]) -> str:
        new = self._packages.adopt(self.directory(record.id) / "version") if record.kind == "train" else None
        with self._changes.change() as unit:
            intent = unit.loop.intent(record.id) or Intent(run=record.id, cause="manual")
            if new is not None:
                version = self._promotion.take(
                    unit, record.spec.model, new, run=record.id, cause=intent.cause, actor=LOOP
                )
                result = {**result, "version": version.ref}
            finished = unit.runs.update(
                record.id, expected=RunState.RUNNING, state=RunState.SUCCEEDED, at=self._clock.now(), result=result
            )
            self._note(unit, finished, "run.succeed", after={"version": result.get("version", "")})
        logger.info("run succeeded", extra={"run": record.id, "version": result.get("version", "")})
        return "succeeded"

    def _fail(self, record: RunRecord, error: dict[str, Any]) -> str:
        with self._metadata.write() as unit:
            failed = unit.runs.update(
                record.id, expected=RunState.RUNNING, state=RunState.FAILED, at=self._clock.now(), error=error
            )
            self._note(unit, failed, "run.fail", note=str(error.get("message", "")), after={"code": error.get("code")})
        logger.error("run failed", extra={"run": record.id, "code": error.get("code")})
        return "failed"

    def _skip(self, record: RunRecord, why: str) -> str:
        with self._metadata.write() as unit:
            self._stop(unit, record, why)
        return f"skipped: {why}"

    def _stop(self, unit: Unit, record: RunRecord, why: str) -> None:
        """End a run that never began."""
        stopped = unit.runs.update(
            record.id,
            expected=RunState.QUEUED,
            state=RunState.STOPPED,
            at=self._clock.now(),
            result={"rows": 0, "skipped": why},
        )
        self._note(unit, stopped, "run.skip", note=why)

    def _not_yet(self, intent: Intent, why: str) -> str:
        if intent.not_yet != why:
            with self._metadata.write() as unit:
                unit.loop.put_intent(replace(intent, not_yet=why))
                self._recorder.record(unit.facts, LOOP, "run.wait", f"run:{intent.run}", note=why)
        return f"not yet: {why}"

    def _champion(self, unit: Unit, model: str) -> str:
        for _, service in services(unit.projects.all()):
            current = unit.rollouts.served(service.name).current
            if service.model == model and current.rpartition("/")[0] == model:
                return version_digest(unit, current)
        return ""

    def _note(
        self,
        unit: Unit,
        record: RunRecord,
        kind: str,
        *,
        actor: Actor = LOOP,
        note: str = "",
        after: dict[str, Any] | None = None,
    ) -> None:
        details = {"model": record.model, "kind": record.kind}
        self._recorder.record(unit.facts, actor, kind, f"run:{record.id}", after=after, note=note, details=details)


def sources_of(spec: RunSpec) -> list[str]:
    """The sources that a run reads: of the rows, of the views of its features, and of its label."""
    model, project = spec.model, spec.project
    views = {leaf[1] for feature in model.features for leaf in leaves(feature.expr) if leaf[0] == "view"}
    wanted = {model.rows} | {view.source for view in project.views if view.name in views}
    if spec.kind == "train" and model.label is not None and model.label.any is not None:
        wanted.add(model.label.any.source)
    if spec.batch is not None:
        wanted.add(spec.batch.rows)
    return [source.name for source in project.sources if source.name in wanted]


def _versions(unit: Unit, spec: RunSpec) -> dict[str, str]:
    """The digests of the versions that may have answered, for a run on features as they were served."""
    if spec.params.get("asof") != "served":
        return {}
    return {version.ref: version.digest for version in unit.versions.list(spec.model.name, limit=ALL)}


def _missing(spec: RunSpec, horizons: Mapping[str, SourceHorizon], intent: Intent) -> str:
    """What a run waits for, or ""."""
    rows = spec.batch.rows if spec.batch is not None else spec.model.rows
    horizon = horizons.get(rows)
    if spec.batch is not None:
        return "" if horizon is not None and horizon.lsn > spec.after else f"no new rows in {rows}"
    needed = ENOUGH_ROWS if intent.cause == "apply" else 1
    there = horizon.rows if horizon is not None else 0
    if there >= needed:
        return ""
    if intent.cause == "apply":
        return f"{rows} has {there} of {needed} rows; `flyball train {spec.model.name}` does not wait for so many"
    return f"{rows} has no rows"


def read_lines(path: Path, after: int = 0, limit: int = 1_000) -> list[dict[str, Any]]:
    """The JSON lines of a file behind the first `after`; a torn last line is left for the next time."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = text[: text.rfind("\n") + 1].splitlines()[after : after + limit]
    return [json.loads(line) for line in lines]
