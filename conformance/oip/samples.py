"""Inputs that fit a model's metadata, and the values at the edges of each datatype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .wire import DTYPES, Array, texts

WORDS = ("a", "b", "c", "d")
MIXED = ("", "ascii", "Zürich", "日本語", "🜨 e\u0301", 'line\nbreak\t"quoted"\\')


def inputs_of(metadata: Mapping[str, Any], rows: int = 2) -> dict[str, Array]:
    """One valid tensor for each input: open sizes (-1) are `rows`, values are small numbers or single letters."""
    return {one["name"]: values(one["datatype"], sizes(one["shape"], rows)) for one in metadata["inputs"]}


def sizes(shape: Sequence[int], rows: int) -> tuple[int, ...]:
    return tuple(rows if size < 0 else size for size in shape)


def values(datatype: str, shape: Sequence[int]) -> Array:
    """A tensor of unremarkable values, which differ from their neighbours."""
    count = int(np.prod(shape, dtype=np.int64))
    if datatype == "BYTES":
        return texts(*(WORDS[i % len(WORDS)] for i in range(count))).reshape(shape)
    numbers = np.arange(count) % 100
    if datatype == "BOOL":
        return np.asarray(numbers % 2 == 0).reshape(shape)
    scaled = numbers / 4 if datatype.startswith("FP") else numbers
    return np.asarray(scaled, dtype=DTYPES[datatype]).reshape(shape)


def edges(datatype: str) -> Array:
    """The finite values at a datatype's ends, in the shape [n, 2]."""
    if datatype == "BYTES":
        return texts(*MIXED).reshape(-1, 2)
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind == "b":
        return np.array([[True, False], [False, True]])
    if dtype.kind in "iu":
        whole = np.iinfo(dtype)
        return np.array([[whole.min, whole.max], [whole.max - 1, 1]], dtype=dtype)
    real = np.finfo(dtype)
    return np.array([[real.min, real.max], [real.tiny, -real.smallest_subnormal], [1 / 3, -0.0]], dtype=dtype)


def not_finite(datatype: str) -> Array:
    return np.array([[np.nan, np.inf], [-np.inf, 1.5]], dtype=DTYPES[datatype])


def empty(datatype: str) -> Array:
    """A tensor of the shape [0, 2]."""
    return np.empty((0, 2), dtype=DTYPES[datatype])
