from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from flyball.define.spec import (
    AnyLabelSpec,
    ColumnSpec,
    FeatureSpec,
    LabelSpec,
    LatestSpec,
    ModelSpec,
    ProjectSpec,
    SourceSpec,
    TaskSpec,
    ViewSpec,
)
from flyball.features.online import OnlineReader
from flyball.features.serving import FeatureServer
from flyball.features.training_set import TrainingSet, build
from flyball.features.writer import OnlineWriter
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND
from flyball.storage.online import MemoryStore
from tests.features.cases import aggregate

PAYMENTS = SourceSpec(
    name="Payments",
    event_time="at",
    columns=(
        ColumnSpec(name="id", type="integer"),
        ColumnSpec(name="payer", type="string"),
        ColumnSpec(name="payee", type="string", nullable=True),
        ColumnSpec(name="amount", type="decimal", scale=2, nullable=True),
        ColumnSpec(name="kind", type="category", categories=("a", "b")),
    ),
)
CHARGEBACKS = SourceSpec(
    name="Chargebacks",
    event_time="at",
    columns=(ColumnSpec(name="payment", type="integer"), ColumnSpec(name="fraud", type="boolean")),
)
_TYPES: dict[str, Any] = {"string": pl.String, "category": pl.String, "boolean": pl.Boolean}


def col(name: str) -> list[Any]:
    return ["col", "Payments", name]


OUT = ViewSpec(
    name="Out",
    kind="window",
    source="Payments",
    entity=("payer",),
    aggregates=(
        aggregate("n_1h", "count", "1h"),
        aggregate("total_7d", "sum", "7d", col("amount")),
        aggregate("mean_1d", "mean", "1d", col("amount"), ["eq", col("kind"), ["lit", "a"]]),
    ),
)
LAST = ViewSpec(
    name="Last",
    kind="latest",
    source="Payments",
    entity=("payer",),
    latest=(LatestSpec(name="kind", column="kind", type="category", categories=("a", "b")),),
)


def view(name: str, feature: str, by: str) -> list[Any]:
    return ["view", name, feature, [by]]


FEATURES = (
    FeatureSpec(name="n_1h", expr=view("Out", "n_1h", "payer")),
    FeatureSpec(name="total_7d", expr=view("Out", "total_7d", "payer")),
    FeatureSpec(name="received", expr=view("Out", "n_1h", "payee")),
    FeatureSpec(name="against_usual", expr=["div", col("amount"), view("Out", "mean_1d", "payer")]),
    FeatureSpec(name="kind", expr=col("kind"), type="category", categories=("a", "b")),
    FeatureSpec(name="last_kind", expr=view("Last", "kind", "payer"), type="category", categories=("a", "b")),
    FeatureSpec(name="same_kind", expr=["eq", col("kind"), view("Last", "kind", "payer")], type="boolean"),
    FeatureSpec(name="hour", expr=["hour", ["time"]]),
)
BIG = LabelSpec(expr=["gt", col("amount"), ["lit", 5.0]], matures=HOUR)
PROJECT = ProjectSpec(name="p", sources=(PAYMENTS, CHARGEBACKS), views=(OUT, LAST))


def model(label: LabelSpec | None = BIG, task: TaskSpec | None = None, rows: str = "Payments") -> ModelSpec:
    return ModelSpec(name="m", task=task or TaskSpec(kind="binary"), rows=rows, label=label, features=FEATURES)


def frame(source: SourceSpec, rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    """Rows of (event_time, known_at, columns…); LSNs from 1."""
    schema = {"_event_time": pl.Int64, "_known_at": pl.Int64}
    schema |= {c.name: _TYPES.get(c.type, pl.Int64) for c in source.columns}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("_lsn"),
        pl.Series("_key", [i.to_bytes(16, "big") for i in range(len(rows))], pl.Binary),
    )


class Lake:
    def __init__(self, **frames: pl.DataFrame) -> None:
        self.frames = frames

    def events(self, source: str, columns: Any, *, through_lsn: int | None) -> pl.DataFrame:
        found = self.frames.get(source, frame(PAYMENTS if source == "Payments" else CHARGEBACKS, []))
        return found if through_lsn is None else found.filter(pl.col("_lsn") <= through_lsn)


def payment(id: int, t: int, amount: int | None = 600, *, known: int | None = None, kind: str = "a") -> tuple[Any, ...]:
    return (t, t if known is None else known, id, "x", None, amount, kind)


def trained(payments: Sequence[tuple[Any, ...]], *, at: int, m: ModelSpec | None = None, **more: Any) -> TrainingSet:
    lake = Lake(Payments=frame(PAYMENTS, payments), **more.pop("lake", {}))
    return build(m or model(), PROJECT, lake, horizon=more.pop("horizon", {}), at=at, **more)


def test_rows_come_in_time_order_with_features_of_their_time_and_named_columns() -> None:
    made = trained([payment(2, 2 * MINUTE, 700, kind="b"), payment(1, MINUTE, 300), payment(3, 3 * MINUTE)], at=DAY)
    assert made.t.tolist() == [MINUTE, 2 * MINUTE, 3 * MINUTE]
    assert made.y.tolist() == [0.0, 1.0, 1.0]
    nan = np.nan
    np.testing.assert_array_equal(
        made.X,
        [
            [0, 0, 0, nan, 0, nan, nan, 0],
            [1, 3, 0, 7 / 3, 1, 0, 0, 0],
            [2, 10, 0, 2, 0, 1, 0, 0],
        ],
    )
    assert made.categorical == ("kind", "last_kind")
    assert made.frame["amount"].to_list() == [3.0, 7.0, 6.0]
    assert made.frame["last_kind"].to_list() == [None, "a", "b"]
    assert made.frame["n_1h"].to_list() == [0.0, 1.0, 2.0]
    assert made.frame["label"].to_list() == [0.0, 1.0, 1.0]
    assert made.keys[0] == (1).to_bytes(16, "big")


def test_a_feature_takes_the_place_of_a_column_of_its_name_in_the_frame() -> None:
    features = (
        FeatureSpec(name="amount", expr=["mul", col("amount"), ["lit", 1000]]),
        FeatureSpec(name="kind", expr=col("kind"), type="category", categories=("a", "b")),
        FeatureSpec(name="id", expr=col("id")),
    )
    made = trained([payment(1, 0, 550), payment(2, 1, 700, kind="b")], at=DAY, m=replace(model(), features=features))
    assert made.frame["amount"].to_list() == made.X[:, 0].tolist() == [5500.0, 7000.0]
    assert made.frame["kind"].to_list() == ["a", "b"]
    assert made.X[:, 1].tolist() == [0.0, 1.0]
    assert made.frame["id"].to_list() == made.X[:, 2].tolist() == [1.0, 2.0]
    assert made.frame.columns.count("amount") == 1


def test_a_column_named_label_gives_its_place_to_the_label() -> None:
    labelled = replace(PAYMENTS, columns=(*PAYMENTS.columns, ColumnSpec(name="label", type="boolean")))
    payments = frame(PAYMENTS, [payment(1, 0, 300), payment(2, 1)]).with_columns(label=pl.Series([True, False]))
    project = replace(PROJECT, sources=(labelled, CHARGEBACKS))
    told = model(LabelSpec(expr=col("label"), matures=HOUR))
    made = build(told, project, Lake(Payments=payments), horizon={}, at=DAY)
    assert made.frame["label"].to_list() == made.y.tolist() == [1.0, 0.0]


def test_a_label_that_is_not_mature_or_null_leaves_its_row_out() -> None:
    made = trained([payment(1, 0), payment(2, 1, None), payment(3, HOUR), payment(4, HOUR + 1)], at=2 * HOUR)
    assert made.frame["id"].to_list() == [1, 3]
    assert made.left_out == {"immature": 1, "null_label": 1}


def test_the_horizon_and_the_time_bound_what_is_seen() -> None:
    rows = [payment(1, 0), payment(2, 1), payment(3, 2, known=DAY + 1)]
    assert len(trained(rows, at=2 * DAY, horizon={"Payments": 2})) == 2
    assert len(trained(rows, at=DAY)) == 2
    assert len(trained(rows, at=2 * DAY)) == 3


def test_a_digest_names_the_rows_and_the_features() -> None:
    rows = [payment(1, 0), payment(2, 1)]
    first = trained(rows, at=DAY)
    assert first.digest == trained(rows, at=DAY).digest
    assert first.digest != trained(rows[:1], at=DAY).digest
    assert first.digest != trained([rows[0], payment(2, 1, 601)], at=DAY).digest


ANY = LabelSpec(
    any=AnyLabelSpec(
        source="Chargebacks", on="payment", rows_on="id", within=30 * DAY, where=["col", "Chargebacks", "fraud"]
    )
)


def chargeback(id: int, t: int, *, known: int | None = None, fraud: bool = True) -> tuple[Any, ...]:
    return (t, t if known is None else known, id, fraud)


def test_a_label_of_another_source_is_true_when_it_came_false_when_time_has_passed_and_unknown_between() -> None:
    payments = [payment(i, i * MINUTE) for i in range(1, 8)] + [payment(8, 39 * DAY), payment(9, 39 * DAY)]
    chargebacks = [
        chargeback(1, DAY),
        chargeback(2, 31 * DAY),  # too late to count
        chargeback(3, DAY, fraud=False),  # not what is asked for
        chargeback(4, 0),  # before its payment
        chargeback(5, DAY, known=50 * DAY),  # nobody knows yet
        chargeback(6, 6 * MINUTE),  # at once
        chargeback(7, 7 * MINUTE + 30 * DAY),  # on the last instant
        chargeback(8, 39 * DAY + 1),  # known early
    ]
    made = trained(payments, at=40 * DAY, m=model(ANY), lake={"Chargebacks": frame(CHARGEBACKS, chargebacks)})
    assert dict(zip(made.frame["id"].to_list(), made.y.tolist(), strict=True)) == {
        1: 1.0,
        2: 0.0,
        3: 0.0,
        4: 0.0,
        5: 0.0,
        6: 1.0,
        7: 1.0,
        8: 1.0,
    }
    assert made.left_out == {"immature": 1, "null_label": 0}


def test_a_row_is_not_labelled_by_itself() -> None:
    again = LabelSpec(any=AnyLabelSpec(source="Payments", on="payer", rows_on="payer", within=HOUR))
    made = trained([payment(1, 0), payment(2, HOUR), payment(3, 3 * HOUR)], at=DAY, m=model(again))
    assert made.y.tolist() == [1.0, 0.0, 0.0]


def test_classes_are_positions_and_numbers_stay_numbers() -> None:
    rows = [payment(1, 0), payment(2, 1, kind="b")]
    multi = model(LabelSpec(expr=col("kind")), TaskSpec(kind="multiclass", classes=("b", "a")))
    assert trained(rows, at=DAY, m=multi).y.tolist() == [1.0, 0.0]
    regression = model(LabelSpec(expr=col("amount")), TaskSpec(kind="regression"))
    assert trained(rows, at=DAY, m=regression).y.tolist() == [6.0, 6.0]
    with pytest.raises(InvalidError) as error:
        trained(rows, at=DAY, m=model(LabelSpec(expr=col("kind")), TaskSpec(kind="regression")))
    assert error.value.code == "text_label"


def test_an_empty_lake_gives_an_empty_set() -> None:
    made = trained([], at=DAY)
    assert (len(made), made.X.shape) == (0, (0, len(FEATURES)))


def test_what_cannot_be_trained_is_said() -> None:
    for wrong, code in ((model(None), "no_label"), (model(rows="Nothing"), "no_rows")):
        with pytest.raises(InvalidError) as error:
            trained([], at=DAY, m=wrong)
        assert error.value.code == code


def replay(n: int) -> tuple[pl.DataFrame, np.ndarray[Any, Any]]:
    """A live stream whose events are committed late; each payment is also a request, served at its own time."""
    rng = np.random.default_rng(7)
    t = np.sort(rng.integers(0, 2 * DAY // MINUTE, n)) * MINUTE + 1_700_000_000 * SECOND
    known = t + np.minimum(rng.lognormal(3, 3, n), 86_400).astype(np.int64) * SECOND
    people = [f"p{k}" for k in rng.zipf(1.5, n) % 30]
    others = [None if k == 0 else f"p{k}" for k in rng.integers(0, 30, n)]
    order = np.lexsort((t, known))  # the order of commits, which is the order of LSNs
    rows = [
        (int(t[i]), int(known[i]), int(i), people[i], others[i], int(rng.integers(1, 2000)), "ab"[int(i) % 2])
        for i in order
    ]
    log = frame(PAYMENTS, rows)
    clock, store = ManualClock(int(t[0])), MemoryStore()
    writer = OnlineWriter(store, clock, Lake())
    writer.load_plan([PAYMENTS], [OUT, LAST])
    server = FeatureServer(
        FEATURES, [OUT, LAST], [PAYMENTS], rows="Payments", columns=PAYMENTS.columns, reader=OnlineReader(store)
    )
    matrix, committed = np.empty((n, len(FEATURES))), 0
    commits = log["_known_at"].to_numpy()
    for i, row in enumerate(log.sort("_event_time", "_lsn").iter_rows(named=True)):
        at = row["_event_time"]
        clock.advance_to(at)
        upto = int(np.searchsorted(commits, at, side="right"))
        writer.apply("Payments", log.slice(committed, upto - committed))
        committed = upto
        served = server.compute([row | {"amount": row["amount"] / 100}], at)
        assert served.exact.all()
        assert not served.errors
        assert served.lsn == {"Payments": committed}
        matrix[i] = served.matrix[0]
    return log, matrix


def test_what_was_served_is_what_is_trained_on() -> None:
    log, served = replay(800)
    lake, at = Lake(Payments=log), int(log["_known_at"].max()) + DAY  # type: ignore[arg-type]
    made = build(model(), PROJECT, lake, horizon={}, at=at)
    assert len(made) == 800
    assert made.inexact == 0
    np.testing.assert_array_equal(made.X, served)
    naive = build(model(), PROJECT, lake, horizon={}, at=at, asof="event")
    differ = ~((served == naive.X) | (np.isnan(naive.X) & np.isnan(served)))
    assert differ.any(axis=1).sum() > 100  # what ignoring lateness would have cost
