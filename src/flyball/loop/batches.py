"""The schedule of batches: each scores the new rows of its source once a period."""

from __future__ import annotations

from dataclasses import replace

from flyball.define.spec import BatchSpec, ProjectSpec
from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError
from flyball.kernel.facts import Actor
from flyball.kernel.files import read_document
from flyball.loop.ports import Metadata, Schedule, Unit
from flyball.loop.publish import version_digest
from flyball.loop.runs import Runs
from flyball.training.ports import SPEC_FORMAT, RunRecord, RunState, run_spec_from_data

LOOP = Actor(name="loop:schedule")


def due(schedule: Schedule, every: int, now: int) -> bool:
    """Whether a batch should run now: once a period; periods that passed while it could not run are one. Pure."""
    return not schedule.run and (schedule.last_at is None or now >= schedule.last_at + every)


class Batches:
    """Submits batch runs when they are due, and remembers how far they scored."""

    def __init__(self, metadata: Metadata, runs: Runs, clock: Clock) -> None:
        self._metadata = metadata
        self._runs = runs
        self._clock = clock

    def tick(self) -> dict[str, str]:
        """What was done for each batch."""
        with self._metadata.write() as unit:
            pairs = [(project, batch) for project in unit.projects.all() for batch in project.batches]
            return {batch.name: self._look_after(unit, project, batch) for project, batch in pairs}

    def _look_after(self, unit: Unit, project: ProjectSpec, batch: BatchSpec) -> str:
        schedule = unit.loop.schedule(batch.name)
        if schedule.run:
            record = unit.runs.get(schedule.run)
            if not record.state.final:
                return f"{record.id} is {record.state.value}"
            schedule = self._settle(schedule, batch, record)
            unit.loop.put_schedule(schedule)
        if not due(schedule, batch.every, self._clock.now()):
            return schedule.note
        version = scoring_version(unit, batch.model)
        if not version:
            note = f"not yet: {batch.model} has no version"
            if schedule.note != note:
                unit.loop.put_schedule(replace(schedule, note=note))
            return note
        record = self._runs.submit(
            unit,
            project,
            project.model(batch.model),
            cause="batch",
            actor=LOOP,
            reason=f"scheduled with {version}",
            batch=batch,
            version=version_digest(unit, version),
            after=schedule.after,
        )
        unit.loop.put_schedule(replace(schedule, last_at=self._clock.now(), run=record.id, note=""))
        return f"{record.id} queued"

    def _settle(self, schedule: Schedule, batch: BatchSpec, record: RunRecord) -> Schedule:
        """The schedule after its run: rows up to the run's horizon are scored, unless it failed."""
        after = schedule.after
        if record.state is RunState.SUCCEEDED:
            after = max(after, self._horizon(record, batch.rows))
        return replace(schedule, run="", after=after, note=f"{record.id} {record.state.value}")

    def _horizon(self, record: RunRecord, source: str) -> int:
        try:
            spec = run_spec_from_data(read_document(self._runs.directory(record.id) / "spec.json", SPEC_FORMAT))
        except (FlyballError, FileNotFoundError):
            return 0  # the run directory was removed: rows are scored again, and never left out
        return spec.horizon[source].lsn if source in spec.horizon else 0


def scoring_version(unit: Unit, model: str) -> str:
    """The version that a batch uses: the champion, else the latest; "" where there is none."""
    aliases = unit.versions.aliases(model)
    number = aliases.get("champion", aliases.get("latest"))
    return "" if number is None else f"{model}/{number}"
