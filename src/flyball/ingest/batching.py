"""Pushes of one source that wait together are judged as one batch, in their order, as far as they came in one form.

A batch costs as much for a hundred rows as for some thousands, so this is where a busy source gets its speed.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.body import ArrowBody, JsonBody, RowReader, json_rows
from flyball.ingest.ports import NewBatch
from flyball.ingest.receipts import Push, Receipt, fingerprint
from flyball.ingest.rows import Rows, from_dicts, from_frame, require_columns
from flyball.kernel.errors import FlyballError, InvalidError


@dataclass(frozen=True, slots=True)
class Part:
    """A push that is not answered yet: its place among the pushes, and its rows' place in the batch."""

    place: int
    push: Push
    print: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Given:
    """The rows of one push as they were read: typed (with their body), plain objects, or a table."""

    rows: list[Any] | pl.DataFrame
    body: JsonBody | None = None

    @property
    def form(self) -> object:
        """What must be equal for two to be one batch."""
        return self.rows.schema if isinstance(self.rows, pl.DataFrame) else self.body is None


def read_push(push: Push, spec: SourceSpec, reader: RowReader) -> Given:
    """The rows of a push. Raises `InvalidError` (`bad_body`, `bad_rows`, `missing_column`)."""
    given = push.rows
    if isinstance(given, JsonBody):
        typed = reader.read(given)
        return Given(json_rows(given.data)) if typed is None else Given(typed, given)
    if isinstance(given, list | tuple | dict):
        return Given([given] if isinstance(given, dict) else list(given))
    table = given.frame() if isinstance(given, ArrowBody) else _table(push)
    require_columns(table.columns, spec)
    return Given(table)


class Batch:
    """Pushes of one source that are judged and stored together."""

    def __init__(self, first: Given) -> None:
        self.parts: list[Part] = []
        self._form = first.form
        self._given: list[Given] = []
        self._height = 0

    def takes(self, given: Given) -> bool:
        return given.form == self._form

    def add(self, place: int, push: Push, print_: str, given: Given) -> None:
        end = self._height + len(given.rows)
        self.parts.append(Part(place, push, print_, self._height, end))
        self._given.append(given)
        self._height = end

    def without(self, places: Container[int]) -> Batch:
        """The same pushes but those at `places` among all."""
        left = Batch(self._given[0])
        for part, given in zip(self.parts, self._given, strict=True):
            if part.place not in places:
                left.add(part.place, part.push, part.print, given)
        return left

    def rows(self, spec: SourceSpec, reader: RowReader) -> Rows:
        tables = [given.rows for given in self._given if isinstance(given.rows, pl.DataFrame)]
        if tables:
            return from_frame(pl.concat(tables) if len(tables) > 1 else tables[0], spec)
        rows = _joined([given.rows for given in self._given])
        bodies = [(part.start, g.body) for part, g in zip(self.parts, self._given, strict=True) if g.body is not None]
        return reader.columns(rows, bodies) if bodies else from_dicts(rows, spec)


def untaken(
    pushes: Sequence[Push],
    left: Sequence[int],
    batches: Sequence[tuple[NewBatch, Sequence[Part]]],
    answers: dict[int, Receipt | FlyballError],
    prints: dict[int, str],
) -> list[int]:
    """Of the pushes at `left`, those whose idempotency key no batch takes, since the pushes before them with that key
    were refused; a refused push takes no key. One with the rows of a refused one is answered as that one is.
    `prints` remembers fingerprints by place."""
    taken = {part.push.key for _, parts in batches for part in parts}
    again = [place for place in left if pushes[place].idempotency_key and pushes[place].key not in taken]
    if all(place in answers for place in again):
        return []
    errors: dict[tuple[str, str, bool, str], FlyballError] = {}
    for place in again:
        push = pushes[place]
        if place not in prints:
            prints[place] = push.fingerprint or fingerprint(push.rows)
        same = (*push.key, push.live, prints[place])
        answer = answers.get(place)
        if isinstance(answer, FlyballError):
            errors.setdefault(same, answer)
        elif answer is None and same in errors:
            answers[place] = errors[same]
    return [place for place in again if place not in answers]


def _joined(parts: Sequence[Any]) -> list[Any]:
    return parts[0] if len(parts) == 1 else [row for part in parts for row in part]


def _table(push: Push) -> pl.DataFrame:
    if isinstance(push.rows, pl.DataFrame):
        return push.rows
    if hasattr(push.rows, "__arrow_c_stream__"):
        return pl.DataFrame(push.rows)
    raise InvalidError(
        f"rows for source {push.source} came as {type(push.rows).__name__}; give a list of dicts, a Polars frame or an "
        "Arrow table",
        code="bad_rows",
    )
