"""A first contract from data: the columns of a file, as the class that a person would begin with.

What is written accepts the very rows that it was made from. It is a guess to be read: types and nulls are what was
seen, bounds beyond `ge=0` are only told in comments. The file is read whole, its columns as they came.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from flyball.define.spec import ColumnSpec, SourceSpec
from flyball.ingest.delimited import header
from flyball.ingest.files import open_file, require_file
from flyball.ingest.parsing import parse, times
from flyball.kernel.errors import InvalidError

_CHUNK = 250_000
_MOST_CATEGORIES = 24
_SCALES = range(1, 10)
_EPOCHS = {"s": 1, "ms": 1_000, "us": 1_000_000}
_FROM, _TO = 631_152_000, 4_102_444_800  # seconds: the years 1990 to 2100
_TIMELY = re.compile(r"time|date|stamp|_at$|^at$|when|^ts$|_ts$", re.IGNORECASE)
_RESERVED = {"any"}
_PADDED = r"^\s*[+-]?0[0-9]+\s*$"  # as a number it would lose its zeros: 007 and 7 are two codes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Guess:
    """`code`: the declaration. `unit`: how it is read as a time; empty: it is none. `seen`: what a comment says."""

    name: str
    code: str
    seen: str
    unique: bool
    nullable: bool
    unit: str = ""
    type: str = ""


def infer(path: Path, *, name: str, format: str = "", event_time: str = "") -> str:
    """The Python module of a source called `name` for the rows of a file.

    Raises `InvalidError`: `no_event_time` where no column is a time, `bad_file` where it cannot be read, and what
    `open_file` raises.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidError(f"{name!r} cannot be the name of a class; give one with --name Trips", code="bad_name")
    try:
        columns, height = _columns(path, format)
    except OSError as error:
        raise InvalidError(f"{path.name} cannot be read: {error.strerror or error}", code="bad_file") from None
    guesses = [_guess(series) for series in columns]
    time = _event_time(guesses, event_time)
    key = _key([guess for guess in guesses if guess is not time])
    return _module(path, name, height, guesses, time, key)


def _columns(path: Path, format: str) -> tuple[list[pl.Series], int]:
    """All columns of the file as they are read for a contract."""
    if path.is_dir():
        raise InvalidError(f"{path.name} is a directory; name one of its files", code="bad_file")
    require_file(path)
    names = _names(path, format)
    spec = SourceSpec(
        name="inferred",
        columns=tuple(ColumnSpec(name=name, type="string", nullable=True) for name in names),
        event_time=names[0],
    )
    file = open_file(path, format=format)
    file.look_through(spec)
    parts = [chunk.rows for chunk in file.chunks(spec, size=_CHUNK)]
    height = sum(rows.height for rows in parts)
    if height == 0:
        raise InvalidError(f"{path.name} has no rows; a contract cannot be inferred from none", code="empty_file")
    found = []
    for column in names:
        series = [rows.columns[column] for rows in parts]
        if len({s.dtype for s in series}) > 1:
            series = [s.cast(pl.String) for s in series]
        found.append(pl.concat(series).alias(column))
    return found, height


def _names(path: Path, format: str) -> list[str]:
    """The names of the columns; of a format that is not read, one that stands for them until `open_file` says so."""
    suffix = format or path.suffix.lower().lstrip(".")
    if suffix in ("parquet", "pq"):
        try:
            return list(pl.read_parquet_schema(path))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InvalidError(f"{path.name} cannot be read as parquet: {error}", code="bad_file") from None
    if suffix in ("jsonl", "ndjson"):
        names: dict[str, None] = {}
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = msgspec.json.decode(line) if line.strip() else {}
                except (msgspec.DecodeError, UnicodeDecodeError):
                    row = None
                if not isinstance(row, dict):
                    raise InvalidError(f"line {number} of {path.name} is not a JSON object", code="bad_file")
                names |= dict.fromkeys(row)
        if not names:
            raise InvalidError(f"{path.name} has no field; each line is one JSON object", code="empty_file")
        return list(names)
    return header(path) if suffix == "csv" else [""]


def _guess(series: pl.Series) -> _Guess:
    if series.dtype.is_float():
        series = series.fill_nan(None)
    present = series.drop_nulls()
    nullable = len(present) < len(series)
    options = ["nullable=True"] if nullable else []
    call, type_, values = _type(present)
    seen = ""
    if values is not None and len(values):
        low, high = values.min(), values.max()
        if type_ in ("integer", "decimal", "float") and low >= 0:  # type: ignore[operator]
            options.append("ge=0")
        scale = int(call[len("fb.Decimal(") : -1]) if type_ == "decimal" else 0
        seen = f"{_told(low, scale, type_)} to {_told(high, scale, type_)}"
    unit = _unit(series.name, type_, values)
    code = f"{call[:-1]}{', ' if options and call[-2] != '(' else ''}{', '.join(options)})"
    unique = len(present) > 0 and present.n_unique() == len(series)
    return _Guess(name=series.name, code=code, seen=seen, unique=unique, nullable=nullable, unit=unit, type=type_)


def _type(present: pl.Series) -> tuple[str, str, pl.Series | None]:
    """The declaration without options, its type, and the values as the contract reads them."""
    if present.is_empty() or present.dtype.is_nested() or present.dtype == pl.Null:
        return "fb.String()", "string", None
    text = present.dtype in (pl.String, pl.Categorical, pl.Enum)
    padded = text and present.cast(pl.String).str.contains(_PADDED).any()
    if not padded and (number := _number(present, text)):
        return number
    if text:
        distinct = present.cast(pl.String).unique().sort()
        if len(distinct) <= _MOST_CATEGORIES and 10 * len(distinct) <= len(present):
            return f"fb.Category({', '.join(map(_quoted, distinct))})", "category", None
    return "fb.String()", "string", None


def _number(present: pl.Series, text: bool) -> tuple[str, str, pl.Series | None] | None:
    """What `_type` gives of a boolean, a number or a time; None: it is none."""
    words = present.dtype == pl.Boolean or (text and not present.cast(pl.String).is_in(["0", "1"]).any())
    if words and not _read(present, "boolean").faults:
        return "fb.Boolean()", "boolean", None
    if not present.dtype.is_float() and not (parsed := _read(present, "integer")).faults:
        return "fb.Integer()", "integer", parsed.values
    for scale in _SCALES:
        parsed = _read(present, "decimal", scale)
        if not parsed.faults:
            return f"fb.Decimal({scale})", "decimal", parsed.values
    for kind, call in (("float", "fb.Float()"), ("timestamp", "fb.Timestamp()")):
        parsed = _read(present, kind)
        if not parsed.faults:
            return call, kind, parsed.values
    return None


def _read(series: pl.Series, kind: Any, scale: int = 0) -> Any:
    return parse(series, ColumnSpec(name=series.name, type=kind, scale=scale))


def _unit(name: str, type_: str, values: pl.Series | None) -> str:
    """How a column is read as a time: `declared`, or the unit of an epoch; empty: it is none."""
    if type_ == "timestamp":
        return "declared"
    if type_ != "integer" or values is None or not _TIMELY.search(name):
        return ""
    for unit, per_second in _EPOCHS.items():
        if values.is_between(_FROM * per_second, _TO * per_second).all() and not times(values, unit).faults:
            return unit
    return ""


def _event_time(guesses: Sequence[_Guess], asked: str) -> _Guess:
    found = [guess for guess in guesses if guess.unit and not guess.nullable and _declarable(guess.name)]
    if asked:
        found = [guess for guess in found if guess.name == asked]
    if not found:
        raise InvalidError(
            f"{repr(asked) if asked else 'no column'} is a time in every row, so no event time can be told",
            code="no_event_time",
            hint="it needs an ISO 8601 time, or seconds, ms or µs since 1970 in a column named so, such as `at`, "
            "without a null",
        )
    return found[0]


def _key(guesses: Sequence[_Guess]) -> str:
    """The likeliest column that identifies a row; empty: none does."""
    fit = [
        g for g in guesses if g.unique and not g.nullable and g.type in ("string", "integer") and _declarable(g.name)
    ]
    named = [guess for guess in fit if re.search(r"(^|_)(id|key|uuid|hash)$", guess.name, re.IGNORECASE)]
    likely = named or [guess for guess in fit if guess.type == "string"]
    return likely[0].name if likely else ""


def _module(path: Path, name: str, height: int, guesses: Sequence[_Guess], time: _Guess, key: str) -> str:
    said = _quoted(time.name)
    when = said if time.unit == "declared" else f"fb.epoch({said}, {_quoted(time.unit)})"
    others = [g.name for g in guesses if g.unit and g is not time and not g.nullable]
    lines = [
        f'"""A first contract for {_plain(path.name)}, from its {height:,} rows: read it, and say what you know."""',
        "",
        "import flyball as fb",
        "",
        "",
        f"class {name}(",
        "    fb.Source,",
        f"    event_time={when}," + (f"  # or {', '.join(map(_plain, others))}" if others else ""),
        f"    key={_quoted(key)},  # unique in the file" if key else "    key=fb.row_key(),  # no column is unique",
        '    known=fb.delay("1h"),  # a guess: how long after its event time was a row known?',
        "):",
    ]
    body = []
    for guess in guesses:
        if guess is time and time.unit != "declared":
            continue
        if not _declarable(guess.name):
            body.append(f"    # {_plain(guess.name)} cannot be the name of an attribute, and is left out")
            continue
        body.append(f"    {guess.name} = {guess.code}" + (f"  # {guess.seen}" if guess.seen else ""))
    return "\n".join([*lines, *(body or ["    pass"])]) + "\n"


def _declarable(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_") and name not in _RESERVED


def _told(value: Any, scale: int, type_: str) -> str:
    if type_ == "decimal":
        return f"{value / 10**scale:.{scale}f}"
    if type_ == "timestamp":
        return str(pl.Series([value]).cast(pl.Datetime("us"))[0])
    return str(value)


def _quoted(text: str) -> str:
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"' if '"' not in text else repr(text)


def _plain(text: str) -> str:
    text = text.encode(errors="replace").decode()  # the name of a file may be no text
    return " ".join(text.replace('"', "'").replace("\\", "/").split())
