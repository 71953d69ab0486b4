"""The identity of an event: 16 bytes of BLAKE2b over the canonical spelling of its key, or of its row.

The spelling is injective: a text carries its length in bytes, a float its bits, a null its own mark. Where a source
has no key, all declared columns and the event time count, by name, nulls left out: so a nullable column added later
does not change the identity of the events before it, nor does the order of the declaration.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec

KEY_BYTES = 16


def event_keys(frame: pl.DataFrame, spec: SourceSpec) -> pl.Series:
    """`_key` (`Binary`, 16 bytes each) of the rows of a physical frame."""
    if spec.key:
        names = [_physical_name(spec, name) for name in spec.key]
        parts = [_spelling(frame[name]).fill_null("~").alias(str(i)) for i, name in enumerate(names)]
    else:
        ordered = sorted(column.name for column in spec.columns)
        parts = [(f"{len(name)}:{name}=" + _spelling(frame[name])).alias(str(i)) for i, name in enumerate(ordered)]
        parts.append(("@" + frame["_event_time"].cast(pl.String)).alias("time"))
    text = pl.DataFrame(parts).select(pl.concat_str(pl.all(), separator=";", ignore_nulls=True)).to_series()
    blake2b = hashlib.blake2b
    keys = [blake2b(line.encode(), digest_size=KEY_BYTES).digest() for line in text]
    return pl.Series("_key", keys, dtype=pl.Binary)


def _physical_name(spec: SourceSpec, name: str) -> str:
    """A key may name the event time column, which a physical frame carries as `_event_time`."""
    declared = any(column.name == name for column in spec.columns)
    return "_event_time" if not declared and name == spec.event_time else name


def _spelling(series: pl.Series) -> pl.Series:
    if series.dtype == pl.String:
        return "s" + series.str.len_bytes().cast(pl.String) + ":" + series
    if series.dtype == pl.Float64:
        bits = (series.fill_null(0.0).to_numpy() + 0.0).view(np.int64)  # + 0.0: -0.0 is 0.0
        text = "f" + pl.Series(series.name, bits).cast(pl.String)
        return text.set(series.is_null(), None)
    if series.dtype == pl.Boolean:
        return "b" + series.cast(pl.Int8).cast(pl.String)
    return "i" + series.cast(pl.String)
