"""Erasing one value from the platform: a stored request, carried out a step a tick, and repeated where it was cut off.

Gone are its rows from log, lake, quarantine and online state, from sources derived from them, and from the tables of
batches that scored them. Of its predictions id, version, time and output stay; their fields and features go. Versions
that learned from it stay, and are marked.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from flyball.define.subject import Seal, digests_of, normal, to_units
from flyball.governance.erasure import Erasure, Step, Target
from flyball.governance.facts import Recorder
from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError, InvalidError
from flyball.kernel.facts import Actor
from flyball.kernel.files import read_document
from flyball.kernel.ids import new_id
from flyball.loop.changes import Changes
from flyball.loop.ports import IngestClient, Metadata, Packages, PredictionLog, Unit
from flyball.loop.publish import Publisher
from flyball.loop.reach import declared, with_derived
from flyball.loop.records import TABLE
from flyball.loop.runs import sources_of
from flyball.loop.trace import LOOKED_AT, Hit, Traces
from flyball.training.ports import SPEC_FORMAT, RunSpec, run_spec_from_data

LOOP = Actor(name="loop:erase")
BLANKS = {"inputs": "'{}'", "features": "'{}'", "key": "NULL"}
ALL_RUNS = 100_000


class ErasablePredictions(Protocol):
    """The lake's table of predictions."""

    def find(self, table: str, columns: Sequence[str], hit: Hit) -> list[str]:
        """The ids of the rows for which `hit` holds; it is given `id`, `version` and the JSON `columns` as data."""

    def blank(self, table: str, column: str, values: Sequence[str], blanks: Mapping[str, str]) -> None:
        """Set columns of rows to SQL literals; the bytes that stood there are gone. Idempotent."""


class ErasableTables(Protocol):
    """The tables of batches."""

    def erase(self, table: str, column: str, values: Sequence[int | str]) -> None:
        """Delete rows; nothing where there is no such table. Idempotent."""


@dataclass(frozen=True, kw_only=True)
class ErasurePlaces:
    """Where an erasure reaches beyond ingest. `runs`: the folder of run directories."""

    predictions: ErasablePredictions
    tables: ErasableTables
    log: PredictionLog
    packages: Packages
    runs: Path


class Erasures:
    """Takes requests, and carries them out one after another."""

    def __init__(
        self,
        metadata: Metadata,
        changes: Changes,
        publisher: Publisher,
        ingest: IngestClient,
        places: ErasurePlaces,
        recorder: Recorder,
        clock: Clock,
        *,
        seal: Seal,
    ) -> None:
        self._metadata = metadata
        self._changes = changes
        self._publisher = publisher
        self._ingest = ingest
        self._places = places
        self._recorder = recorder
        self._clock = clock
        self._seal = seal
        self._traces = Traces(packages=places.packages, seal=seal)

    def request(
        self, columns: Sequence[tuple[str, str]], value: str, *, actor: Actor, dry_run: bool = False
    ) -> dict[str, Any]:
        """Store a request to erase one value of these columns (source, column); `dry_run` only counts.

        Raises `NotFoundError` (`source_not_found`, `column_not_found`), `InvalidError` (`bad_value`).
        """
        with self._metadata.read() as unit:
            sources = declared(unit)
        digests: dict[str, None] = {}
        targets = []
        for source, column in with_derived(columns, sources):
            spec = sources[source].column(column)
            try:
                digests |= dict.fromkeys(digests_of(value, spec, self._seal))
            except InvalidError:
                if (source, column) in columns:
                    raise
                continue  # what is derived has another type: the value is none of it
            key = _entity(to_units(normal(value, spec), spec), spec)
            targets.append(Target(source=source, column=column, entity=key.hex()))
        erasure = Erasure(
            id=new_id("erasure"),
            digests=tuple(digests),
            targets=tuple(targets),
            at=self._clock.now(),
            actor=actor.name,
        )
        if dry_run:
            return self._counted(erasure).shown() | {"step": "dry_run"}
        with self._metadata.write() as unit:
            unit.erasures.put(erasure)
            self._note(unit, erasure, "erasure.request", actor)
        return erasure.shown()

    def tick(self) -> str:
        """Carry out the next step of the oldest open erasure; what was done."""
        with self._metadata.read() as unit:
            erasure = unit.erasures.open()
        if erasure is None:
            return "nothing to erase"
        following = {
            Step.REQUESTED: self._count,
            Step.COUNTED: self._erase,
            Step.ERASED: self._turn,
            Step.TURNED: self._finish,
        }[erasure.step](erasure)
        if following is None:
            return f"not yet: {erasure.id} waits after {erasure.step}"
        with self._changes.change() as unit:
            unit.erasures.put(following)
            self._note(unit, following, f"erasure.{following.step}", LOOP)
        return f"{erasure.id}: {following.step}"

    # the steps; None: not yet

    def _count(self, erasure: Erasure) -> Erasure:
        return replace(self._counted(erasure), step=Step.COUNTED)

    def _counted(self, erasure: Erasure) -> Erasure:
        targets = []
        for target in erasure.targets:
            found = self._ingest.count_erased(target.source, target.column, erasure.digests)
            counts = {"rows": found["rows"], "quarantined": found["quarantined"], "lsns": tuple(found["lsns"])}
            targets.append(replace(target, **counts))
        counted = replace(erasure, targets=tuple(targets))
        return replace(counted, runs=self._runs(counted), predictions=len(self._predictions(counted)))

    def _erase(self, erasure: Erasure) -> Erasure:
        for target in erasure.targets:
            entity = bytes.fromhex(target.entity) if target.entity else None
            self._ingest.erase(target.source, target.column, erasure.digests, entity=entity)
        return replace(erasure, step=Step.ERASED)

    def _turn(self, erasure: Erasure) -> Erasure | None:
        """Wait until every worker writes to a segment that came after the erasure."""
        with self._metadata.read() as unit:
            epoch = unit.loop.plan("serving").epoch
        if any(worker.epoch < epoch or worker.error for worker in self._publisher.workers()):
            return None
        for slot in self._places.log.slots():
            if not self._places.log.live(slot):
                self._places.log.turn(slot)
        return replace(erasure, step=Step.TURNED)

    def _finish(self, erasure: Erasure) -> Erasure | None:
        """What workers had logged is collected, or is by the next tick; then it goes from the predictions."""
        log = self._places.log
        if any(len(log.segments(slot)) > 1 for slot in log.slots()):
            return None
        found = self._predictions(erasure)
        self._places.predictions.blank(TABLE, "id", found, BLANKS)
        with self._metadata.write() as unit:
            unit.audit.forget(self._traces.hit(unit, erasure, found))
        if not self._metadata.scrub():
            return None
        with self._metadata.read() as unit:
            batches = [batch for project in unit.projects.all() for batch in project.batches]
        for target in erasure.targets:
            for batch in batches:
                if batch.rows == target.source:
                    self._places.tables.erase(batch.output, "_lsn", target.lsns)
        targets = tuple(replace(target, lsns=(), entity="") for target in erasure.targets)
        found_before = max(erasure.predictions, len(found))
        return replace(erasure, targets=targets, step=Step.DONE, predictions=found_before, done_at=self._clock.now())

    # what it was in

    def _runs(self, erasure: Erasure) -> dict[str, int]:
        """The training runs whose horizon reached beyond an erased row of a source that they read, with how many."""
        with self._metadata.read() as unit:
            records = unit.runs.list(kind="train", limit=ALL_RUNS)
        found: dict[str, int] = {}
        for record in records:
            spec = self._spec(record.id)
            if spec is None:
                continue
            read = set(sources_of(spec))
            for target in erasure.targets:
                reached = spec.horizon.get(target.source)
                if reached is not None and target.source in read:
                    rows = bisect.bisect_right(target.lsns, reached.lsn)
                    if rows:
                        found[record.id] = found.get(record.id, 0) + rows
        return found

    def _spec(self, run: str) -> RunSpec | None:
        """What a run was started with; None: it never was."""
        try:
            return run_spec_from_data(read_document(self._places.runs / run / "spec.json", SPEC_FORMAT))
        except (FileNotFoundError, FlyballError):
            return None

    def _predictions(self, erasure: Erasure) -> list[str]:
        """The ids of the predictions that hold the value."""
        with self._metadata.read() as unit:
            return self._places.predictions.find(TABLE, LOOKED_AT, self._traces.hit(unit, erasure))

    def _note(self, unit: Unit, erasure: Erasure, kind: str, actor: Actor) -> None:
        """A fact of what was asked and done: with the value's digest, never the value."""
        shown = erasure.shown()
        self._recorder.record(
            unit.facts,
            actor,
            kind,
            f"erasure:{erasure.id}",
            after={"step": erasure.step.value, "digest": erasure.digests[0]},
            details={name: shown[name] for name in ("targets", "predictions", "runs")},
        )


def marks(erasures: Iterable[Erasure], run: str) -> list[dict[str, Any]]:
    """The marks of a run, the newest first."""
    return [mark for erasure in erasures if (mark := erasure.mark(run)) is not None]


def _entity(value: Any, column: Any) -> bytes:
    from flyball.features.keys import entity_key  # the kernel is loaded for it: late, since erasing is rare

    return entity_key([value], [column])
