"""The entities of a frame's rows: each different one is hashed once."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.features.accumulator import Words
from flyball.features.frames import vectors
from flyball.features.keys import Keys, encode_keys, entity_key
from flyball.features.views import CompiledView

_REMEMBERED = 200_000  # keys of a view that are not hashed again
_INTEGER = np.dtype([("size", "<u4"), ("mark", "S1"), ("units", "<i8"), ("scale", "u1")])  # as `entity_key` writes it


def frame_keys(view: CompiledView, frame: pl.DataFrame) -> Keys:
    """As `encode_keys`, with the keys ascending and each of them in use."""
    if [column.type for column in view.entity] == ["integer"]:
        return _by_integer(view, frame)
    columns = frame.select(view.spec.entity)
    if not columns.width:
        return Keys(np.zeros(frame.height, np.int64), [entity_key((), ())])
    columns = columns.with_columns(pl.selectors.float() + 0.0)
    different = columns.drop_nulls().unique()
    known = _known(view)
    values = different.rows()
    unique = [known.get(value) or known.setdefault(value, entity_key(value, view.entity)) for value in values]
    keys, rank = _ascending(unique)
    return Keys(_codes(columns, different.with_columns(pl.Series("_rank", rank, pl.Int64))), keys)


def _codes(columns: pl.DataFrame, ranked: pl.DataFrame) -> Words:
    joined = columns.join(ranked, on=columns.columns, how="left", maintain_order="left")
    return np.ascontiguousarray(joined["_rank"].fill_null(-1).to_numpy(), np.int64)


def _by_integer(view: CompiledView, frame: pl.DataFrame) -> Keys:
    """The same for a single column of whole numbers, the most frequent kind, without a join."""
    found = encode_keys(list(vectors(frame, view.spec.entity).values()), view.entity, frame.height)
    values, known = np.asarray(found.values[0], np.int64), _known(view)
    if len(values) > _REMEMBERED // 10:
        unique = integer_keys(values)
    else:
        listed = values.tolist()
        missing = [value for value in listed if value not in known]
        known.update(zip(missing, integer_keys(np.array(missing, np.int64)), strict=True))
        unique = [known[value] for value in listed]
    keys, rank = _ascending(unique)
    return Keys(np.append(rank, -1)[found.codes], keys)  # -1, a null, is the last


def integer_keys(values: Words) -> list[bytes]:
    """`entity_key` of entities that are one whole number each."""
    records = np.zeros(len(values), _INTEGER)
    records["size"], records["mark"], records["units"] = _INTEGER.itemsize - 4, b"i", values
    data, size, hashed = records.tobytes(), _INTEGER.itemsize, hashlib.blake2b
    return [hashed(data[at : at + size], digest_size=16).digest() for at in range(0, len(data), size)]


def _ascending(keys: list[bytes]) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """Keys of 16 bytes in order, and where each of those given stands in it."""
    words = np.frombuffer(b"".join(keys), ">u8").reshape(-1, 2).astype(np.uint64)
    order = np.lexsort((words[:, 1], words[:, 0]))
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys))
    return [keys[i] for i in order.tolist()], rank


def _known(view: CompiledView) -> dict[object, bytes]:
    if len(view.known_keys) > _REMEMBERED:
        view.known_keys.clear()
    return view.known_keys
