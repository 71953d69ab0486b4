"""Erasing rows of the lake so that their bytes are gone: Delta rewrites the files, and what it leaves behind goes too.

Earlier versions of the table, and the statistics of earlier files in its log, hold what was deleted. So the newest
version is checkpointed, and the files and log entries before it are removed. A reader of an earlier version loses it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from flyball.kernel.files import sync_directory
from flyball.storage.lake import DeltaLake

CHUNK = 5_000  # values in one condition
Mask = Callable[[pl.Series], pl.Series]


class LakeErasure:
    """`ingest.erasing.ErasableLake` on a Delta lake, for the process that writes its tables.

    Args:
        alone: whether no other process writes to these tables: then files that no version knows go as well.
    """

    def __init__(self, lake: DeltaLake, *, alone: bool = True) -> None:
        self._lake = lake
        self._alone = alone

    def matching(self, table: str, column: str, mask: Mask) -> pl.DataFrame:
        if column not in self._lake.types(table):
            return pl.DataFrame(schema={"_lsn": pl.Int64})
        values = self._lake.read(table, [column])[column].unique()
        hits = values.filter(mask(values)).to_list()
        if not hits:
            return pl.DataFrame(schema={"_lsn": pl.Int64})
        rows = self._lake.read(table)
        return rows.filter(pl.col(column).is_in(hits))

    def erase(self, table: str, column: str, values: Sequence[int | str]) -> None:
        if not self._lake.types(table):
            return
        with self._lake._lock:
            for start in range(0, len(values), CHUNK):
                self._lake._require(table).delete(_among(column, values[start : start + CHUNK]))
                self._lake._sync(table)
            self._purge(table)

    def find(self, table: str, columns: Sequence[str], hit: Callable[[dict[str, Any]], bool]) -> list[str]:
        """The ids of the rows for which `hit` holds; the JSON `columns` are given to it as data."""
        if not self._lake.types(table):
            return []
        names = ["id", "version", *columns]
        found = []
        for row in self._lake.scan(table).select(names).collect().iter_rows(named=True):
            data = {name: json.loads(row[name]) if name in columns and row[name] else row[name] for name in names}
            if hit(data):
                found.append(str(row["id"]))
        return found

    def blank(self, table: str, column: str, values: Sequence[str], blanks: Mapping[str, str]) -> None:
        """Set columns of the rows whose `column` is one of the values to SQL literals; their old bytes are gone."""
        if not self._lake.types(table):
            return
        with self._lake._lock:
            for start in range(0, len(values), CHUNK):
                condition = _among(column, values[start : start + CHUNK])
                self._lake._require(table).update(updates=dict(blanks), predicate=condition)
                self._lake._sync(table)
            self._purge(table)

    def _purge(self, table: str) -> None:
        """Leave nothing but the newest version. The checkpoint comes before what it takes the place of goes."""
        self._lake._sync(table)  # before the files of what is not on the disk yet may go
        current = self._lake._require(table)
        current.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=self._alone)
        self._lake._sync(table)
        self._lake._make_checkpoint(table)
        newest = self._lake._checkpoint(table)
        log = self._lake.table_path(table) / "_delta_log"
        for path in log.iterdir():
            number = path.name[:20]
            if number.isdigit() and int(number) < newest:
                path.unlink()
        sync_directory(log)


def _among(column: str, values: Sequence[int | str]) -> str:
    """A condition in SQL."""
    return f"{column} IN ({', '.join(_literal(value) for value in values)})"


def _literal(value: int | str) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
