"""Retention: rows older than their source keeps them leave the lake, a bounded piece at a time.

A source says how long its events are kept (`retention=`, by event time; without it, for ever). Its quarantine follows,
by when a row was refused; that of a source which keeps its events for ever is kept for `QUARANTINE_KEPT`. Predictions
are kept for ever. Rows go in steps of a twentieth of their retention, so that a table is not written anew for every
minute that passes. What was deleted stays readable in the table's older versions until its files are vacuumed.

Rows that a derived source has yet to read stay until it has read them, and the status of their source says so: a
derivation that fails or is slow would lose them without a word.

A source that left the project keeps its rows no longer than it last said. That is noted in a file, and so outlives the
process; and nobody appends to its tables any more, so it is here that they are vacuumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball.define.derive import inputs_of
from flyball.define.spec import SourceSpec
from flyball.ingest.committing import quarantine_table
from flyball.ingest.ports import LakeTables
from flyball.kernel.clock import Clock
from flyball.kernel.files import read_document, write_document
from flyball.kernel.times import DAY, HOUR, MINUTE

FORMAT = "flyball.retention"
QUARANTINE_KEPT = 90 * DAY
_STEPS = 20
_SHORTEST_STEP = 15 * MINUTE
_VACUUM_EVERY = HOUR  # of domain time


@dataclass(frozen=True, kw_only=True, slots=True)
class Expiry:
    """Rows of `table` whose time in `column` is more than `kept` µs ago may go, `step` later at most."""

    table: str
    column: str
    kept: int

    @property
    def step(self) -> int:
        return max(self.kept // _STEPS, _SHORTEST_STEP)


def expiries(retentions: Mapping[str, int | None]) -> list[Expiry]:
    """What leaves which table when. `retentions`: by source how long it keeps events, µs; None: for ever."""
    found: list[Expiry] = []
    for source, retention in retentions.items():
        if retention is not None:
            found.append(Expiry(table=source, column="_event_time", kept=retention))
        kept = QUARANTINE_KEPT if retention is None else retention
        found.append(Expiry(table=quarantine_table(source), column="_known_at", kept=kept))
    return found


class Retention:
    """Deletes what is due. Any step may be repeated, or cut off and repeated.

    Args:
        notes: the file with what every source last declared; None: it is forgotten with the process.
    """

    def __init__(self, lake: LakeTables, clock: Clock, *, notes: Path | None = None) -> None:
        self._lake = lake
        self._clock = clock
        self._notes = notes
        self._declared: dict[str, int | None] = _read(notes)
        self._planned: frozenset[str] | None = None  # the sources of the plan; None: there was no plan yet
        self._vacuumed: dict[str, int] = {}
        self._waits: dict[str, list[str]] = {}

    def note(self, sources: Iterable[SourceSpec]) -> None:
        """Remember what the sources of a plan declare; those that were noted before and are not in it left."""
        retentions = {source.name: source.retention for source in sources}
        declared = self._declared | retentions
        if self._notes is not None and declared != self._declared:
            write_document(self._notes, FORMAT, {"retention": declared})
        self._declared, self._planned = declared, frozenset(retentions)

    def waits_for(self, source: str) -> list[str]:
        """The derived sources that rows of a source, due to go, were kept for at the last step."""
        return self._waits.get(source, [])

    def step(self, sources: Sequence[SourceSpec], behind: Callable[[str], int]) -> int:
        """One bounded deletion in each table where one is due; how many rows went. 0: nothing is left to do now.

        `behind` says how many events a derived source has yet to read.
        """
        gone, readers = 0, unfinished(sources, behind)
        waits: dict[str, list[str]] = {}
        left = self._left()
        for expiry in expiries({source.name: source.retention for source in sources} | left):
            cutoff = self._clock.now() - expiry.kept
            oldest = self._lake.oldest(expiry.table, expiry.column)
            if oldest is None or oldest >= cutoff - expiry.step:
                continue
            if expiry.table in readers:
                waits[expiry.table] = readers[expiry.table]
            else:
                gone += self._lake.delete_before(expiry.table, expiry.column, cutoff)
        self._waits = waits
        self._vacuum(left)
        return gone

    def _left(self) -> dict[str, int | None]:
        """What sources that are in the plan no more last declared; none before there is a plan to say which."""
        if self._planned is None:
            return {}
        return {name: kept for name, kept in self._declared.items() if name not in self._planned}

    def _vacuum(self, sources: Iterable[str]) -> None:
        """Now and then remove the files of tables that nobody appends to."""
        now = self._clock.now()
        for table in [table for source in sources for table in (source, quarantine_table(source))]:
            if now - self._vacuumed.get(table, now - _VACUUM_EVERY) < _VACUUM_EVERY:
                continue
            self._vacuumed[table] = now
            if self._lake.table_version(table) >= 0:
                self._lake.vacuum(table)


def unfinished(sources: Sequence[SourceSpec], behind: Callable[[str], int]) -> dict[str, list[str]]:
    """By source, the derived sources that are computed from it and have not read all of what they are derived from."""
    found: dict[str, list[str]] = {}
    for spec in sources:
        if spec.derive is not None and behind(spec.name):
            for name in inputs_of(spec):
                found.setdefault(name, []).append(spec.name)
    return found


def _read(notes: Path | None) -> dict[str, int | None]:
    if notes is None or not notes.exists():
        return {}
    declared: dict[str, int | None] = read_document(notes, FORMAT)["retention"]
    return declared
