"""The fields of predictions that were logged, and the rows that arrived for them later: what training will read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from flyball.define.spec import ColumnSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import Flags, Words
from flyball.features.frames import once
from flyball.features.ports import EventSlices
from flyball.features.request import physical
from flyball.features.vector import Vector, vector_of
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import DAY

SEALED = "pii:"
NEAR = DAY  # around a prediction, where its row is looked for if nothing but pii identifies it
_TEXT = ("string", "category")


class Logged(Protocol):
    @property
    def at(self) -> int: ...
    @property
    def inputs(self) -> Mapping[str, Any]: ...
    @property
    def key(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Request fields of `n` rows as physical vectors. `known` is False where only a digest is there; `differs`, where
    the row that arrived says otherwise."""

    vectors: dict[str, Vector]
    known: dict[str, Flags]
    differs: Flags


def logged(
    records: Sequence[Logged],
    columns: Mapping[str, ColumnSpec],
    roles: Sequence[tuple[tuple[str, ...], ViewSpec]],
    history: EventSlices,
    times: Words,
    seal: Callable[[Any], Any],
    sources: Mapping[str, SourceSpec],
) -> Fields:
    """The fields as they were logged. A digest becomes the value of a view's entity that has it; text that no entity
    has stays a digest, which equals no value, as the value did."""
    n = len(records)
    vectors: dict[str, Vector] = {}
    known: dict[str, Flags] = {}
    for name, column in columns.items():
        values = [record.inputs.get(name) for record in records]
        sealed = {v for v in values if isinstance(v, str) and v.startswith(SEALED)} if column.pii else set()
        opened: dict[Any, Any] = {}
        if sealed:
            opened = _opened(name, column, sealed, roles, history, times, seal, sources)
        found, there = [], np.ones(n, np.bool_)
        for i, value in enumerate(values):
            if value in sealed:
                there[i] = value in opened or column.type in _TEXT
                found.append(opened.get(value, value if column.type in _TEXT else None))
            else:
                found.append(_physical(column, value))
        vectors[name], known[name] = vector_of(found, column.type), there
    return Fields(vectors=vectors, known=known, differs=np.zeros(n, np.bool_))


def _opened(
    name: str,
    column: ColumnSpec,
    sealed: set[Any],
    roles: Sequence[tuple[tuple[str, ...], ViewSpec]],
    history: EventSlices,
    times: Words,
    seal: Callable[[Any], Any],
    sources: Mapping[str, SourceSpec],
) -> dict[Any, Any]:
    """Digest → physical value, from the entities that views have events of."""
    opened: dict[Any, Any] = {}
    for by, view in roles:
        source = sources.get(view.source)
        if name not in by or source is None:
            continue
        target = view.entity[by.index(name)]
        if not alike(source.column(target), column):
            continue
        longest = max((a.window + a.hop for a in view.aggregates), default=None)
        since = None if longest is None else int(times.min()) - longest
        frame = history.slice(source, [target], since=since, before=int(times.max()), where={})
        for value in frame[target].unique().drop_nulls().to_list():
            for spelled in spellings(value, column):
                digest = seal(spelled)
                if digest in sealed:
                    opened[digest] = value
    return opened


def alike(a: ColumnSpec, b: ColumnSpec) -> bool:
    """Whether equal values of two columns are kept alike."""
    return (a.type in _TEXT and b.type in _TEXT) or (a.type, a.scale) == (b.type, b.scale)


def spellings(value: Any, column: ColumnSpec) -> list[Any]:
    """A physical value as clients may have sent it: a digest is of what was sent."""
    if column.type == "integer":
        return [value, str(value)]
    if column.type == "decimal":
        exact = value / 10**column.scale
        return [f"{exact:.{column.scale}f}", exact, *([int(exact)] if exact == int(exact) else [])]
    return [value]


def arrived(
    records: Sequence[Logged],
    columns: Mapping[str, ColumnSpec],
    source: SourceSpec | None,
    history: EventSlices,
    seal: Callable[[Any], Any],
    given: Fields,
) -> Fields:
    """The fields with those of the rows that arrived under the predictions' keys in their place."""
    wanted = [name for name in columns if source is not None and any(c.name == name for c in source.columns)]
    if source is None or not source.key or not wanted or not any(record.key for record in records):
        return given
    rows = _rows(records, source, wanted, history, seal)
    values = {name: _list(given.vectors[name]) for name in wanted}
    known = {name: flags.copy() for name, flags in given.known.items()}
    differs = np.zeros(len(records), np.bool_)
    for i, record in enumerate(records):
        row = rows.get(_key(source, record.key))
        if row is None:
            continue
        for name in wanted:
            column, before = columns[name], record.inputs.get(name)
            if isinstance(before, str) and before.startswith(SEALED) and column.pii:
                same = row[name] is not None and before in [seal(s) for s in spellings(row[name], column)]
            else:
                same = values[name][i] == row[name]
            differs[i] |= not same
            values[name][i], known[name][i] = row[name], True
    replaced = {name: vector_of(values[name], columns[name].type) for name in wanted}
    return Fields(vectors=given.vectors | replaced, known=known, differs=differs)


def _rows(
    records: Sequence[Logged],
    source: SourceSpec,
    wanted: list[str],
    history: EventSlices,
    seal: Callable[[Any], Any],
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The first row of each key that a prediction has, by the key as records spell it."""
    keys = [record.key for record in records if record.key]
    where: dict[str, list[Any]] = {}
    for name in source.key:
        column = source.column(name)
        if not column.pii:
            values = {_physical(column, key.get(name)) for key in keys} - {None}
            where[name] = sorted(values)
    near: dict[str, int | None] = {"since": None, "before": None}
    if not where:
        times = [record.at for record in records]
        near = {"since": min(times) - NEAR, "before": max(times) + NEAR}
    names = list(dict.fromkeys([*source.key, *wanted]))
    frame = once(history.slice(source, names, since=near["since"], before=near["before"], where=where))
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in frame.select(names).iter_rows(named=True):
        found[tuple(_spelled(source.column(name), row[name], seal) for name in source.key)] = row
    return found


def _spelled(column: ColumnSpec, value: Any, seal: Callable[[Any], Any]) -> Any:
    return seal(value) if column.pii and value is not None else value


def _key(source: SourceSpec, key: Mapping[str, Any] | None) -> tuple[Any, ...]:
    if not key:
        return ()
    return tuple(
        key.get(name) if source.column(name).pii else _physical(source.column(name), key.get(name))
        for name in source.key
    )


def _physical(column: ColumnSpec, value: Any) -> Any:
    """The value as it is kept, null where the request's value is none of the column's type."""
    try:
        return None if value is None else physical(column, value)
    except InvalidError:
        return None


def _list(vector: Vector) -> list[Any]:
    return [value if ok else None for value, ok in zip(vector.values.tolist(), vector.valid.tolist(), strict=True)]
