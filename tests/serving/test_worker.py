"""The wired worker: features from online state, and what it does while that state is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball.define.spec import AggregateSpec, FeatureSpec, ViewSpec
from flyball.features.writer import OnlineWriter
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import DeniedError, NotFoundError
from flyball.kernel.layout import Layout
from flyball.kernel.times import HOUR, MINUTE, hop
from flyball.serving.log import PredictionReader, PredictionWriter
from flyball.serving.service import Worker
from flyball.storage.online import LmdbStore, MemoryStore
from flyball.worker import WorkerSettings, build_worker, prepare_model
from tests.serving.support import COLUMNS, NOW, SOURCE, fraud_manifest, plan, write_version

VIEW = ViewSpec(
    name="Card",
    kind="window",
    source="Payments",
    entity=("card",),
    aggregates=(
        AggregateSpec(name="n", op="count", window=HOUR, hop=hop(HOUR)),
        AggregateSpec(name="total", op="sum", value=["col", "Payments", "amount"], window=HOUR, hop=hop(HOUR)),
        AggregateSpec(
            name="largest", op="max", value=["col", "Payments", "amount"], window=HOUR, hop=hop(HOUR), default=-1.0
        ),
    ),
)
FEATURES = (
    FeatureSpec(name="amount", expr=["col", "Payments", "amount"]),
    FeatureSpec(name="n", expr=["view", "Card", "n", ["card"]]),
    FeatureSpec(name="total", expr=["view", "Card", "total", ["card"]]),
    FeatureSpec(name="largest", expr=["view", "Card", "largest", ["card"]]),
)


class NoHistory:
    def events(self, source: str, columns: Any, *, through_lsn: int | None) -> pl.DataFrame:
        return frame([])


def frame(events: list[tuple[int, str, int]]) -> pl.DataFrame:
    """(time, card, amount in cents) as a physical frame; LSNs from 1."""
    rows = [
        {
            "amount": cents,
            "channel": "web",
            "card": card,
            "payment": str(i),
            "note": "",
            "_event_time": at,
            "_known_at": at,
            "_lsn": i + 1,
            "_key": i.to_bytes(16, "big"),
        }
        for i, (at, card, cents) in enumerate(events)
    ]
    schema: dict[str, Any] = {"amount": pl.Int64, "channel": pl.String, "card": pl.String, "payment": pl.String}
    schema |= {"note": pl.String, "_event_time": pl.Int64, "_known_at": pl.Int64, "_lsn": pl.Int64, "_key": pl.Binary}
    return pl.DataFrame(rows, schema=schema)


EVENTS = [(NOW - 2 * HOUR, "x", 100), (NOW - 5 * MINUTE, "x", 250), (NOW - 1, "x", 1_999), (NOW, "x", 1)]


def wired(tmp_path: Path, store: Any) -> tuple[Worker, PredictionWriter]:
    layout = Layout(tmp_path / "state")
    layout.create()
    log = PredictionWriter(layout.predictions / "0")
    worker = build_worker(layout, log=log, clock=ManualClock(NOW), store=store)
    manifest = fraud_manifest(
        runtime={"kind": "none"},
        task=None,
        features=[spec.to_data() for spec in FEATURES],
        views=[VIEW.to_data()],
        inputs=[column.to_data() for column in COLUMNS],
    )
    worker.load_plan(plan({"fraud/1": write_version(tmp_path, {}, **manifest)}))
    return worker, log


def written(store: Any) -> Any:
    writer = OnlineWriter(store, ManualClock(NOW), NoHistory())
    writer.load_plan([SOURCE], [VIEW])
    writer.apply("Payments", frame(EVENTS))
    return store


def row(amount: Any = "12.45", card: str | None = "x") -> dict[str, Any]:
    return {"amount": amount, "channel": "web", "card": card}


def test_features_are_read_from_online_state_and_their_lsn_is_logged(tmp_path: Path) -> None:
    worker, log = wired(tmp_path, written(MemoryStore()))
    known, nobody, bad = worker.predict("fraud", [row(), row(12, None), row("12.453")])
    assert known["values"] == {"amount": 12.45, "n": 2.0, "total": 22.49, "largest": 19.99}
    assert nobody["values"] == {"amount": 12.0, "n": 0.0, "total": 0.0, "largest": -1.0}
    assert bad["error"]["code"] == "bad_field"
    assert known["features"] == "fresh"
    log.close()
    records = PredictionReader(tmp_path / "state" / "predictions").read("0", "00000001.log", 0).records
    assert [record["lsn"] for record in records] == [{"Payments": 4}] * 2
    assert records[0]["known_through"] == {"Payments": NOW}
    assert records[0]["inputs"]["card"].startswith("pii:")


def test_without_online_state_views_answer_their_defaults_and_say_so(tmp_path: Path) -> None:
    worker, log = wired(tmp_path, None)
    reply = worker.predict("fraud", [row()])[0]
    assert reply["features"] == "default"
    assert reply["values"] == {"amount": 12.45, "n": 0.0, "total": 0.0, "largest": -1.0}
    store = written(LmdbStore(tmp_path / "state" / "online"))
    store.close()
    fresh = worker.predict("fraud", [row()])[0]  # the state came: it is opened now
    assert (fresh["features"], fresh["values"]["n"]) == ("fresh", 2.0)
    log.close()


def test_a_time_that_state_does_not_reach_back_to_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    events = [(NOW - 2 * HOUR + i, "x", 100) for i in range(5)] + [(NOW - i, "x", 100) for i in range(3, 0, -1)]
    writer = OnlineWriter(store, ManualClock(NOW), NoHistory())
    writer.load_plan([SOURCE], [VIEW])
    writer.apply("Payments", frame(events))
    worker, log = wired(tmp_path, store)
    late = worker.predict("fraud", [row()], at=NOW - HOUR)[0]
    assert late.get("error", {}).get("code") == "at_too_old"
    assert worker.predict("fraud", [row()])[0]["features"] == "fresh"
    log.close()


def test_a_wide_address_is_refused_and_a_missing_file_named(tmp_path: Path) -> None:
    with pytest.raises(DeniedError, match="loopback"):
        WorkerSettings(state=tmp_path, host="0.0.0.0")
    with pytest.raises(NotFoundError, match=r"nothing\.onnx"):
        prepare_model(tmp_path / "nothing.onnx", tmp_path)
