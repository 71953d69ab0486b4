"""A source's events, wherever they lie: those in the lake, then those that only the log has."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.frames import fitted, physical_schema, system_columns
from flyball.ingest.ports import EventLog, LakeTables

First = Callable[[str, pl.Series], pl.Series]


class Stored:
    """Log and lake as one. To be used while nothing moves from the one to the other.

    Args:
        step: rows of the log that are read at a time.
    """

    def __init__(self, log: EventLog, lake: LakeTables, *, step: int) -> None:
        self._log = log
        self._lake = lake
        self._step = step

    def span(
        self,
        spec: SourceSpec,
        columns: Iterable[str] | None = None,
        *,
        after_lsn: int,
        through_lsn: int,
        first: First | None = None,
    ) -> pl.DataFrame:
        """The physical events with an LSN in (after, through], in its order; the columns asked for (None: all) and the
        system's own.

        The lake has each key once, or of a source with corrections each version; the log has each as often as it came,
        unless `first` (source, LSNs) says which of them count.
        """
        schema = physical_schema(spec)
        wanted = list(schema) if columns is None else list(dict.fromkeys([*columns, *system_columns(spec)]))
        parts = [pl.DataFrame(schema=schema).select(wanted)]
        done = self._lake.version(spec.name, spec.name)
        if after_lsn < min(done, through_lsn):
            there = self._lake.types(spec.name)
            names = [name for name in wanted if name in there]
            rows = self._lake.read(spec.name, names, after_lsn=after_lsn, through_lsn=through_lsn)
            missing = [pl.lit(None, dtype=schema[name]).alias(name) for name in wanted if name not in there]
            parts.append(rows.with_columns(missing).select(wanted))
        after = max(after_lsn, done)
        while after < through_lsn and (batches := self._log.read(spec.name, after=after, limit=self._step)):
            tail = pl.concat([fitted(batch.frame, spec).select(wanted) for batch in batches])
            tail = tail.filter((pl.col("_lsn") > after) & (pl.col("_lsn") <= through_lsn))
            if first is not None and not spec.corrections:
                tail = tail.filter(first(spec.name, tail["_lsn"]))
            parts.append(tail)
            after = batches[-1].last_lsn
        return pl.concat(parts)
