"""The entities of a frame's rows, found by Polars: each different one is hashed once."""

from __future__ import annotations

import numpy as np
import polars as pl

from flyball.features.accumulator import Words
from flyball.features.keys import Keys, entity_key
from flyball.features.views import CompiledView

_REMEMBERED = 200_000  # keys of a view that are not hashed again


def frame_keys(view: CompiledView, frame: pl.DataFrame) -> Keys:
    """As `encode_keys`, with the keys ascending and each of them in use."""
    columns = frame.select(view.spec.entity)
    if not columns.width:
        return Keys(np.zeros(frame.height, np.int64), [entity_key((), ())])
    columns = columns.with_columns(pl.selectors.float() + 0.0)
    different = columns.drop_nulls().unique()
    known = view.known_keys
    if len(known) > _REMEMBERED:
        known.clear()
    values = different.rows()
    unique = [known.get(value) or known.setdefault(value, entity_key(value, view.entity)) for value in values]
    rank = np.empty(len(unique), np.int64)
    order = sorted(range(len(unique)), key=unique.__getitem__)
    rank[order] = np.arange(len(order))
    keys = [unique[i] for i in order]
    return Keys(_codes(columns, different.with_columns(pl.Series("_rank", rank, pl.Int64))), keys)


def _codes(columns: pl.DataFrame, ranked: pl.DataFrame) -> Words:
    joined = columns.join(ranked, on=columns.columns, how="left", maintain_order="left")
    return np.ascontiguousarray(joined["_rank"].fill_null(-1).to_numpy(), np.int64)
