"""Where a pull stands: the newest cursor value, and which rows near it were taken already.

A row is known by a digest of its content, 16 bytes. Digests are kept for rows whose cursor is the newest value or lies
within the origin's lag behind it, which is what the next pull reads again: so a tie is never skipped, a late commit is
found, a row that did not change is taken once, and one that did is taken again, as a correction.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import msgspec

from flyball.define.spec import OriginSpec
from flyball.ingest.ports import CursorValue, PulledRow
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import DAY

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}")


@dataclass(kw_only=True, slots=True)
class Position:
    """Mutable while a pull runs; what is stored is `dumps()`, in the transaction of the rows that it is about.

    Args:
        cursor: the column that it counts in.
        history: the first pull of a source with a history has not ended yet.
        newest: the highest cursor value taken; None: nothing was taken.
        seen: cursor value → digests of the rows taken with it, ascending, from the newest less the lag on.
    """

    cursor: str
    history: bool
    newest: CursorValue | None = None
    seen: dict[CursorValue, set[str]] = field(default_factory=dict)

    def fresh(self, rows: list[PulledRow], origin: OriginSpec) -> list[dict[str, Any]]:
        """The values of the rows that were not taken yet, which now count as taken."""
        found = []
        known = set().union(*self.seen.values())
        for row in rows:
            mark = _digest(row.values)
            if mark not in known:
                known.add(mark)
                found.append(row.values)
            self.seen.setdefault(cast(CursorValue, row.cursor), set()).add(mark)
        if rows:
            self._move(cast(CursorValue, rows[-1].cursor), origin)
        return found

    def _move(self, last: CursorValue, origin: OriginSpec) -> None:
        """Go on to the last row's cursor value, and forget what no later pull reads again."""
        ordered = not isinstance(last, str) or _ISO.match(last)
        try:
            if self.newest is None or not ordered:  # texts in the order of the database, which is not ours
                self.newest = last
            else:
                self.newest = max(self.newest, last)
            low = self.floor(origin)
            self.seen = {v: marks for v, marks in self.seen.items() if (v >= low if ordered else v == low)}  # type: ignore[operator]
        except TypeError:
            raise InvalidError(
                f"the cursor {self.cursor!r} is of another type than before: {last!r:.40} after {self.newest!r:.40}",
                code="cursor_type_changed",
                hint="give the query's cursor the type it had, or another name, under which all rows are pulled anew",
            ) from None

    def floor(self, origin: OriginSpec) -> CursorValue | None:
        """Where the next pull begins to read; None: at the first row."""
        if self.newest is None or not origin.lag:
            return self.newest
        return _back(self.newest, origin.lag)

    def dumps(self) -> str:
        """The position as JSON text."""
        seen = [[_encode(value), sorted(marks)] for value, marks in self.seen.items()]
        newest = None if self.newest is None else _encode(self.newest)
        return json.dumps({"cursor": self.cursor, "history": self.history, "newest": newest, "seen": seen})


def position_of(text: str, origin: OriginSpec, *, history: bool) -> Position:
    """The stored position; the beginning, where none is stored or it counts in another column.

    Args:
        history: whether the source declares when its history was known.
    """
    data = json.loads(text) if text else {}
    if data.get("cursor") != origin.cursor:
        return Position(cursor=origin.cursor, history=history)
    return Position(
        cursor=origin.cursor,
        history=data["history"] and history,
        newest=None if data["newest"] is None else _decode(data["newest"]),
        seen={_decode(value): set(marks) for value, marks in data["seen"]},
    )


def _digest(values: dict[str, Any]) -> str:
    data = msgspec.json.encode([[name, values[name]] for name in sorted(values)], enc_hook=str)
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _encode(value: CursorValue) -> list[str]:
    if isinstance(value, datetime):
        return ["time", value.isoformat()]
    if isinstance(value, date):
        return ["date", value.isoformat()]
    kind = {int: "integer", float: "float", Decimal: "decimal"}.get(type(value), "text")
    return [kind, repr(value) if isinstance(value, float) else str(value)]


def _decode(data: list[str]) -> CursorValue:
    kind, text = data
    if kind == "time":
        return datetime.fromisoformat(text)
    if kind == "date":
        return date.fromisoformat(text)
    if kind == "text":
        return text
    return int(text) if kind == "integer" else float(text) if kind == "float" else Decimal(text)


def _back(value: CursorValue, lag: int) -> CursorValue:
    """A time earlier by the lag; times that are text keep their spelling, to the second below."""
    if isinstance(value, datetime):
        return value - timedelta(microseconds=lag)
    if isinstance(value, date):
        return value - timedelta(days=-(-lag // DAY))
    if isinstance(value, str) and _ISO.match(value):
        earlier = datetime.fromisoformat(value[:19]) - timedelta(microseconds=lag)
        return earlier.isoformat(sep=value[10], timespec="seconds")
    raise InvalidError(
        f"the cursor is {value!r:.40}, which is no time, and a lag is a length of time",
        code="lag_without_time",
        hint='take lag= out of fb.Sql, or pull by a column that holds a time, such as cursor="updated_at"',
    )
