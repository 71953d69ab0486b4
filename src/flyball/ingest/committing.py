"""Log → lake: one committer per table, each commit named by the last LSN it holds, so that none is made twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import polars as pl

from flyball.define.spec import ColumnType
from flyball.ingest.frames import to_lake
from flyball.ingest.ports import Applier, EventLog, LakeFile, LakeTables, LogBatch, QuarantineChange, RejectedBatch
from flyball.ingest.rejection import DELETED

_QUARANTINE_TYPES = {
    "id": pl.String(),
    "position": pl.Int64(),
    "rule": pl.String(),
    "column": pl.String(),
    "value": pl.String(),
    "message": pl.String(),
    "row": pl.String(),
    "_known_at": pl.Int64(),
    "_batch": pl.Int64(),
    "_place": pl.Int64(),
    "live": pl.Boolean(),
}
_CHANGE_TYPES = {
    "id": pl.String(),
    "state": pl.String(),
    "rule": pl.String(),
    "column": pl.String(),
    "lsn": pl.Int64(),
    "_number": pl.Int64(),
    "_at": pl.Int64(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Horizon:
    """How far a source's table reaches: its last LSN, the table's own version (-1: no table), and its rows."""

    lsn: int
    version: int
    rows: int


def quarantine_table(source: str) -> str:
    return f"{source}__quarantine"


def changes_table(source: str) -> str:
    return f"{source}__quarantine_changes"


def quarantine_id(source: str, batch: int, place: int) -> str:
    """`Payments:12.3`: the third quarantined row of batch 12. Stable; no other row ever has it."""
    return f"{source}:{batch}.{place}"


FILES = 16  # times the rows of a commit: what is read of the log at once, so that many files are one commit


class LakeCommitter:
    """Commits what was applied. Repeating any step after a crash changes nothing."""

    def __init__(self, log: EventLog, lake: LakeTables, applier: Applier, *, commit_rows: int) -> None:
        self._log = log
        self._lake = lake
        self._applier = applier
        self._commit_rows = commit_rows

    def commit(self, source: str, columns: Mapping[str, tuple[ColumnType, int]]) -> Horizon:
        """Commit the source's events up to the applied LSN and its quarantine, then trim the log."""
        lsn = self._commit_events(source, columns)
        batch = self._commit_quarantine(source)
        self._commit_changes(source)
        for table in (source, quarantine_table(source), changes_table(source)):
            self._lake.sync(table)  # a commit that was found made already may not be on the disk yet
        self._log.trim(source, through_lsn=lsn, through_batch=batch)
        return self.horizon(source)

    def horizon(self, source: str) -> Horizon:
        return Horizon(
            lsn=self._lake.version(source, source),
            version=self._lake.table_version(source),
            rows=self._lake.count(source),
        )

    def _commit_events(self, source: str, columns: Mapping[str, tuple[ColumnType, int]]) -> int:
        done = self._lake.version(source, source)
        applied = self._applier.applied_lsn(source)
        while done < applied and (batches := self._log.read(source, after=done, limit=FILES * self._commit_rows)):
            whole = self._whole(source, batches, after=done, through=applied)
            if whole:
                last = whole[-1][0].last_lsn
                self._lake.append_files(source, [file for _, file in whole], app_id=source, version=last)
            else:
                batches = _alike(batches, rows=self._commit_rows)
                last = min(batches[-1].last_lsn, applied)
                rows = self._unique_events(source, batches, after=done, through=last)
                self._lake.append(source, to_lake(rows, columns), app_id=source, version=last)
            done = last
        return done

    def _whole(
        self, source: str, batches: Sequence[LogBatch], *, after: int, through: int
    ) -> list[tuple[LogBatch, LakeFile]]:
        """The first batches, as far as they have files of their own that the lake can take as they are: every row of
        theirs is to be committed now, and counts."""
        found = []
        for batch in batches:
            if batch.file is None or batch.first_lsn <= after or batch.last_lsn > through:
                break
            lsns = pl.int_range(batch.first_lsn, batch.last_lsn + 1, dtype=pl.Int64, eager=True)
            if not self._applier.seen_first(source, lsns).all():
                break
            found.append((batch, batch.file))
        return found

    def _unique_events(self, source: str, batches: Sequence[LogBatch], *, after: int, through: int) -> pl.DataFrame:
        """Those events of the batches that are the first of their key; `through` may be at most what was applied.

        Of a source with corrections, whose events say whether they delete, all are versions, and all are kept.
        """
        frame = pl.concat([batch.frame for batch in batches], how="diagonal")
        frame = frame.filter((pl.col("_lsn") > after) & (pl.col("_lsn") <= through))
        kept = pl.Series([False]).new_from_index(0, frame.height)
        if DELETED in frame.columns:
            kept = frame[DELETED].is_not_null()
        if not kept.all():
            kept |= self._applier.seen_first(source, frame["_lsn"])
        return frame.filter(kept)

    def _commit_quarantine(self, source: str) -> int:
        table = quarantine_table(source)
        done = self._lake.version(table, table)
        while batches := self._log.read_rejected(source, after=done, limit=256):
            done = batches[-1].batch
            self._lake.append(table, quarantine_frame(source, batches), app_id=table, version=done)
        return done

    def _commit_changes(self, source: str) -> None:
        """What became of quarantined rows, beside them: of each row, the change with the highest `_number` counts."""
        table = changes_table(source)
        done = self._lake.version(table, table)
        while changes := self._log.quarantine_changes(source, after=done, limit=10_000):
            done = changes[-1].number
            self._lake.append(table, changes_frame(source, changes), app_id=table, version=done)


def _alike(batches: list[LogBatch], *, rows: int) -> list[LogBatch]:
    """The first batch where it has a file of its own; else those up to the next that has, of about so many rows."""
    reach = batches[0].first_lsn + rows
    small = takewhile(lambda batch: batch.file is None and batch.last_lsn < reach, batches)
    return list(small) or batches[:1]


def quarantine_frame(source: str, batches: Sequence[RejectedBatch]) -> pl.DataFrame:
    """Quarantined rows as a table: the original row is JSON text in `row`."""
    rows = [
        row
        | {
            "row": json.dumps(row["row"], default=str, ensure_ascii=False),
            "_known_at": batch.known_at,
            "_batch": batch.batch,
            "_place": place,
            "live": batch.live,
            "id": quarantine_id(source, batch.batch, place),
        }
        for batch in batches
        for place, row in enumerate(batch.rows, start=1)
    ]
    return _timed(pl.DataFrame(rows, schema=_QUARANTINE_TYPES), "_known_at")


def changes_frame(source: str, changes: Sequence[QuarantineChange]) -> pl.DataFrame:
    """Changes of quarantined rows as a table."""
    rows = [
        {
            "id": quarantine_id(source, change.batch, change.place),
            "state": change.state,
            "rule": change.rule,
            "column": change.column,
            "lsn": change.lsn or None,
            "_number": change.number,
            "_at": change.at,
        }
        for change in changes
    ]
    return _timed(pl.DataFrame(rows, schema=_CHANGE_TYPES), "_at")


def _timed(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return frame.with_columns(pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
