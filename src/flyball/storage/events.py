"""Events as features read them, from the tables of the lake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from flyball.define.spec import ProjectSpec
from flyball.ingest.frames import physical_schema, system_columns

BATCH = 1_000_000  # LSNs of a batch


class EventTables(Protocol):
    """The part of the lake that events are read from."""

    def types(self, table: str) -> Mapping[str, Any]:
        """Empty where there is no such table."""
        ...

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        *,
        after_lsn: int | None = None,
        through_lsn: int | None = None,
    ) -> pl.DataFrame:
        """A physical frame in LSN order."""
        ...

    def version(self, table: str, app_id: str) -> int:
        """Of a source's own application: the last LSN of its table; 0: none."""
        ...


class LakeEvents:
    """`features.ports.BatchReader` on the lake, never beyond a horizon: {source: last LSN}."""

    def __init__(
        self, lake: EventTables, project: ProjectSpec, horizon: Mapping[str, int], *, batch: int = BATCH
    ) -> None:
        self._lake = lake
        self._project = project
        self._horizon = horizon
        self._batch = batch

    def events(self, source: str, columns: Sequence[str] | None, *, through_lsn: int | None) -> pl.DataFrame:
        return pl.concat(self.batches(source, columns, through_lsn=through_lsn))

    def batches(
        self, source: str, columns: Sequence[str] | None, *, through_lsn: int | None, after_lsn: int = 0
    ) -> Iterator[pl.DataFrame]:
        """What `events` gives, behind `after_lsn`, in pieces."""
        spec = self._project.source(source)
        schema = physical_schema(spec)
        names = list(schema) if columns is None else list(dict.fromkeys([*columns, *system_columns(spec)]))
        yield pl.DataFrame(schema={name: schema[name] for name in names})
        present = self._lake.types(source)
        if not present:  # nothing was ever ingested
            return
        # A column that was declared later is null in earlier events.
        late = [pl.lit(None, dtype=schema[name]).alias(name) for name in names if name not in present]
        there = [name for name in names if name in present]
        ends = [end for end in (through_lsn, self._horizon.get(source)) if end is not None]
        end = min(ends, default=self._lake.version(source, source))
        for after in range(after_lsn, end, self._batch):
            through = min(after + self._batch, end)
            frame = self._lake.read(source, there, after_lsn=after, through_lsn=through)
            yield frame.with_columns(late).select(names)
