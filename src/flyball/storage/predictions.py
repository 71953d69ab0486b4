"""Predictions and labels as the monitors read them, from the lake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from flyball.define.spec import ExprData, SourceSpec
from flyball.features.evaluate import evaluate
from flyball.features.vector import column_key, logical, vector_of
from flyball.kernel.errors import NotFoundError
from flyball.kernel.times import to_datetime
from flyball.loop.records import TABLE
from flyball.registry import versions

FEEDBACK = "flyball_feedback"
NOT_THE_MODEL = ("default", "error", "older", "older_version")  # rungs whose replies say nothing about the version

_PREDICTION: dict[str, Any] = {
    "id": pl.String,
    "version": pl.String,
    "at": pl.Int64,
    "key": pl.String,
    "inputs": pl.String,
    "score": pl.Float64,
}
_SERVED: dict[str, Any] = {
    "version": pl.String,
    "at": pl.Int64,
    "key": pl.String,
    "inputs": pl.String,
    "features": pl.String,
}


class Tables(Protocol):
    """The lake, as far as it is read here."""

    def types(self, table: str) -> dict[str, pl.DataType]:
        """Column → type; empty where there is no such table."""

    def scan(self, table: str) -> pl.LazyFrame: ...


class LakePredictions:
    """`monitoring.ports.PredictionReader` over the lake's table `predictions`."""

    def __init__(self, lake: Tables) -> None:
        self._lake = lake

    def between(self, service: str, start: int, end: int) -> pl.DataFrame:
        if not self._lake.types(TABLE):
            return pl.DataFrame(schema=_PREDICTION)
        rows = (
            self._lake.scan(TABLE)
            .filter(pl.col("service") == service, pl.col("rung").is_in(NOT_THE_MODEL).not_())
            .filter(pl.col("at") >= to_datetime(start), pl.col("at") < to_datetime(end))
            .select("id", "version", pl.col("at").cast(pl.Int64), "key", "inputs", "output")
            .collect()
        )
        return rows.with_columns(_scores(rows["output"])).drop("output")

    def find(self, prediction: str) -> dict[str, Any] | None:
        if not self._lake.types(TABLE):
            return None
        rows = self._lake.scan(TABLE).filter(pl.col("id") == prediction).limit(1).collect()
        if rows.is_empty():
            return None
        record = rows.with_columns(pl.col("at", "wall").cast(pl.Int64)).row(0, named=True)
        for name in (
            "key",
            "inputs",
            "features",
            "lsn",
            "known_through",
            "output",
            "feature_state",
            "error",
            "usage",
            "cost",
        ):
            if record[name] is not None:
                record[name] = json.loads(record[name])
        return record


class LakeServed:
    """`features.ports.ServedReader` over the lake's table `predictions`, and the versions in the folder `versions`.

    `digests` names the directories of a model's versions by what predictions call them (`model/number`).
    """

    def __init__(self, lake: Tables, versions: Path, digests: Mapping[str, str]) -> None:
        self._lake = lake
        self._versions = versions
        self._digests = digests

    def served(self, model: str) -> pl.DataFrame:
        """What the model's versions themselves answered, the earliest first."""
        if not self._lake.types(TABLE):
            return pl.DataFrame(schema=_SERVED)
        rows = self._lake.scan(TABLE).filter(
            pl.col("version").str.starts_with(f"{model}/"),
            pl.col("rung").is_in(NOT_THE_MODEL).not_(),
            pl.col("features").is_not_null(),
        )
        return (
            rows.sort("at", "id").select("version", pl.col("at").cast(pl.Int64), "key", "inputs", "features").collect()
        )

    def manifest(self, version: str) -> Mapping[str, Any] | None:
        digest = self._digests.get(version)
        if digest is None:
            return None
        try:
            return versions.read(self._versions / digest, expected=digest).manifest
        except NotFoundError:
            return None


class LakeLabels:
    """`monitoring.ports.LabelReader` over the lake's tables of sources."""

    def __init__(self, lake: Tables) -> None:
        self._lake = lake

    def events(self, source: str, columns: list[str], start: int, end: int) -> pl.DataFrame:
        names = [*columns, *(name for name in ("_event_time", "_known_at", "_lsn") if name not in columns)]
        types = self._lake.types(source)
        if not types:
            return pl.DataFrame(schema=dict.fromkeys(names, pl.Int64))
        rows = self._lake.scan(source).filter(
            pl.col("_event_time") >= _time(start, types["_event_time"]),
            pl.col("_event_time") < _time(end, types["_event_time"]),
        )
        return rows.select(_physical(name, types[name]) for name in names).collect()

    def feedback(self, start: int) -> pl.DataFrame:
        types = self._lake.types(FEEDBACK)
        if not types:
            return pl.DataFrame(schema={"prediction_id": pl.String, "label": pl.Float64})
        rows = self._lake.scan(FEEDBACK).filter(pl.col("_event_time") >= _time(start, types["_event_time"]))
        return rows.sort("_lsn").select("prediction_id", "label").collect()


def evaluate_events(expr: ExprData, source: SourceSpec, events: pl.DataFrame) -> list[Any]:
    """`monitoring.quality.Evaluate` by the one evaluator: the value for each event, None where it is null."""
    leaves: dict[Any, Any] = {
        column_key(source.name, column.name): logical(vector_of(events[column.name].to_list(), column.type), column)
        for column in source.columns
        if column.name in events.columns
    }
    leaves["time",] = vector_of(events["_event_time"].to_list(), "timestamp")
    result = evaluate(expr, leaves, rows=len(events))
    return [value if valid else None for value, valid in zip(result.values.tolist(), result.valid, strict=True)]


def _scores(output: pl.Series) -> pl.Series:
    """What was answered as a number; as a list of numbers where a model gives one for each class."""
    numbers = output.str.json_path_match("$.score").cast(pl.Float64, strict=False).alias("score")
    if not output.str.contains('"scores"').any() and numbers.null_count() == output.null_count():
        return numbers
    return pl.Series("score", [_score(text) for text in output], strict=False)


def _score(text: str | None) -> Any:
    value = None if text is None else json.loads(text)
    if isinstance(value, dict):
        value = value.get("scores", value.get("score", value.get("prediction")))
    if isinstance(value, dict):  # class → score, in the order of the task's classes
        return [float(item) for item in value.values()]
    return float(value) if isinstance(value, int | float) else None


def _time(at: int, dtype: pl.DataType) -> Any:
    return to_datetime(at) if isinstance(dtype, pl.Datetime) else at


def _physical(name: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Decimal):
        return pl.col(name).to_physical().cast(pl.Int64)
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).cast(pl.Datetime("us")).cast(pl.Int64)
    return pl.col(name)
