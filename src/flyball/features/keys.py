"""Entities as keys: the canonical bytes of the entity columns' values, hashed to 16 bytes."""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.define.spec import ColumnSpec
from flyball.features.accumulator import Words
from flyball.features.compiled import compiled
from flyball.features.vector import Vector

_MANY = 4096  # rows from which on whole numbers are looked up by compiled code; a request never gets there
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


class Keys:
    """The entity of each row: `codes` `(n,)` index into `unique`; -1 where an entity column is null.

    `unique` holds the 16-byte keys, made when they are first asked for. `values` are the same entities' physical values
    by column, and `columns` what these are declared to be (None: keys are all that is known).
    """

    __slots__ = ("_unique", "codes", "columns", "values")

    def __init__(
        self,
        codes: Words,
        unique: list[bytes] | None = None,
        *,
        values: Sequence[npt.NDArray[Any]] = (),
        columns: Sequence[ColumnSpec] | None = None,
    ) -> None:
        self.codes = codes
        self.values = tuple(values)
        self.columns = None if columns is None else tuple(columns)
        self._unique = unique

    @property
    def unique(self) -> list[bytes]:
        if self._unique is None:
            assert self.columns is not None  # one of the two is given
            self._unique = _entity_keys(self.values, self.columns)
        return self._unique

    @property
    def entities(self) -> int:
        """How many distinct ones there are."""
        return len(self.values[0]) if self._unique is None else len(self._unique)

    def __len__(self) -> int:
        return len(self.codes)


def entity_key(values: Sequence[Any], columns: Sequence[ColumnSpec]) -> bytes:
    """The key of one entity by the physical values of its columns; equal values of like types give equal keys."""
    parts = []
    for value, column in zip(values, columns, strict=True):
        part = _canonical(value, column)
        parts.append(struct.pack("<I", len(part)) + part)
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def _canonical(value: Any, column: ColumnSpec) -> bytes:
    if column.type in ("string", "category"):
        return b"s" + str(value).encode()
    if column.type == "boolean":
        return b"b1" if value else b"b0"
    if column.type == "float":
        return b"f" + struct.pack("<d", float(value) + 0.0)  # -0.0 becomes 0.0
    units, scale = int(value), column.scale if column.type == "decimal" else 0
    while scale > 0 and units % 10 == 0:  # 1.50 of scale 2 is 1.5 of scale 1 is an integer's kind of number
        units, scale = units // 10, scale - 1
    return struct.pack("<cqB", b"i", units, scale)


def _entity_keys(values: Sequence[npt.NDArray[Any]], columns: Sequence[ColumnSpec]) -> list[bytes]:
    return [entity_key(row, columns) for row in zip(*(v.tolist() for v in values), strict=True)]


def encode_keys(vectors: Sequence[Vector], columns: Sequence[ColumnSpec], rows: int) -> Keys:
    """Keys of `rows` rows by their entity columns (physical values); no columns: one key for all, the global one."""
    if not columns:
        return Keys(np.zeros(rows, np.int64), [entity_key((), ())])
    codes, first = _number(vectors[0])
    for vector in vectors[1:]:
        more, _ = _number(vector)
        size = int(more.max(initial=0)) + 1
        pairs = np.where((codes >= 0) & (more >= 0), codes * size + more, -1)
        codes, first = _number(Vector(pairs, pairs >= 0))
    return Keys(codes, values=[v.values[first] for v in vectors], columns=columns)


def _number(vector: Vector) -> tuple[Words, Words]:
    """A code for each row, equal where values are, -1 for null; and the first row of each code."""
    values = vector.values
    if values.dtype != object and len(values) >= _MANY:
        if values.dtype == np.float64:
            values = (values + 0.0).view(np.int64)
        return _number_words(np.ascontiguousarray(values, np.int64), vector.valid)
    everything = bool(vector.valid.all())
    where = np.arange(len(values)) if everything else np.flatnonzero(vector.valid)
    seen: defaultdict[Any, int] = defaultdict(count().__next__)
    present = values if everything else values[where]
    found = np.fromiter(map(seen.__getitem__, present.tolist()), np.int64, len(where))
    codes = np.full(len(values), -1, np.int64)
    codes[where] = found
    first = np.zeros(len(seen), np.int64)
    first[found[::-1]] = where[::-1]  # of equal positions the last one written stays
    return codes, first


@compiled
def _number_words(words: Words, valid: npt.NDArray[np.bool_]) -> tuple[Words, Words]:
    """As `_number`, by open addressing in a table that grows."""
    n, size, found = words.shape[0], 1 << 12, 0
    codes, first = np.full(n, -1, np.int64), np.empty(n, np.int64)
    table = np.full(size, -1, np.int64)
    for i in range(n):
        if not valid[i]:
            continue
        at = np.int64(np.uint64(words[i]) * _GOLDEN >> _HALF) & (size - 1)
        while table[at] >= 0 and words[first[table[at]]] != words[i]:
            at = (at + 1) & (size - 1)
        if table[at] < 0:
            table[at], first[found] = found, i
            found += 1
            codes[i] = found - 1
            if 2 * found > size:
                size *= 4
                table = np.full(size, -1, np.int64)
                for code in range(found):
                    at = np.int64(np.uint64(words[first[code]]) * _GOLDEN >> _HALF) & (size - 1)
                    while table[at] >= 0:
                        at = (at + 1) & (size - 1)
                    table[at] = code
        else:
            codes[i] = table[at]
    return codes, first[:found].copy()


@compiled
def lookup_words(unique: Words, words: Words) -> npt.NDArray[np.int32]:
    """The position of each word among distinct ones; -1 where it is none of them."""
    size = 16
    while size < 2 * unique.shape[0] + 2:
        size *= 2
    table, keys = np.full(size, -1, np.int32), np.zeros(size, np.int64)
    for code in range(unique.shape[0]):
        at = np.int64(np.uint64(unique[code]) * _GOLDEN >> _HALF) & (size - 1)
        while table[at] >= 0:
            at = (at + 1) & (size - 1)
        table[at], keys[at] = code, unique[code]
    codes = np.empty(words.shape[0], np.int32)
    for i in range(words.shape[0]):
        at = np.int64(np.uint64(words[i]) * _GOLDEN >> _HALF) & (size - 1)
        while table[at] >= 0 and keys[at] != words[i]:
            at = (at + 1) & (size - 1)
        codes[i] = table[at]
    return codes
