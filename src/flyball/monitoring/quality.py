"""Quality from labels that arrive late: predictions joined to labels, scored per period once they are mature.

A label comes back for a `prediction_id`, or is found by key: an expression over the row's own event, or another
source's event within a window after the row. Of the last kind a positive is known at once and a negative only when
the window has passed, so only mature predictions are scored: else positives would be over-represented.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.define.expression import columns_of
from flyball.define.spec import AnyLabelSpec, ExprData, LabelSpec, SourceSpec, TaskSpec
from flyball.define.task import higher_is_better
from flyball.kernel.times import DAY
from flyball.monitoring.ports import LabelReader, QualityPeriod

Metrics = Callable[[TaskSpec, npt.NDArray[np.float64], npt.NDArray[np.float64]], Mapping[str, float | None]]
Seal = Callable[[Any], Any]  # what a pii value is in a prediction's record


class Evaluate(Protocol):
    """Computes an expression over events of a source: one value a row, None where it is null."""

    def __call__(self, expr: ExprData, source: SourceSpec, events: pl.DataFrame) -> list[Any]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityRule:
    """`period` of domain time that is scored together; `min_labels` that a verdict needs, with at least
    `min_of_each` of both classes of a binary task. A chosen rule, without a stated false-alarm rate: uncalibrated."""

    period: int = DAY
    min_labels: int = 500
    min_of_each: int = 10


def maturity(label: LabelSpec) -> int:
    """How long after a row its label is certain."""
    return max(label.matures, label.any.within if label.any is not None else 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelling:
    """How the labels of a model are found.

    Args:
        rows: the source of the rows; None where requests come from none.
        other: the source of an `any` label.
        seal: what a value of a pii column is in a prediction's record.
    """

    label: LabelSpec
    rows: SourceSpec | None
    other: SourceSpec | None
    reader: LabelReader
    evaluate: Evaluate
    seal: Seal

    def sealed(self, column: str, value: Any) -> Any:
        pii = self.rows is not None and any(c.name == column and c.pii for c in self.rows.columns)
        return self.seal(value) if pii and value is not None else value


def with_labels(predictions: pl.DataFrame, by: Labelling, *, start: int, end: int, now: int) -> pl.DataFrame:
    """Predictions of `start <= at < end` with `y` (a number or a class; null: unknown) and `mature`.

    Feedback by `prediction_id` goes before what is found by key.
    """
    at = predictions["at"].to_list()
    found: list[Any] = [None] * len(predictions)
    if by.label.any is not None and by.other is not None:
        found = _any_labels(predictions, by.label.any, by, start, end, now)
    elif by.label.expr is not None and by.rows is not None and by.rows.key:
        found = _row_labels(predictions, by.label.expr, by.rows, by, start, end, now)
    sent = dict(by.reader.feedback(start).select("prediction_id", "label").iter_rows())
    found = [sent.get(prediction, known) for prediction, known in zip(predictions["id"], found, strict=True)]
    certain = maturity(by.label)
    y = pl.Series("y", [float(v) if isinstance(v, bool | int) else v for v in found], strict=False)
    return predictions.with_columns(y, pl.Series("mature", [t + certain <= now for t in at], dtype=pl.Boolean))


def _row_labels(
    predictions: pl.DataFrame, expr: ExprData, rows: SourceSpec, by: Labelling, start: int, end: int, now: int
) -> list[Any]:
    """The label of each prediction's own event, found by the source's key; a day either side bridges the clocks."""
    columns = sorted(columns_of(expr, rows.name) | set(rows.key))
    events = by.reader.events(rows.name, columns, start - DAY, min(end + DAY, now + 1))
    if events.is_empty():
        return [None] * len(predictions)
    events = events.sort("_lsn", descending=True)  # of events with one key the first counts, as in training
    keys = [
        tuple(by.sealed(name, value) for name, value in zip(rows.key, event, strict=True))
        for event in events.select(rows.key).iter_rows()
    ]
    by_key = dict(zip(keys, by.evaluate(expr, rows, events), strict=True))
    asked = [json.loads(key) if key else {} for key in predictions["key"]]
    return [by_key.get(tuple(key.get(name) for name in rows.key)) for key in asked]


def _any_labels(
    predictions: pl.DataFrame, label: AnyLabelSpec, by: Labelling, start: int, end: int, now: int
) -> list[Any]:
    """True where the other source has an event in the window; false once the window has passed; else unknown."""
    assert by.other is not None  # the caller looked
    extra = columns_of(label.where, by.other.name) if label.where is not None else set()
    events = by.reader.events(by.other.name, sorted({label.on} | extra), start, min(end + label.within, now) + 1)
    if label.where is not None and not events.is_empty():
        keep = [value is not None and bool(value) for value in by.evaluate(label.where, by.other, events)]
        events = events.filter(pl.Series(keep, dtype=pl.Boolean))
    times: dict[Any, list[int]] = {}
    for value, time in events.select(label.on, "_event_time").iter_rows():
        times.setdefault(by.sealed(label.rows_on, value), []).append(time)
    found: list[Any] = []
    for value, t in zip(_request_values(predictions, label.rows_on), predictions["at"].to_list(), strict=True):
        if value is None:
            found.append(None)
        elif any(t <= time <= t + label.within for time in times.get(value, ())):
            found.append(True)
        else:
            found.append(False if t + label.within <= now else None)
    return found


def _request_values(predictions: pl.DataFrame, column: str) -> list[Any]:
    """A field of each request, from its key or else from its inputs."""
    values = []
    for key, inputs in predictions.select("key", "inputs").iter_rows():
        known = json.loads(key) if key else {}
        if column not in known:
            known = json.loads(inputs) if inputs else {}
        values.append(known.get(column))
    return values


def score(
    labelled: pl.DataFrame,
    *,
    service: str,
    task: TaskSpec,
    metric: str,
    metrics: Metrics,
    rule: QualityRule,
) -> list[QualityPeriod]:
    """One row for each version and period. `labelled` has `version`, `at`, `score`, `y`, `mature`."""
    found = []
    periods = labelled.with_columns((pl.col("at") // rule.period * rule.period).alias("start"))
    for part in periods.partition_by("version", "start"):
        version, start = part.select("version", "start").row(0)
        known = part.filter(pl.col("mature") & pl.col("y").is_not_null() & pl.col("score").is_not_null())
        found.append(
            QualityPeriod(
                service=service,
                version=version,
                start=start,
                rows=len(part),
                matured=int(part["mature"].sum()),
                labelled=len(known),
                metric=metric,
                value=_metric(known, task, metric, metrics, rule),
            )
        )
    return found


def _metric(known: pl.DataFrame, task: TaskSpec, metric: str, metrics: Metrics, rule: QualityRule) -> float | None:
    if known["y"].dtype == pl.String:  # classes by name
        known = known.filter(pl.col("y").is_in(task.classes))
        known = known.with_columns(y=pl.Series([float(task.classes.index(name)) for name in known["y"]]))
    if known.is_empty():
        return None
    y = known["y"].to_numpy()
    if task.kind == "binary":
        positives = int((y > 0.5).sum())
        if min(positives, len(y) - positives) < rule.min_of_each:
            return None
    value = metrics(task, y, np.asarray(known["score"].to_list(), dtype=np.float64)).get(metric)
    return None if value is None or not np.isfinite(value) else float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityVerdict:
    """`dropped` None: not enough mature labels to say. `loss` is how much worse than the baseline, in the metric."""

    dropped: bool | None
    loss: float
    reason: str
    period: QualityPeriod | None = None


def quality_drop(
    periods: Sequence[QualityPeriod], *, baseline: float | None, metric: str, drop: float, rule: QualityRule
) -> QualityVerdict:
    """Whether the newest period with enough mature labels is worse than `baseline` by `drop` or more. Pure.

    Args:
        periods: of the version that serves now.
        baseline: the version's metric on its held-out rows.
    """
    usable = [p for p in periods if p.value is not None and p.labelled >= rule.min_labels and p.metric == metric]
    if baseline is None or not usable:
        missing = "the version has no held-out value" if baseline is None else "no period has enough mature labels"
        return QualityVerdict(dropped=None, loss=0.0, reason=f"{metric}: {missing}")
    period = max(usable, key=lambda p: p.start)
    value = period.value if period.value is not None else 0.0
    loss = baseline - value if higher_is_better(metric) else value - baseline
    reason = f"{metric} is {value:.4f} on {period.labelled} labels, against {baseline:.4f} when it was trained"
    return QualityVerdict(dropped=loss >= drop, loss=loss, reason=reason, period=period)
