"""Late labels find their predictions, and only mature ones are scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from flyball.define.spec import AnyLabelSpec, ColumnSpec, LabelSpec, SourceSpec, TaskSpec
from flyball.kernel.times import DAY, HOUR
from flyball.monitoring.ports import QualityPeriod
from flyball.monitoring.quality import Labelling, QualityRule, quality_drop, score, with_labels

TRIPS = SourceSpec(
    name="Trips",
    columns=(ColumnSpec(name="id", type="string"), ColumnSpec(name="tips", type="float")),
    event_time="at",
    key=("id",),
)
CHARGEBACKS = SourceSpec(name="Chargebacks", columns=(ColumnSpec(name="payment", type="string"),), event_time="at")
TASK = TaskSpec(kind="binary")
RULE = QualityRule(min_labels=2, min_of_each=1)


class Labels:
    def __init__(self, events: dict[str, pl.DataFrame], feedback: dict[str, float] | None = None) -> None:
        self._events = events
        self._feedback = feedback or {}

    def events(self, source: str, columns: list[str], start: int, end: int) -> pl.DataFrame:
        frame = self._events[source]
        frame = frame if "_lsn" in frame.columns else frame.with_row_index("_lsn")
        return frame.filter(pl.col("_event_time") >= start, pl.col("_event_time") < end)

    def feedback(self, start: int) -> pl.DataFrame:
        items = {"prediction_id": list(self._feedback), "label": list(self._feedback.values())}
        return pl.DataFrame(items, schema={"prediction_id": pl.String, "label": pl.Float64})


def tipped(expr: list[Any], source: SourceSpec, events: pl.DataFrame) -> list[Any]:
    """Stands in for the evaluator: whether `tips` is above 1."""
    return [None if tips is None else tips > 1 for tips in events["tips"].to_list()]


def accuracy(task: TaskSpec, y: npt.NDArray[Any], values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    return {"accuracy": float(((values > 0.5) == (y > 0.5)).mean())}


def predictions(*at: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [f"pred_{n}" for n in range(len(at))],
            "version": ["tip/1"] * len(at),
            "at": list(at),
            "key": [f'{{"id": "{n}"}}' for n in range(len(at))],
            "inputs": ["{}"] * len(at),
            "score": [0.9] * len(at),
        }
    )


def labelled(
    rows: pl.DataFrame, label: LabelSpec, reader: Labels, now: int, source: SourceSpec = TRIPS
) -> pl.DataFrame:
    by = Labelling(
        label=label, rows=source, other=CHARGEBACKS, reader=reader, evaluate=tipped, seal=lambda v: f"pii:{v}"
    )
    return with_labels(rows, by, start=0, end=10 * DAY, now=now)


def test_a_label_is_found_by_the_key_of_its_own_event() -> None:
    trips = pl.DataFrame({"id": ["0", "1", "2"], "tips": [2.0, 0.0, None], "_event_time": [1, 2, 3]})
    label = LabelSpec(expr=["gt", ["col", "Trips", "tips"], ["lit", 1]], matures=HOUR)
    found = labelled(predictions(1, 2, 3, 4), label, Labels({"Trips": trips}), now=HOUR + 2)
    assert found["y"].to_list() == [1.0, 0.0, None, None]
    assert found["mature"].to_list() == [True, True, False, False]


def test_of_events_with_one_key_the_first_is_the_label_as_in_training() -> None:
    trips = pl.DataFrame({"id": ["0", "0"], "tips": [2.0, 0.0], "_event_time": [1, 2], "_lsn": [1, 2]})
    label = LabelSpec(expr=["gt", ["col", "Trips", "tips"], ["lit", 1]])
    for stored in (trips, trips.reverse()):
        assert labelled(predictions(1), label, Labels({"Trips": stored}), now=9)["y"].to_list() == [1.0]


def test_a_label_sent_for_a_prediction_goes_before_what_is_found_by_key() -> None:
    trips = pl.DataFrame({"id": ["0"], "tips": [0.0], "_event_time": [1]})
    label = LabelSpec(expr=["gt", ["col", "Trips", "tips"], ["lit", 1]])
    found = labelled(predictions(1, 2), label, Labels({"Trips": trips}, {"pred_0": 1.0, "pred_1": 0.0}), now=9)
    assert found["y"].to_list() == [1.0, 0.0]


def test_an_event_of_another_source_is_positive_at_once_and_negative_only_after_its_window() -> None:
    events = pl.DataFrame({"payment": ["0", "2"], "_event_time": [5 * HOUR, 3 * DAY]})
    label = LabelSpec(any=AnyLabelSpec(source="Chargebacks", on="payment", rows_on="id", within=2 * DAY))
    rows = predictions(HOUR, HOUR, HOUR)
    reader = Labels({"Chargebacks": events})
    early = labelled(rows, label, reader, now=DAY)
    assert early["y"].to_list() == [1.0, None, None]
    assert not early["mature"].any()
    late = labelled(rows, label, reader, now=4 * DAY)
    assert late["y"].to_list() == [1.0, 0.0, 0.0]  # the event on the third day came after the window
    assert late["mature"].all()


def test_a_key_that_is_personal_is_compared_as_it_was_sealed() -> None:
    personal = SourceSpec(
        name="Trips",
        columns=(ColumnSpec(name="id", type="string", pii=True), ColumnSpec(name="tips", type="float")),
        event_time="at",
        key=("id",),
    )
    rows = predictions(1).with_columns(key=pl.lit('{"id": "pii:7"}'))
    trips = pl.DataFrame({"id": ["7"], "tips": [2.0], "_event_time": [1]})
    label = LabelSpec(expr=["gt", ["col", "Trips", "tips"], ["lit", 1]])
    assert labelled(rows, label, Labels({"Trips": trips}), now=9, source=personal)["y"].to_list() == [1.0]
    rows = predictions(1).with_columns(key=pl.lit(None, pl.String), inputs=pl.lit('{"id": "pii:7"}'))
    events = pl.DataFrame({"payment": ["7"], "_event_time": [2]})
    other = LabelSpec(any=AnyLabelSpec(source="Chargebacks", on="payment", rows_on="id", within=DAY))
    assert labelled(rows, other, Labels({"Chargebacks": events}), now=9, source=personal)["y"].to_list() == [1.0]


def test_classes_are_scored_by_their_position() -> None:
    task = TaskSpec(kind="multiclass", classes=("a", "b"))
    rows = predictions(1, 2, 3).with_columns(
        y=pl.Series(["a", "b", "unheard of"]),
        mature=pl.lit(True),
        score=pl.Series([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]),
    )

    def best(task: TaskSpec, y: npt.NDArray[Any], values: npt.NDArray[np.float64]) -> dict[str, float | None]:
        return {"accuracy": float((values.argmax(axis=1) == y).mean()), "log_loss": None}

    assert score(rows, service="tip", task=task, metric="accuracy", metrics=best, rule=RULE)[0].value == 1.0


def test_only_mature_labels_are_scored_per_version_and_period() -> None:
    rows = predictions(1, 2, 3, DAY + 1).with_columns(
        y=pl.Series([1.0, 0.0, 1.0, 1.0]), mature=pl.Series([True, True, False, True])
    )
    first, second = score(rows, service="tip", task=TASK, metric="accuracy", metrics=accuracy, rule=RULE)
    assert (first.rows, first.matured, first.labelled, first.value) == (3, 2, 2, 0.5)
    assert first.mature_share == pytest.approx(2 / 3)
    assert (second.start, second.labelled, second.value) == (DAY, 1, None)  # one class alone has no verdict


def period(value: float | None, labels: int = 600, start: int = 0) -> QualityPeriod:
    return QualityPeriod(
        service="tip",
        version="tip/1",
        start=start,
        rows=labels,
        matured=labels,
        labelled=labels,
        metric="auc",
        value=value,
    )


def drop(periods: list[QualityPeriod], baseline: float | None = 0.9) -> bool | None:
    return quality_drop(periods, baseline=baseline, metric="auc", drop=0.03, rule=QualityRule()).dropped


def test_quality_drops_when_the_newest_period_with_enough_labels_is_worse() -> None:
    assert drop([period(0.86)]) is True
    assert drop([period(0.88)]) is False
    assert drop([period(0.80), period(0.89, start=DAY)]) is False
    assert drop([period(0.89), period(0.50, labels=40, start=DAY)]) is False


def test_without_enough_labels_or_a_baseline_nothing_is_said() -> None:
    assert drop([]) is None
    assert drop([period(None)]) is None
    assert drop([period(0.5, labels=499)]) is None
    assert drop([period(0.5)], baseline=None) is None


def test_of_a_loss_more_is_worse() -> None:
    worse = [QualityPeriod(**{**_fields(period(1.0)), "metric": "log_loss"})]
    verdict = quality_drop(worse, baseline=0.4, metric="log_loss", drop=0.1, rule=QualityRule())
    assert verdict.dropped is True
    assert verdict.loss == pytest.approx(0.6)


def _fields(of: QualityPeriod) -> dict[str, Any]:
    return {name: getattr(of, name) for name in QualityPeriod.__dataclass_fields__}
