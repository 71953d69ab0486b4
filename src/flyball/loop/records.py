"""Prediction records as rows of the lake's table `predictions`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

TABLE = "predictions"

_TEXT = ("id", "service", "version", "arm", "rung")
_JSON = ("key", "inputs", "features", "lsn", "known_through", "output", "feature_state", "error", "usage", "cost")
_TIME = pl.Datetime("us", "UTC")

SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(_TEXT, pl.String()),
    "propensity": pl.Float64(),
    "at": _TIME,
    "wall": _TIME,
    "latency_us": pl.Int64(),
    "batch": pl.Int64(),
    **dict.fromkeys(_JSON, pl.String()),
}


def frame(records: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The table's rows, in the order of the records; what has a model's own shape is JSON, so that the table's schema
    is the same for all models."""
    columns: dict[str, list[Any]] = {name: [record.get(name) for record in records] for name in SCHEMA}
    for name in _JSON:
        columns[name] = [None if value is None else _json(value) for value in columns[name]]
    for name in ("latency_us", "batch", "at", "wall"):
        columns[name] = [None if value is None else int(value) for value in columns[name]]
    physical = {name: pl.Int64() if dtype == _TIME else dtype for name, dtype in SCHEMA.items()}
    return pl.DataFrame(columns, schema=physical).cast({"at": _TIME, "wall": _TIME})


def failed(record: dict[str, Any]) -> bool:
    """Whether the model that was asked did not answer: an error, or a reply from a rung below it."""
    return bool(record.get("error")) or record.get("rung") in ("default", "error", "older", "older_version")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
