"""What was sent, as columns: a list of JSON objects, a Polars or Arrow table, or fields of text → `Rows`.

Nothing is judged here but the shape; a value of a kind that no column type reads (a list, an object, a mix) is marked
`unfit` and judged by the contract with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.parsing import Mask
from flyball.ingest.rejection import CORRECTIONS, DELETED, Rule, carried, readable, suggestion
from flyball.kernel.errors import InvalidError

_PLAIN: dict[type, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    float: pl.Float64(),
    bool: pl.Boolean(),
    datetime: pl.Datetime("us"),
}
_TEXTUAL = ("string", "category")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A row that is wrong by its shape. `column` is empty where no column is to blame."""

    row: int
    rule: Rule
    column: str = ""
    value: Any = None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of a JSON Lines file that is not JSON, among the objects of the others."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Columns of one push or chunk, by the source's names, still as they came.

    Args:
        originals: gives the rows at the asked places, as dicts, for the quarantine.
        absent: rows that lack a column altogether, by column.
        ignored: columns of a file that the source does not declare.
        positions: where each row stood, counted from 1; None: 1, 2, 3, …
        plain: the columns that hold physical values already, all of them good.
    """

    height: int
    columns: dict[str, pl.Series]
    originals: Callable[[Sequence[int]], list[dict[str, Any]]]
    unfit: dict[str, Mask] = field(default_factory=dict)
    absent: dict[str, Mask] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    ignored: tuple[str, ...] = ()
    positions: Sequence[int] | None = None
    plain: frozenset[str] = frozenset()


def from_dicts(
    rows: Sequence[Any], spec: SourceSpec, *, strict: bool = True, positions: Sequence[int] | None = None
) -> Rows:
    """Rows from JSON objects. `strict`: a column the source does not know quarantines its row, else it is ignored."""
    names = readable(spec)
    known = frozenset((*names, DELETED) if spec.corrections else names)
    faults: list[Fault] = []
    ignored: dict[str, None] = {}
    for place, row in enumerate(rows):
        if isinstance(row, BadLine):
            faults.append(Fault(row=place, rule=Rule.BAD_JSON))
        elif not isinstance(row, dict):
            faults.append(Fault(row=place, rule=Rule.NOT_AN_OBJECT, value=type(row).__name__))
        elif not known.issuperset(row):
            unknown = next(name for name in row if name not in known)
            if DELETED in row and DELETED not in known:  # never ignored: the row says that an event is none
                faults.append(Fault(row=place, rule=Rule.NO_CORRECTIONS, column=DELETED, value=row[DELETED]))
            elif strict:
                faults.append(Fault(row=place, rule=Rule.UNKNOWN_COLUMN, column=str(unknown), value=row[unknown]))
            else:
                ignored |= dict.fromkeys(str(name) for name in row if name not in known)
    objects = [row if isinstance(row, dict) else {} for row in rows] if faults else rows
    if spec.corrections and any(DELETED in row for row in objects):
        names.append(DELETED)
    kinds = kinds_of(spec)
    columns: dict[str, pl.Series] = {}
    unfit: dict[str, Mask] = {}
    absent: dict[str, Mask] = {}
    for name in names:
        series, odd = column_of(name, [row.get(name) for row in objects], kind=kinds.get(name, ""))
        columns[name] = series
        if odd is not None:
            unfit[name] = odd
        if series.null_count():
            absent[name] = np.fromiter((name not in row for row in objects), dtype=np.bool_, count=len(rows))
    return Rows(
        height=len(rows),
        columns=columns,
        originals=lambda places: [_object(rows[place]) for place in places],
        unfit=unfit,
        absent=absent,
        faults=tuple(faults),
        ignored=tuple(ignored),
        positions=positions,
    )


def _object(row: Any) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    return {"": row.text if isinstance(row, BadLine) else row}


def kinds_of(spec: SourceSpec) -> dict[str, str]:
    """The type of each column that a row may carry."""
    kinds: dict[str, str] = {column.name: column.type for column in spec.columns}
    return kinds | {DELETED: "boolean"}


def column_of(name: str, values: list[Any], *, kind: str) -> tuple[pl.Series, Mask | None]:
    """JSON values as a column, by their texts where they are of several kinds; and which of them no column reads.

    `kind` is the type of the declared column; empty: it is none.
    """
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) <= 1:
        dtype = _PLAIN.get(next(iter(kinds))) if kinds else pl.Null()
        if dtype is not None:
            try:
                return pl.Series(name, values, dtype=dtype, strict=True), None
            except (OverflowError, TypeError, pl.exceptions.PolarsError):
                pass  # an integer beyond 64 bits: by its text, below
    odd = np.zeros(len(values), dtype=np.bool_)
    texts: list[str | None] = []
    for place, value in enumerate(values):
        text = None if value is None else _as_text(value, kind)
        odd[place] = value is not None and text is None
        texts.append(text)
    return pl.Series(name, texts, dtype=pl.String), odd if odd.any() else None


def _as_text(value: Any, kind: str) -> str | None:
    """The text that the contract reads instead of a value of a column of type `kind`, where values are of several."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value) if kind == "boolean" else None
    if kind in _TEXTUAL or (kind == "boolean" and not isinstance(value, int)):
        return None
    if kind == "timestamp" and isinstance(value, int | float) and value == value // 1 and abs(value) < 10**30:
        return format(int(value), "013d")  # so many digits are microseconds, as the number alone is
    if isinstance(value, float):
        return repr(value) if value == value else None
    if isinstance(value, int):
        return str(value) if value.bit_length() < 2_000 else "9" * 600
    if isinstance(value, datetime | date):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) and abs(value.adjusted()) < 600 else None


def from_frame(
    frame: pl.DataFrame, spec: SourceSpec, *, positions: Sequence[int] | None = None, ignored: Sequence[str] = ()
) -> Rows:
    """Rows from a table. A declared column that it lacks refuses the whole table; others are ignored and named."""
    require_columns(frame.columns, spec)
    names = carried(spec, frame.columns)
    return Rows(
        height=frame.height,
        columns={name: frame[name] for name in names},
        originals=lambda places: frame[list(places)].to_dicts(),
        ignored=(*ignored, *(name for name in frame.columns if name not in names)),
        positions=positions,
    )


def require_columns(present: Sequence[str], spec: SourceSpec) -> None:
    """Refuse a table or file whose columns do not cover the source's, or that marks deletions where none are taken."""
    if DELETED in present and not spec.corrections:
        raise InvalidError(
            f"the rows have a column {DELETED!r} and source {spec.name} takes no deletions; nothing was stored",
            code="no_corrections",
            hint=f"{CORRECTIONS.format(source=spec.name)}, or take the column out",
        )
    missing = [name for name in readable(spec) if name not in present]
    if not missing:
        return
    name = missing[0]
    others = [p for p in present if p not in readable(spec)]
    more = f" (and {len(missing) - 1} more: {', '.join(missing[1:])})" if missing[1:] else ""
    came = ", ".join(map(str, present)) or "none"
    raise InvalidError(
        f"column {name!r} of source {spec.name} is missing{more}{suggestion(name, others)}; nothing was stored",
        code="missing_column",
        hint=f"the columns that came are: {came}; rename one, or take the column out of the source and flyball apply",
        details={"source": spec.name, "missing": missing, "columns": list(map(str, present))},
    )
