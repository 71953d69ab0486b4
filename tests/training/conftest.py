"""A small project, its training rows, and a ledger on SQLite."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from flyball.define.spec import ColumnSpec, FeatureSpec, ModelSpec, ProjectSpec, SourceSpec, SplitSpec, TaskSpec
from flyball.storage.metadata.database import METADATA, open_database
from flyball.storage.metadata.training import SqlRunStore

TRIPS = SourceSpec(
    name="Trips",
    columns=(
        ColumnSpec(name="driver", type="string", pii=True),
        ColumnSpec(name="fare", type="float"),
        ColumnSpec(name="payment", type="category", categories=("cash", "card", "other")),
        ColumnSpec(name="time", type="timestamp"),
    ),
    event_time="time",
)
MODEL = ModelSpec(
    name="tip",
    task=TaskSpec(kind="binary"),
    rows="Trips",
    features=(
        FeatureSpec(name="fare", expr=["col", "Trips", "fare"]),
        FeatureSpec(
            name="payment", expr=["col", "Trips", "payment"], type="category", categories=TRIPS.columns[2].categories
        ),
        FeatureSpec(name="usual", expr=["view", "Drivers", "fare_mean", ["driver"]]),
    ),
    split=SplitSpec(test=0.25),
    module="taxi",
    function="tip",
)
PROJECT = ProjectSpec(name="taxi", sources=(TRIPS,), models=(MODEL,), secrets=("DB_PASSWORD",))


@dataclass(frozen=True)
class Rows:
    """A training set as the features room gives it."""

    frame: pl.DataFrame
    X: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    t: npt.NDArray[np.int64]
    features: tuple[str, ...]
    digest: str = "0" * 64
    inexact: int = 0
    pins: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


def make_rows(count: int = 200, seed: int = 0) -> Rows:
    """The label depends on the fare, the payment and the usual fare; one value in ten of `usual` is null."""
    random = np.random.default_rng(seed)
    fare = random.gamma(2.0, 8.0, count)
    payment = random.integers(0, 3, count).astype(np.float64)
    usual = np.where(random.random(count) < 0.1, np.nan, random.gamma(2.0, 8.0, count))
    logit = (payment == 1) * 2 - 1 + (fare - np.nan_to_num(usual, nan=16.0)) / 10
    y = (random.random(count) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    X = np.column_stack([fare, payment, usual])
    t = np.arange(count, dtype=np.int64) * 1_000_000
    columns: dict[str, Any] = {"driver": [f"driver-{i}@example" for i in range(count)], "time": t, "label": y}
    frame = pl.DataFrame(columns | {"fare": fare, "payment": payment, "usual": usual})
    return Rows(frame=frame, X=X, y=y, t=t, features=("fare", "payment", "usual"))


@pytest.fixture
def rows() -> Rows:
    return make_rows()


@pytest.fixture
def run_store(tmp_path: Path) -> SqlRunStore:
    engine = open_database(tmp_path / "metadata.sqlite")
    METADATA.create_all(engine)
    return SqlRunStore(engine)
