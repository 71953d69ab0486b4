"""Entities as keys: the canonical bytes of the entity columns' values, hashed to 16 bytes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyball.define.spec import ColumnSpec
from flyball.features.accumulator import Words
from flyball.features.vector import Vector


@dataclass(frozen=True, slots=True)
class Keys:
    """The entity of each row: `codes` `(n,)` index into `unique`; -1 where an entity column is null."""

    codes: Words
    unique: list[bytes]

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


def encode_keys(vectors: Sequence[Vector], columns: Sequence[ColumnSpec], rows: int) -> Keys:
    """Keys of `rows` rows by their entity columns (physical values); no columns: one key for all, the global one."""
    if not columns:
        return Keys(np.zeros(rows, np.int64), [entity_key((), ())])
    present = np.logical_and.reduce([v.valid for v in vectors])
    seen: dict[Any, int] = {}
    codes = np.full(rows, -1, np.int64)
    where = np.flatnonzero(present)
    values = zip(*(v.values[where].tolist() for v in vectors), strict=True)
    codes[where] = np.fromiter((seen.setdefault(value, len(seen)) for value in values), np.int64, len(where))
    return Keys(codes, [entity_key(value, columns) for value in seen])
