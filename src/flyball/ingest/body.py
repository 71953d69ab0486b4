"""The body of a push, kept as bytes until the writer reads it: what waits is as large as what was sent.

JSON is read into one structure per source, made of its declaration, in which every field takes any scalar: so a value
of a wrong type still reaches the contract as it was sent. A body that does not fit (an unknown column, a list where a
scalar belongs) is read again as plain objects, and judged from those.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import polars as pl
from msgspec import UNSET, UnsetType

from flyball.define.spec import SourceSpec
from flyball.ingest.contract import unit_of
from flyball.ingest.parsing import Mask
from flyball.ingest.plain import plain
from flyball.ingest.rejection import readable
from flyball.ingest.rows import Rows, column_of, kinds_of
from flyball.kernel.errors import InvalidError

WRAPPERS = ("events", "rows")  # an object with one of these alone, an array, is that array
_SCALAR = str | int | float | bool | None | UnsetType


@dataclass(frozen=True, slots=True)
class JsonBody:
    """An array of objects, one object, or `{"events": […]}`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ArrowBody:
    """An Arrow IPC stream."""

    data: bytes

    def frame(self) -> pl.DataFrame:
        """The table. Raises `InvalidError` (`bad_body`)."""
        try:
            return pl.read_ipc_stream(io.BytesIO(self.data))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise InvalidError(f"the body is not an Arrow IPC stream: {error}", code="bad_body") from None


def json_value(data: bytes) -> Any:
    """The value of a JSON text. Raises `InvalidError` (`bad_body`)."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(f"the body is not JSON: {error}; nothing was stored", code="bad_body") from None


def json_rows(data: bytes, *, wrappers: Sequence[str] = WRAPPERS) -> list[Any]:
    """The rows of a JSON text as plain objects. Raises `InvalidError` (`bad_body`)."""
    value = json_value(data)
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get(next(iter(value))), list):
        name = next(iter(value))
        value = value[name] if name in wrappers else value
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise InvalidError(
            f"the body is {type(value).__name__}; send an object, an array of objects, or "
            f'{{"{wrappers[0]}": [objects]}}',
            code="bad_body",
        )
    return value


class RowReader:
    """Reads the JSON bodies of one source."""

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec
        self._names = readable(spec)
        self._kinds = kinds_of(spec)
        self._declared = {column.name: column for column in spec.columns}
        fields = [f"c{number}" for number in range(len(self._names))]
        self._getters = [attrgetter(field) for field in fields]
        row: Any = msgspec.defstruct(
            "Row",
            [(field, _SCALAR, UNSET) for field in fields],
            rename=dict(zip(fields, self._names, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
        body: Any = msgspec.defstruct(
            "Body", [(name, list[row] | UnsetType, UNSET) for name in WRAPPERS], forbid_unknown_fields=True
        )
        self._array: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[row])
        self._wrapped: msgspec.json.Decoder[Any] = msgspec.json.Decoder(body)

    def read(self, body: JsonBody) -> list[Any] | None:
        """The typed rows of a body; None: it has another shape, or is not JSON, and `json_rows` says what it is."""
        try:
            if body.data[:64].lstrip()[:1] == b"[":
                return self._array.decode(body.data)
            wrapped = self._wrapped.decode(body.data)
        except (msgspec.DecodeError, RecursionError):
            return None
        given = [rows for name in WRAPPERS if (rows := getattr(wrapped, name)) is not UNSET]
        return given[0] if len(given) == 1 else None

    def columns(self, rows: Sequence[Any], bodies: Sequence[tuple[int, JsonBody]]) -> Rows:
        """Typed rows as columns. `bodies`: from which row on they came of which body, ascending."""
        columns: dict[str, pl.Series] = {}
        good: set[str] = set()
        unfit: dict[str, Mask] = {}
        absent: dict[str, Mask] = {}
        for name, get in zip(self._names, self._getters, strict=True):
            values: list[Any] = list(map(get, rows))
            kinds = set(map(type, values))
            if UnsetType in kinds:
                absent[name] = np.fromiter((v is UNSET for v in values), dtype=np.bool_, count=len(values))
                values = [None if value is UNSET else value for value in values]
                kinds = (kinds - {UnsetType}) | {type(None)}
            found = plain(name, values, kinds, self._declared.get(name), unit_of(self._spec, name))
            if found is not None:
                columns[name] = found
                good.add(name)
                continue
            columns[name], odd = column_of(name, values, kind=self._kinds.get(name, ""))
            if odd is not None:
                unfit[name] = odd
        return Rows(
            height=len(rows),
            columns=columns,
            originals=_originals(bodies),
            unfit=unfit,
            absent=absent,
            plain=frozenset(good),
        )


def _originals(bodies: Sequence[tuple[int, JsonBody]]) -> Callable[[Sequence[int]], list[dict[str, Any]]]:
    """Rows as they were sent, read once more from the body that they came in."""
    starts = [start for start, _ in bodies]

    def originals(places: Sequence[int]) -> list[dict[str, Any]]:
        read: dict[int, list[Any]] = {}
        found: list[dict[str, Any]] = []
        for place in places:
            which = bisect_right(starts, place) - 1
            if which not in read:
                read[which] = json_rows(bodies[which][1].data)
            found.append(read[which][place - starts[which]])
        return found

    return originals
