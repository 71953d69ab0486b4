"""CSV in chunks of a number of rows: found by one pass over the bytes, read by Polars, and with care where needed.

What a line is, and how many fields it has, is what Python's `csv` says of it (strict, quotes doubled). Plain records go
to Polars together; those with line ends in quotes, a lone quote or a lone carriage return to `csv`. One with the wrong
number of fields is quarantined; of one whose quotes are wrong, its first line alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.compiled import Octets, Places, scan_records
from flyball.ingest.rejection import Rule, carried
from flyball.ingest.rows import Fault, Rows
from flyball.kernel.errors import InvalidError

_READ = 8 << 20  # bytes read at once
_LONGEST = 64 << 20  # bytes of one record
_CAREFUL = frozenset('"\r\n')  # a record without these is its fields with commas between
_BOM = b"\xef\xbb\xbf"
_PLAIN, _WITH_LINE_ENDS, _WITH_CARE, _BAD_QUOTES = range(4)  # kinds of records


@dataclass(frozen=True, slots=True)
class _Found:
    """Records of a chunk: their text, where each lies in it, and what `scan_records` says of it."""

    data: bytes
    starts: Places
    ends: Places
    fields: Places
    lines: Places
    kinds: Places

    def text(self, place: int) -> str:
        return self.data[self.starts[place] : self.ends[place]].decode()


def not_utf8(path: Path, more: str = "") -> InvalidError:
    return InvalidError(
        f"{path.name} is not UTF-8 text{more}",
        code="bad_encoding",
        hint=f"convert it, for example: iconv -f LATIN1 -t UTF-8 {path.name} -o utf8_{path.name}",
    )


def header(path: Path) -> list[str]:
    """The names of the columns. Raises `InvalidError`: `bad_encoding`, `bad_file`, `empty_file`, `duplicate_column`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            names = next(csv.reader(text), [])
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except csv.Error as error:
        raise InvalidError(f"the header of {path.name} cannot be read as csv: {error}", code="bad_file") from None
    if not names:
        raise InvalidError(f"{path.name} has no header; its first line names the columns", code="empty_file")
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise InvalidError(f"{path.name} has two columns named {twice[0]!r}", code="duplicate_column")
    return names


def csv_rows(path: Path, spec: SourceSpec, size: int) -> Iterator[tuple[Rows, int]]:
    """The rows after the header, `size` at a time, and the bytes of the file that they end at.

    Raises `ValueError` where a quote is open at the end of the file.
    """
    names = header(path)
    for number, (found, position) in enumerate(_records(path, size)):
        rest = _after_header(found) if number == 0 else found
        if len(rest.starts):
            yield _rows(rest, names, spec), position


def _after_header(found: _Found) -> _Found:
    return _Found(
        found.data, *(part[1:] for part in (found.starts, found.ends, found.fields, found.lines, found.kinds))
    )


def _records(path: Path, size: int) -> Iterator[tuple[_Found, int]]:
    """Chunks of records; the first has one more, the header."""
    with path.open("rb", buffering=0) as file:
        data = file.read(len(_BOM))
        position = len(data)
        data = b"" if data == _BOM else data
        lines, last = 1, False
        wanted, expected = size + 1, 0
        parts = [np.empty(wanted, np.int64) for _ in range(5)]
        total = end = passed = 0  # records found so far, where the next one begins, and the line ends before it
        while True:
            octets: Octets = np.frombuffer(data, np.uint8)
            count, end, more_lines = scan_records(octets, end, last, *(part[total:] for part in parts))
            unclosed = count < 0
            count = -count - 1 if unclosed else count
            parts[3][total : total + count] += passed
            total, passed = total + count, passed + more_lines
            if unclosed and not total:
                raise ValueError(f"line {lines + passed}: a quote is open to the end of the file")
            if total < wanted and not last:
                if len(data) > _LONGEST and total == 0:
                    raise ValueError(f"line {lines + passed}: a record is longer than {_LONGEST >> 20} MB")
                more = file.read(max(_READ, expected - len(data)))
                position += len(more)
                last = not more
                data += more
                continue
            if total:
                parts[3] += lines
                yield _Found(data, *(part[:total] for part in parts)), position - (len(data) - end)
            if last and end >= len(data):
                return
            data, lines, wanted, expected = data[end:], lines + passed, size, end + (1 << 16)
            parts = [np.empty(wanted, np.int64) for _ in range(5)]
            total = end = passed = 0


def _rows(found: _Found, names: list[str], spec: SourceSpec) -> Rows:
    wrong_width = found.fields != len(names)
    bad_quotes = found.kinds == _BAD_QUOTES
    careful = ((found.kinds == _WITH_LINE_ENDS) | (found.kinds == _WITH_CARE)) & ~wrong_width
    plain = ~(wrong_width | bad_quotes | careful)
    wanted = carried(spec, names)
    columns = _read(found, plain, names, wanted)
    by_hand = np.flatnonzero(careful).tolist()
    if by_hand:
        fields = list(csv.reader(io.StringIO("\n".join(map(found.text, by_hand)), newline="")))
        for name in wanted:
            at = names.index(name)
            columns[name] = columns[name].scatter(
                by_hand, pl.Series([row[at] or None for row in fields], dtype=pl.String)
            )
    faults = [Fault(row=place, rule=Rule.BAD_QUOTES) for place in np.flatnonzero(bad_quotes).tolist()]
    faults += [
        Fault(
            row=place,
            rule=Rule.FIELD_COUNT,
            value=f"{found.fields[place]} fields and the header has {len(names)}",
        )
        for place in np.flatnonzero(wrong_width & ~bad_quotes).tolist()
    ]
    return Rows(
        height=len(found.starts),
        columns=columns,
        originals=lambda asked: [_object(_fields(found.text(place)), names) for place in asked],
        faults=tuple(faults),
        ignored=tuple(name for name in names if name not in wanted),
        positions=_Lines(found.lines),
    )


class _Lines(Sequence[int]):
    """Line numbers, as Python's."""

    def __init__(self, lines: Places) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, place: Any) -> Any:
        return int(self._lines[place])


def _fields(text: str) -> list[str]:
    if text and _CAREFUL.isdisjoint(text):
        return text.split(",")
    return next(csv.reader(io.StringIO(text, newline="")), [])


def _object(row: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: cell or None for name, cell in zip(names, row, strict=False)}
    return fields | {"": list(row[len(names) :])} if len(row) > len(names) else fields


def _read(
    found: _Found, plain: np.ndarray[Any, np.dtype[np.bool_]], names: list[str], wanted: list[str]
) -> dict[str, pl.Series]:
    """The wanted columns as text, null where empty and in the rows that are not plain."""
    count = int(plain.sum())
    if count == 0:
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(plain))
        return {name: nothing.alias(name) for name in wanted}
    gaps = count < len(plain) or int(found.lines[-1] - found.lines[0]) != len(plain) - 1
    text = _joined(found, plain) if gaps else found.data[found.starts[0] : found.ends[-1]]
    frame = pl.read_csv(
        text,
        has_header=False,
        schema={str(i): pl.String for i in range(len(names))},
        columns=[names.index(name) for name in wanted],
    )
    if frame.height != count:
        raise ValueError(f"line {found.lines[0]}: {count} rows were found and {frame.height} read")
    columns = {}
    for name in wanted:
        series = frame[str(names.index(name))].alias(name)
        empty = series == ""
        columns[name] = series.set(empty, None) if empty.any() else series
    if count == len(plain):
        return columns
    places = pl.Series(np.where(plain, np.cumsum(plain) - 1, -1)).cast(pl.Int64)
    places = places.set(places < 0, None).cast(pl.UInt32)
    return {name: series.gather(places) for name, series in columns.items()}


def _joined(found: _Found, plain: np.ndarray[Any, np.dtype[np.bool_]]) -> bytes:
    """The plain records alone, a line each: runs of neighbours are copied together."""
    places = np.flatnonzero(plain)
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(found.lines[places]) != 1)) + 1
    view = memoryview(found.data)
    return b"\n".join(
        view[found.starts[places[a]] : found.ends[places[b - 1]]]
        for a, b in zip([0, *breaks.tolist()], [*breaks.tolist(), len(places)], strict=True)
    )
