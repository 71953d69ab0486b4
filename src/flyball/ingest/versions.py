"""Versions of a key and the quarantine: a row that is retried does not take the place of what came after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from flyball.ingest.contract import Checked
from flyball.ingest.ports import EventLog, LakeTables, QuarantineChange

STEP = 1 << 20  # LSNs that are looked through at a time (about 32 bytes each)
_COLUMNS = ("_key", "_lsn", "_known_at")


class Versions:
    """What the log and the lake have of the keys of retried rows since the first of these rows came.

    Versions are told apart by LSN, which is the order of acceptance; those that were quarantined themselves, by the
    place they have in the quarantine. Used while nothing moves from the log to the lake.

    Args:
        checked: the rows, judged by the contract of now.
        rows: which ones they are, by their place among those judged.
    """

    def __init__(
        self, log: EventLog, lake: LakeTables, source: str, checked: Checked, rows: Sequence[QuarantineChange]
    ) -> None:
        self._log, self._lake, self._source, self._frame = log, lake, source, checked.frame
        self._asked = checked.frame["_key"].unique().implode()
        self._places: list[int] = checked.places.tolist()
        self._rows = [rows[place] for place in self._places]
        arrivals = log.arrivals(source, {row.batch for row in self._rows})
        # Of a row that came before arrivals were noted, any version may have come after it.
        self._arrived = [arrivals[r.batch][r.place - 1] if r.batch in arrivals else 0 for r in self._rows]
        self._reach = min(self._arrived, default=0)
        self._found: dict[bytes, list[tuple[int, int]]] = {}  # by key: LSN, known_at

    def catch_up(self) -> None:
        """Read on, up to the newest event."""
        if not self._rows:
            return
        done, end = self._lake.version(self._source, self._source), self._log.last_lsn(self._source)
        while self._reach < done:
            through = min(self._reach + STEP, done)
            self._take(self._lake.read(self._source, _COLUMNS, after_lsn=self._reach, through_lsn=through))
            self._reach = through
        while self._reach < end and (batches := self._log.read(self._source, after=self._reach, limit=STEP)):
            for batch in batches:
                self._take(batch.columns(_COLUMNS).filter(pl.col("_lsn") > self._reach))
            self._reach = batches[-1].last_lsn

    def superseded(self) -> list[int]:
        """The places, among those judged, of rows that would take the place of a version accepted after they came.

        A live row, known from its commit on, is older than any such version. History keeps the time that it was known
        at: it does not take the place of a version known later, and goes in before that.
        """
        self.catch_up()
        if not self._found:
            return []
        retried = {c.lsn: (c.batch, c.place) for c in self._log.quarantine_states(self._source) if c.lsn}
        history = "_known_at" in self._frame.columns
        known = self._frame["_known_at"].to_list() if history else []
        old = []
        for i, (key, row) in enumerate(zip(self._frame["_key"], self._rows, strict=True)):
            for lsn, at in self._found.get(key, ()):
                later = retried[lsn] > (row.batch, row.place) if lsn in retried else lsn > self._arrived[i]
                if later and not (history and at > known[i]):
                    old.append(self._places[i])
                    break
        return old

    def _take(self, frame: pl.DataFrame) -> None:
        for key, lsn, known in frame.filter(pl.col("_key").is_in(self._asked)).select(_COLUMNS).iter_rows():
            self._found.setdefault(key, []).append((lsn, known))


def judged_again(
    checked: Checked, rows: Sequence[QuarantineChange], superseded: Collection[int]
) -> tuple[Checked, tuple[QuarantineChange, ...]]:
    """What is to be taken of quarantined rows that were judged again, and what becomes of each row."""
    if superseded:
        kept = ~np.isin(checked.places, list(superseded))
        checked = replace(checked, frame=checked.frame.filter(pl.Series(kept)), places=checked.places[kept])
    found = {place: replace(rows[place], state="superseded") for place in superseded}
    found |= {place: replace(rows[place], state="retried") for place in checked.duplicate_places}
    found |= {
        place: replace(rows[place], state="retried", lsn=lsn) for lsn, place in enumerate(checked.places.tolist(), 1)
    }
    for place, row in zip(checked.rejected_places, checked.rejected, strict=True):
        found[place] = replace(
            rows[place], state="open", rule=str(row.rule), column=row.column, value=row.value, message=row.message
        )
    return checked, tuple(found[place] for place in sorted(found))
