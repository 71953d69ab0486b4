"""Files of events: CSV, Parquet and JSON Lines, in chunks that are the same each time the file is read.

What makes a whole file useless is found before anything is stored: no header, a column that is missing, text that is
not UTF-8, a Parquet file that was cut off.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.delimited import csv_rows, header, not_utf8
from flyball.ingest.rejection import carried
from flyball.ingest.rows import BadLine, Rows, from_dicts, from_frame, require_columns
from flyball.kernel.errors import InvalidError, NotFoundError

FileFormat = Literal["csv", "parquet", "jsonl"]
_WINDOW = 2  # chunks of a Parquet file that are read together
_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Rows of a file, and how much of it they end: 0 to 1."""

    rows: Rows
    fraction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EventFile:
    """A file of events. What is read of it counts once `look_through` has found it to be of use."""

    path: Path
    format: FileFormat
    size: int

    def look_through(self, spec: SourceSpec) -> str:
        """Read it whole, refuse it where it is of no use, and give the digest (SHA-256, hex) that names its content."""
        digest = _digest(self.path, text=self.format != "parquet")
        if self.format == "csv":
            require_columns(header(self.path), spec)
        elif self.format == "parquet":
            require_columns(list(_scan(self).collect_schema()), spec)
        elif self.size == 0:
            raise InvalidError("the file is empty; each line is one JSON object", code="empty_file")
        return digest

    def chunks(self, spec: SourceSpec, *, size: int) -> Iterator[Chunk]:
        """Its rows in order, `size` at a time. Raises `InvalidError` (`bad_file`) where a part cannot be read."""
        return {"csv": _csv_chunks, "jsonl": _jsonl_chunks, "parquet": _parquet_chunks}[self.format](self, spec, size)


def open_file(path: Path, *, format: str = "") -> EventFile:
    """A file that is there, of a format that is read; `format` empty: by the file's name."""
    require_file(path)
    return EventFile(path=path, format=_format(path, format), size=path.stat().st_size)


def require_file(path: Path) -> None:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path.name!r}", code="file_not_found")


def _format(path: Path, format: str) -> FileFormat:
    kind = format or _SUFFIXES.get(path.suffix.lower(), "")
    for known in ("csv", "parquet", "jsonl"):
        if kind == known:
            return known
    raise InvalidError(
        f"{format or path.name!r} is not a file format that is read; use csv, parquet or jsonl",
        code="unknown_format",
        hint="name the format where the file's name does not: format=csv",
    )


def _digest(path: Path, *, text: bool) -> str:
    sha, size = hashlib.sha256(), 0
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
            if text and not (block.isascii() and not decoder.getstate()[0]):
                try:
                    decoder.decode(block)
                except UnicodeDecodeError as error:
                    raise not_utf8(path, _near(size + error.start)) from None
            size += len(block)
        if text and decoder.getstate()[0]:
            raise not_utf8(path, _near(size))
    return sha.hexdigest()


def _near(place: int) -> str:
    return f" near byte {place:,}; nothing was stored"


def _bad_file(file: EventFile, error: Exception) -> InvalidError:
    return InvalidError(
        f"{file.path.name} cannot be read as {file.format}: {str(error).splitlines()[0]}",
        code="bad_file",
        hint="the file may have been cut off while it was copied; copy it again",
    )


# --- CSV


def _csv_chunks(file: EventFile, spec: SourceSpec, size: int) -> Iterator[Chunk]:
    try:
        for rows, position in csv_rows(file.path, spec, size):
            yield Chunk(rows=rows, fraction=position / file.size)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise _bad_file(file, error) from None


# --- JSON Lines


def _jsonl_chunks(file: EventFile, spec: SourceSpec, size: int) -> Iterator[Chunk]:
    rows: list[Any] = []
    lines: list[int] = []
    decode = msgspec.json.Decoder().decode
    with file.path.open("rb", buffering=1 << 20) as binary:
        for number, line in enumerate(binary, start=1):
            if not line.strip():
                continue
            try:
                rows.append(decode(line))
            except msgspec.DecodeError:
                rows.append(BadLine(line.decode(errors="replace").rstrip("\n")))
            lines.append(number)
            if len(rows) == size:
                yield Chunk(
                    rows=from_dicts(rows, spec, strict=False, positions=lines), fraction=binary.tell() / file.size
                )
                rows, lines = [], []
    if rows:
        yield Chunk(rows=from_dicts(rows, spec, strict=False, positions=lines), fraction=1.0)


# --- Parquet


def _scan(file: EventFile) -> pl.LazyFrame:
    try:
        scan = pl.scan_parquet(file.path, glob=False)
        scan.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _bad_file(file, error) from None
    return scan


def _parquet_chunks(file: EventFile, spec: SourceSpec, size: int) -> Iterator[Chunk]:
    scan = _scan(file)
    present = list(scan.collect_schema())
    wanted = carried(spec, present)
    others = [name for name in present if name not in wanted]
    scan = scan.select(wanted)
    try:
        total = int(scan.select(pl.len()).collect().item())
        window = pl.DataFrame()
        for start in range(0, total, size):
            place = start % (_WINDOW * size)
            if place == 0:  # several chunks at once: a row group that two chunks share is decoded once
                window = scan.slice(start, _WINDOW * size).collect()
            frame = window.slice(place, size)
            rows = from_frame(frame, spec, positions=range(start + 1, start + 1 + frame.height), ignored=others)
            yield Chunk(rows=rows, fraction=min(1.0, (start + size) / total))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _bad_file(file, error) from None
