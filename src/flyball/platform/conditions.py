"""Conditions over events for the contract, by the one evaluator: ingestion may not know the room of features."""

from __future__ import annotations

import polars as pl

from flyball.define.expression import columns_of
from flyball.define.spec import ExprData, SourceSpec
from flyball.features.evaluate import evaluate
from flyball.features.frames import vector
from flyball.features.vector import LeafKey, Vector, column_key, logical


def conditions(expr: ExprData, source: SourceSpec, events: pl.DataFrame) -> pl.Series:
    """`ingest.ports.Conditions`."""
    leaves: dict[LeafKey, Vector] = {
        column_key(source.name, name): logical(vector(events[name]), source.column(name))
        for name in columns_of(expr, source.name)
    }
    leaves["time",] = vector(events["_event_time"])
    result = evaluate(expr, leaves, rows=events.height)
    return pl.Series("condition", result.values.astype(bool)).set(pl.Series(~result.valid), None)
