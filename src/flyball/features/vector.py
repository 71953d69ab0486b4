"""Columns in memory: values and which of them are not null."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.define.spec import ColumnSpec

LeafKey = tuple[Any, ...]
_DTYPES: dict[str, Any] = {"string": object, "category": object, "float": np.float64, "boolean": np.bool_}
_FILL: dict[str, Any] = {"string": "", "category": "", "float": 0.0, "boolean": False}


@dataclass(frozen=True, slots=True)
class Vector:
    """`values` `(n,)` and `valid` `(n,)`; what stands where `valid` is False means nothing.

    Values are `float64`, `bool`, `int64` (integers, timestamps in microseconds) or objects (`str`).
    """

    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.valid)

    def take(self, index: npt.NDArray[Any]) -> Vector:
        return Vector(self.values[index], self.valid[index])


def leaf_key(leaf: Sequence[Any]) -> LeafKey:
    """A leaf of an expression as the key of a mapping: `("view", "Card", "n_1h", ("card",))`."""
    return tuple(tuple(part) if isinstance(part, list | tuple) else part for part in leaf)


def column_key(source: str, column: str) -> LeafKey:
    return ("col", source, column)


def vector_of(values: Iterable[Any], type: str) -> Vector:
    """Physical values, None for null, of a column of `type` as a vector of physical values."""
    items = list(values)
    valid = np.fromiter((v is not None for v in items), np.bool_, len(items))
    fill = _FILL.get(type, 0)
    filled = [fill if v is None else v for v in items]
    array = np.empty(len(items), _DTYPES.get(type, np.int64))
    array[:] = filled
    return Vector(array, valid)


def logical(physical: Vector, column: ColumnSpec) -> Vector:
    """A physical vector as expressions see it: decimals as float64, equal to their parsed text; the rest as it is."""
    if column.type != "decimal":
        return physical
    return Vector(physical.values.astype(np.float64) / float(10**column.scale), physical.valid)
