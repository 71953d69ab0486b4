"""The events that a training set reads: each source once, as far as its horizon, pinned by what was read.

A pin says which rows a training set was built from: the last LSN, how many, and a digest of the columns that were read.
Rows are digested in LSN order column by column, so a pin does not depend on files, batches or compaction; what was
erased or changed since makes another digest.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flyball.define.spec import ProjectSpec, SourceSpec
from flyball.features.frames import CURRENT
from flyball.features.partitions import BUDGET, temporary_folder
from flyball.features.ports import BatchReader, EventReader
from flyball.features.versions import versions
from flyball.kernel.errors import ConflictError
from flyball.kernel.ids import digest

_KEY = 16  # bytes of an event's key


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """What was read of a source: `rows` events up to `lsn` (0: none), and the digest of `columns`."""

    lsn: int
    rows: int
    digest: str
    columns: tuple[str, ...]

    def to_data(self) -> dict[str, Any]:
        return {"lsn": self.lsn, "rows": self.rows, "digest": self.digest, "columns": list(self.columns)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Pin:
        """Rebuild a pin from `to_data()`."""
        columns = tuple(str(name) for name in data["columns"])
        return cls(lsn=int(data["lsn"]), rows=int(data["rows"]), digest=str(data["digest"]), columns=columns)


class Histories:
    """Events of sources, read once with the columns that are needed, held in memory or beside it. Close after use.

    Args:
        columns: per source the declared columns that are read.
        horizon: per source the last LSN that is read; a source without one is read as far as there are events.
        at: events that were not known by then are not there.
        budget: bytes of a source's events that are held in memory; beyond, they are written to a folder of their own in
            `folder` (None: the system's place for temporary files), which `close` removes.
    """

    def __init__(
        self,
        reader: EventReader,
        project: ProjectSpec,
        columns: Mapping[str, Sequence[str]],
        *,
        horizon: Mapping[str, int],
        at: int,
        budget: int = BUDGET,
        folder: Path | None = None,
    ) -> None:
        self._reader = reader
        self._project = project
        self._columns = columns
        self._horizon = horizon
        self._at = at
        self.budget = budget
        self.folder = folder
        self._spools: dict[str, _Spool] = {}
        self._pins: dict[str, Pin] = {}
        self._whole: dict[str, pl.DataFrame] = {}

    def __enter__(self) -> Histories:
        return self

    def __exit__(self, *_: object) -> None:
        for spool in self._spools.values():
            spool.close()

    @property
    def pins(self) -> dict[str, Pin]:
        """Of the sources that were read."""
        return dict(self._pins)

    def raw(self, name: str) -> pl.DataFrame:
        """All events that were known, deletions and duplicates among them, in LSN order."""
        return pl.concat(self._spool(name).batches()).filter(pl.col("_known_at") <= self._at)

    def events(self, name: str) -> Iterator[pl.DataFrame]:
        """The versions that count among what was known, with `_until`, in LSN order."""
        source = self._source(name)
        return versions(self._spool(name).batches, source, known_by=self._at)

    def current(self, name: str) -> pl.DataFrame:
        """The versions that count at the end, in one frame."""
        return pl.concat(batch.filter(pl.col("_until") == CURRENT) for batch in self.events(name))

    def whole(self, name: str) -> pl.DataFrame | None:
        """`events` in one frame; None where that is more than fits."""
        if self._spool(name).spilled:
            return None
        if name not in self._whole:
            self._whole[name] = pl.concat(self.events(name))
        return self._whole[name]

    def _source(self, name: str) -> SourceSpec:
        return self._project.source(name)

    def _spool(self, name: str) -> _Spool:
        if name in self._spools:
            return self._spools[name]
        source = self._source(name)
        columns = [*self._columns.get(name, ()), *(("_deleted",) if source.corrections else ())]
        spool = self._spools[name] = _Spool(self.budget, self.folder)
        content = _Content()
        for batch in read_batches(self._reader, name, columns, through_lsn=self._horizon.get(name)):
            content.add(batch)
            spool.add(batch)
        self._pins[name] = content.pin()
        return spool


def read_batches(
    reader: EventReader, source: str, columns: Sequence[str], *, through_lsn: int | None
) -> Iterable[pl.DataFrame]:
    """Events in batches where the reader can, else all at once; at least one batch, which may be empty."""
    if isinstance(reader, BatchReader):
        return reader.batches(source, columns, through_lsn=through_lsn)
    return iter([reader.events(source, columns, through_lsn=through_lsn)])


def check_pins(pins: Mapping[str, Pin], found: Mapping[str, Pin]) -> None:
    """Raise `pin_changed` where what was read now is not what was read then."""
    for source, pin in pins.items():
        now = found.get(source)
        if now is None or now.digest != pin.digest:
            rows = 0 if now is None else now.rows
            raise ConflictError(
                f"the events of {source} up to LSN {pin.lsn} are not those that the training set was built from: "
                f"it had {pin.rows} rows, there are {rows}" + (", with other values" if rows == pin.rows else ""),
                code="pin_changed",
                hint="erasure and retention take rows away; train again on what there is",
                details={"source": source, "lsn": pin.lsn, "rows": rows, "pinned_rows": pin.rows},
            )


class _Spool:
    """Batches of one source, to be read again and again."""

    def __init__(self, budget: int, parent: Path | None) -> None:
        self._budget = budget
        self._parent = parent
        self._held: list[pl.DataFrame] = []
        self._bytes = 0
        self._folder: Path | None = None
        self._files: list[Path] = []

    @property
    def spilled(self) -> bool:
        return self._folder is not None

    def add(self, batch: pl.DataFrame) -> None:
        self._held.append(batch)
        self._bytes += int(batch.estimated_size())
        if self._bytes <= self._budget and self._folder is None:
            return
        if self._folder is None:
            self._folder = temporary_folder(self._parent)
        for frame in self._held:
            self._files.append(self._folder / f"{len(self._files):08}.arrow")
            frame.write_ipc(self._files[-1])
        self._held.clear()

    def batches(self) -> Iterator[pl.DataFrame]:
        yield from self._held
        for file in self._files:
            yield pl.read_ipc(file)

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class _Content:
    """The digest of rows: per column one of its values and one of which are not null, in the order they come."""

    def __init__(self) -> None:
        self._hashes: dict[str, tuple[Any, Any, Any]] = {}  # of values, of sizes of texts, and of which are there
        self._rows = 0
        self._lsn = 0

    def add(self, batch: pl.DataFrame) -> None:
        for series in batch:
            if series.name not in self._hashes:
                typed = hashlib.sha256(str(series.dtype).encode())
                self._hashes[series.name] = typed, hashlib.sha256(), hashlib.sha256()
            values, sizes, valid = self._hashes[series.name]
            content, lengths = _buffers(series)
            values.update(content)
            sizes.update(lengths)
            valid.update(series.is_not_null().to_numpy().astype(np.uint8).data)
        self._rows += len(batch)
        if len(batch):
            self._lsn = max(self._lsn, int(batch["_lsn"].max()))  # type: ignore[arg-type]

    def pin(self) -> Pin:
        columns = tuple(sorted(self._hashes))
        found = [[name, *(h.hexdigest() for h in self._hashes[name])] for name in columns]
        return Pin(lsn=self._lsn, rows=self._rows, digest=digest([self._rows, found]), columns=columns)


def _buffers(series: pl.Series) -> tuple[Any, Any]:
    """The bytes of a column's values, nulls as zeros or nothing; and those of the sizes of texts."""
    if series.dtype == pl.Boolean:
        series = series.cast(pl.UInt8)
    if series.dtype not in (pl.String, pl.Binary):
        return np.ascontiguousarray(series.fill_null(0).to_numpy()).data, b""
    is_text = series.dtype == pl.String
    filled = series.fill_null("" if is_text else b"")
    lengths = (filled.str.len_bytes() if is_text else filled.bin.size()).cast(pl.UInt32)
    sizes = np.ascontiguousarray(lengths.to_numpy()).data
    if is_text:
        return (filled.str.join("").item() or "").encode(), sizes
    if (lengths == _KEY).all():  # as keys are: two words each, without an object for each
        halves = [half.bin.reinterpret(dtype=pl.Int64) for half in (filled.bin.head(8), filled.bin.tail(8))]
        return np.ascontiguousarray(np.stack([half.to_numpy() for half in halves], 1)).data, sizes
    return b"".join(filled.to_list()), sizes
