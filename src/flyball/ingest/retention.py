"""Retention: rows older than their source keeps them leave the lake, a bounded piece at a time.

A source says how long its events are kept (`retention=`, by event time; without it, for ever). Its quarantine follows,
by when a row was refused; that of a source which keeps its events for ever is kept for `QUARANTINE_KEPT`. Predictions
are kept for ever. Rows go in steps of a twentieth of their retention, so that a table is not written anew for every
minute that passes. What was deleted stays readable in the table's older versions until its files are vacuumed.

Rows that a derived source has yet to read stay until it has read them, and the status of their source says so: a
derivation that fails or is slow would lose them without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flyball.define.derive import inputs_of
from flyball.define.spec import SourceSpec
from flyball.ingest.committing import quarantine_table
from flyball.ingest.ports import LakeTables
from flyball.kernel.clock import Clock
from flyball.kernel.times import DAY, MINUTE

QUARANTINE_KEPT = 90 * DAY
_STEPS = 20
_SHORTEST_STEP = 15 * MINUTE


@dataclass(frozen=True, kw_only=True, slots=True)
class Expiry:
    """Rows of `table` whose time in `column` is more than `kept` µs ago may go, `step` later at most."""

    table: str
    column: str
    kept: int

    @property
    def step(self) -> int:
        return max(self.kept // _STEPS, _SHORTEST_STEP)


def expiries(sources: Iterable[SourceSpec]) -> list[Expiry]:
    """What leaves which table when."""
    found: list[Expiry] = []
    for source in sources:
        if source.retention is not None:
            found.append(Expiry(table=source.name, column="_event_time", kept=source.retention))
        kept = QUARANTINE_KEPT if source.retention is None else source.retention
        found.append(Expiry(table=quarantine_table(source.name), column="_known_at", kept=kept))
    return found


class Retention:
    """Deletes what is due. Any step may be repeated, or cut off and repeated."""

    def __init__(self, lake: LakeTables, clock: Clock) -> None:
        self._lake = lake
        self._clock = clock
        self._waits: dict[str, list[str]] = {}

    def waits_for(self, source: str) -> list[str]:
        """The derived sources that rows of a source, due to go, were kept for at the last step."""
        return self._waits.get(source, [])

    def step(self, sources: Sequence[SourceSpec], behind: Callable[[str], int]) -> int:
        """One bounded deletion in each table where one is due; how many rows went. 0: nothing is left to do now.

        `behind` says how many events a derived source has yet to read.
        """
        gone, readers = 0, unfinished(sources, behind)
        waits: dict[str, list[str]] = {}
        for expiry in expiries(sources):
            cutoff = self._clock.now() - expiry.kept
            oldest = self._lake.oldest(expiry.table, expiry.column)
            if oldest is None or oldest >= cutoff - expiry.step:
                continue
            if expiry.table in readers:
                waits[expiry.table] = readers[expiry.table]
            else:
                gone += self._lake.delete_before(expiry.table, expiry.column, cutoff)
        self._waits = waits
        return gone


def unfinished(sources: Sequence[SourceSpec], behind: Callable[[str], int]) -> dict[str, list[str]]:
    """By source, the derived sources that are computed from it and have not read all of what they are derived from."""
    found: dict[str, list[str]] = {}
    for spec in sources:
        if spec.derive is not None and behind(spec.name):
            for name in inputs_of(spec):
                found.setdefault(name, []).append(spec.name)
    return found
