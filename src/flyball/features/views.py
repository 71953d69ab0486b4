"""A view, compiled: its events as rows of the kernel, its entities as keys, its answers as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flyball.define.spec import ColumnSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import Flags, Floats, Plan, Words
from flyball.features.batch import empty, flat
from flyball.features.evaluate import evaluate
from flyball.features.keys import Keys, encode_keys
from flyball.features.plan import (
    RAW_LIMIT,
    Group,
    check_expressions,
    latest_groups,
    latest_plan,
    window_groups,
    window_plan,
)
from flyball.features.vector import LeafKey, Vector, column_key, logical
from flyball.kernel.ids import digest


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewValues:
    """What a view says about `n` rows.

    Args:
        values, valid: `(n, features)`, in the order of `ViewSpec.features`, declared defaults filled in; NaN for null.
        exact: `(n,)`; False where the state could not answer that far back.
        lsn, known_through: of the source, when they were read; -1 offline.
    """

    values: Floats
    valid: Flags
    exact: Flags
    lsn: int = -1
    known_through: int = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """Events as the kernel takes them: raw rows `(n, words)` and their entities, without those that change nothing."""

    rows: Words
    keys: Keys
    index: Words  # where each row stood in what was given

    @classmethod
    def of_one(cls, rows: Words, entity: bytes) -> Events:
        """Raw rows of one entity."""
        return cls(rows=rows, keys=Keys(np.zeros(len(rows), np.int64), [entity]), index=np.arange(len(rows)))

    def take(self, which: Words) -> Events:
        """Some of the events."""
        keys = Keys(self.keys.codes[which], self.keys.unique)
        return Events(rows=self.rows[which], keys=keys, index=self.index[which])


class CompiledView:
    """A view and its source, ready for the kernel.

    Raises:
        InvalidError: `bad_view`, where the declaration asks for what cannot be computed.
    """

    def __init__(self, view: ViewSpec, source: SourceSpec, *, raw_limit: int = RAW_LIMIT) -> None:
        check_expressions(view, source)
        self.spec = view
        self.source = source
        self.entity: tuple[ColumnSpec, ...] = tuple(source.column(name) for name in view.entity)
        if view.kind == "window":
            self.groups, which = window_groups(view, source)
            self.plan: Plan = window_plan(view, source, self.groups, which, raw_limit)
        else:
            self.groups = latest_groups(view, source)
            self.plan = latest_plan(view, source, self.groups, raw_limit)
        self.known_keys: dict[Any, bytes] = {}  # of entities that were seen lately
        self.definition = self._definition()
        self.feature_types = self._feature_types()
        defaults: list[Any] = [a.default for a in view.aggregates] + [c.default for c in view.latest]
        self.defaults = np.array(
            [_default(default, kind[2]) for default, kind in zip(defaults, self.feature_types, strict=True)], np.float64
        )

    def _definition(self) -> str:
        """What online state is kept under: the view's own hash, and how its columns are written in the state."""
        coded = {g.value[2] for g in self.groups if g.value is not None and g.value[0] == "col"}
        columns = [
            [c.name, c.type, c.scale, list(c.categories) if c.name in coded else []]
            for c in self.source.columns
            if c.name in self.columns
        ]
        return digest([self.spec.definition, columns])

    def _feature_types(self) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        """Name, type and categories of each feature, as a value of that feature is to be read."""
        types = []
        for aggregate in self.spec.aggregates:
            value = aggregate.value if aggregate.op in ("first", "last", "nth_last") else None
            column = self.source.column(value[2]) if value is not None and value[0] == "col" else None
            types.append((aggregate.name, column.type if column else "float", column.categories if column else ()))
        for latest in self.spec.latest:
            column = self.source.column(latest.column)
            types.append((latest.name, column.type, column.categories))
        return tuple(types)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the source that the view reads."""
        names = {*self.spec.entity, *self.value_columns}
        return tuple(c.name for c in self.source.columns if c.name in names)

    @cached_property
    def value_columns(self) -> tuple[str, ...]:
        """Those of them that values and filters are computed from."""
        names = {c.column for c in self.spec.latest}
        for expr in [e for a in self.spec.aggregates for e in (a.value, a.where)] + [self.spec.where]:
            names |= _columns(expr)
        return tuple(c.name for c in self.source.columns if c.name in names)

    @cached_property
    def reach(self) -> int | None:
        """How long an event can matter after it happened, its lateness aside; None: for ever."""
        if self.spec.kind == "latest":
            return None if self.spec.ttl is None else self.spec.ttl + self.plan.head
        return int(self.plan.windows[:, 0].max() + self.plan.levels[0, 0]) + self.plan.head

    @cached_property
    def empty_state(self) -> Words:
        """The packed state of an entity that saw nothing."""
        return empty(self.plan)

    @cached_property
    def flat(self) -> Words:
        """What `batch.read_one` takes."""
        return flat(self.plan, self.defaults)

    def events(self, columns: Mapping[str, Vector], t: Words, lsn: Words, keys: Keys | None = None) -> Events:
        """Physical columns of the source, with the events' times and LSNs, as rows of the kernel.

        Where the entities' `keys` are given, of `columns` only `value_columns` are read.
        """
        n = len(t)
        names = self.columns if keys is None else self.value_columns
        keys = encode_keys([columns[c.name] for c in self.entity], self.entity, n) if keys is None else keys
        leaves: dict[LeafKey, Vector] = {("time",): Vector(t, np.ones(n, np.bool_))}
        for name in names:
            leaves[column_key(self.source.name, name)] = logical(columns[name], self.source.column(name))
        wanted = keys.codes >= 0
        if self.spec.where is not None:
            wanted &= _true(self.spec.where, leaves, n)
        rows = np.zeros((n, self.plan.row_words), np.int64)
        rows[:, 0], rows[:, 1] = t, lsn
        seen = np.zeros(n, np.bool_)
        for g, group in enumerate(self.groups):
            vector = self._value(group, columns, leaves, n)
            present = vector.valid if group.where is None else vector.valid & _true(group.where, leaves, n)
            rows[:, 2 + g // 64] |= present.astype(np.int64) << np.int64(g % 64)
            rows[:, 2 + self.plan.mask_words + g] = np.where(present, vector.values, 0)
            seen |= present
        everything = bool(wanted.all() and (seen.all() or self.spec.kind == "latest"))
        if everything:
            return Events(rows=rows, keys=keys, index=np.arange(n))
        if self.spec.kind == "window":
            wanted &= seen
        index = np.flatnonzero(wanted)
        return Events(rows=rows[index], keys=Keys(keys.codes[index], keys.unique), index=index)

    def _value(self, group: Group, columns: Mapping[str, Vector], leaves: Mapping[LeafKey, Vector], n: int) -> Vector:
        """A group's values as 64-bit words."""
        if group.value is None:
            return Vector(np.zeros(n, np.int64), np.ones(n, np.bool_))
        if group.value[0] == "col":  # whole columns as they are: cents are added as cents
            column = self.source.column(group.value[2])
            vector = columns[column.name]
            if column.type == "category":
                return category_codes(vector, column.categories)
        else:
            vector = evaluate(group.value, leaves, rows=n)
        if group.kind == "text":
            return text_hashes(vector) if group.hashed else Vector(np.zeros(n, np.int64), vector.valid)
        if group.kind == "whole":
            return Vector(vector.values.astype(np.int64), vector.valid)
        values = np.ascontiguousarray(vector.values, np.float64)
        valid = vector.valid & np.isfinite(values)
        return Vector(np.where(valid, values + 0.0, 0.0).view(np.int64), valid)

    def values(
        self, values: Floats, valid: Flags, exact: Flags, *, lsn: int = -1, known_through: int = -1
    ) -> ViewValues:
        """The kernel's answers with the declared defaults in the place of nulls."""
        filled = np.where(valid, values, self.defaults)
        return ViewValues(values=filled, valid=~np.isnan(filled), exact=exact, lsn=lsn, known_through=known_through)


def text_hashes(vector: Vector) -> Vector:
    """Texts as stable 64-bit hashes (BLAKE2b over UTF-8), for counting distinct ones."""
    words: dict[str, int] = {}
    values = np.fromiter((words.get(v) or words.setdefault(v, _hash(v)) for v in vector.values), np.int64, len(vector))
    return Vector(values, vector.valid)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def category_codes(vector: Vector, categories: Sequence[str]) -> Vector:
    """Text as positions in `categories`; what is not one of them is null."""
    codes = {category: code for code, category in enumerate(categories)}
    values = np.fromiter((codes.get(v, -1) for v in vector.values), np.int64, len(vector))
    return Vector(values, vector.valid & (values >= 0))


def _true(expr: list[Any], leaves: Mapping[LeafKey, Vector], n: int) -> Flags:
    condition = evaluate(expr, leaves, rows=n)
    true: Flags = condition.valid & condition.values.astype(np.bool_)
    return true


def _columns(expr: list[Any] | None) -> set[str]:
    if expr is None or expr[0] in ("lit", "time"):
        return set()
    if expr[0] == "col":
        return {expr[2]}
    return set().union(*(_columns(argument) for argument in expr[1:]))


def _default(default: Any, categories: tuple[str, ...]) -> float:
    if default is None:
        return float("nan")
    if isinstance(default, str):
        return float(categories.index(default)) if default in categories else float("nan")
    return float(default)
