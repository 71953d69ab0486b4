"""The core of a worker: routing, scoring, failing, and the receipt of every reply."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyball.engines.runtimes import open_runtime
from flyball.kernel.errors import (
    ConflictError,
    ExhaustedError,
    InvalidError,
    LateError,
    NotFoundError,
)
from flyball.serving import service, trees
from flyball.serving.manifest import Manifest
from flyball.serving.ports import Runtime
from flyball.serving.replies import outcomes, reply_data
from flyball.serving.request import Ask
from flyball.serving.tensors import rows_of
from tests.serving.support import (
    NOW,
    SECRET,
    Bench,
    FailingRuntime,
    booster_text,
    fraud_manifest,
    payment,
    plan,
    tree_version,
    write_version,
)


def test_a_reply_carries_its_receipt_and_was_logged(bench: Bench, tmp_path: Path) -> None:
    bench.worker.load_plan(plan({"fraud/7": tree_version(tmp_path)}, key=["payment"]))
    reply = bench.worker.predict("fraud", [payment(90.0, payment="x1", note="not read by the model")])[0]
    expected = trees.parse(booster_text()).predict(np.array([[90.0, 0.0]]))[0]
    assert reply["score"] == expected
    assert reply["prediction"] is bool(expected >= 0.5)
    assert {key: reply[key] for key in ("service", "version", "arm", "rung", "features", "at")} == {
        "service": "fraud",
        "version": "fraud/7",
        "arm": "stable",
        "rung": "model",
        "features": "fresh",
        "at": NOW,
    }
    (record,) = bench.records()
    assert record["id"] == reply["prediction_id"]
    assert record["output"] == {"prediction": reply["prediction"], "score": expected}
    assert record["key"] == {"payment": "x1"}
    assert record["inputs"] == {"amount": 90.0, "channel": "web", "card": None, "payment": "x1"}
    assert record["features"] == {"amount": 90.0, "channel": 0.0}
    assert (record["lsn"], record["propensity"], record["error"]) == ({"Payments": 7}, 1.0, None)


def test_requests_of_one_tick_share_a_batch_and_get_their_own_replies(bench: Bench, tmp_path: Path) -> None:
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}))
    asks = [Ask(service="fraud", rows=[payment(float(i)), payment(float(i + 50))]) for i in range(5)]
    nobody = Ask(service="nothing", rows=[payment()])
    bench.worker.answer([*asks, nobody])
    assert bench.features.batches == [10]
    assert isinstance(nobody.error, NotFoundError)
    results = [[reply_data(outcome) for outcome in outcomes(ask)] for ask in asks]
    ids = [reply["prediction_id"] for replies in results for reply in replies]
    assert len(set(ids)) == 10
    assert [record["id"] for record in bench.records()] == ids
    model = trees.parse(booster_text())
    for i, replies in enumerate(results):
        expected = model.predict(np.array([[float(i), 0.0], [float(i + 50), 0.0]]))
        assert [reply["score"] for reply in replies] == expected.tolist()


def test_weights_split_traffic_and_a_key_stays_with_its_version(bench: Bench, tmp_path: Path) -> None:
    versions = {"fraud/1": tree_version(tmp_path), "fraud/2": tree_version(tmp_path, 1)}
    bench.worker.load_plan(plan(versions, weights={"fraud/1": 9_000, "fraud/2": 1_000}, key=["payment"]))
    rows = [payment(payment=f"p{i}") for i in range(2_000)]
    before = bench.worker.predict("fraud", rows)
    counts = Counter(reply["version"] for reply in before)
    assert 140 < counts["fraud/2"] < 260
    assert {record["propensity"] for record in bench.records() if record["arm"] == "canary"} == {0.1}
    bench.worker.load_plan(plan(versions, weights={"fraud/1": 7_500, "fraud/2": 2_500}, key=["payment"], epoch=2))
    after = bench.worker.predict("fraud", rows)
    left = [a for b, a in zip(before, after, strict=True) if b["version"] == "fraud/2" and a["version"] == "fraud/1"]
    assert left == []


def test_one_bad_row_fails_alone(tmp_path: Path) -> None:
    runtimes: list[FailingRuntime] = []

    def failing(kind: str, folder: Path, manifest: Manifest) -> Runtime:
        runtimes.append(FailingRuntime(open_runtime(kind, folder, manifest)))
        return runtimes[-1]

    bench = Bench(tmp_path, runtime=failing)
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}))
    replies = bench.worker.predict("fraud", [payment(66.0 if i == 5 else 20.0 + i) for i in range(16)])
    assert [i for i, reply in enumerate(replies) if "error" in reply] == [5]
    assert replies[5]["error"]["code"] == "model_failed"
    assert "66" not in str(replies[5])
    records = bench.records()
    assert [record["error"] for record in records if record["error"]] == [{"code": "model_failed", "kind": "internal"}]
    assert len(records) == 16
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}, epoch=2, default=0.7))
    fallback = bench.worker.predict("fraud", [payment(66.0)])[0]
    assert (fallback["rung"], fallback["prediction"], fallback["score"]) == ("default", True, 0.7)
    assert bench.records()[-1]["error"]["code"] == "model_failed"
    bench.log.close()


def test_features_that_cannot_be_read_give_the_default_or_an_error(bench: Bench, tmp_path: Path) -> None:
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}, default=0.1))
    bench.features.broken = True
    assert bench.worker.predict("fraud", [payment()])[0]["rung"] == "default"
    bench.features.broken = False
    assert bench.worker.predict("fraud", [payment(13), payment()])[0]["error"]["code"] == "too_old"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"channel": "web"}, "missing_field"),
        ({"amount": "ten", "channel": "web"}, "bad_field"),
        ({"amount": 1, "channel": "telephone"}, "bad_field"),
        ({"amount": 1, "channel": "web", "amonut": 1}, "unknown_field"),
        ({"amount": 1, "channel": "web", "card": ["4111"]}, "bad_field"),
        ([1, 2], "bad_rows"),
    ],
)
def test_a_senders_mistake_is_named_and_is_not_the_versions(bench: Bench, tmp_path: Path, row: Any, code: str) -> None:
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}, default=0.1))
    replies = bench.worker.predict("fraud", [row, payment()])
    assert replies[0]["error"]["code"] == code
    assert replies[1]["rung"] == "model"
    assert len(bench.records()) == 1
    assert "4111" not in str(replies)


def test_no_pii_value_reaches_the_log(bench: Bench, tmp_path: Path) -> None:
    features = [
        *fraud_manifest()["features"],
        {"name": "card_is", "expr": ["eq", ["col", "Payments", "card"], ["lit", "x"]]},
    ]
    version = tree_version(tmp_path)
    bench.worker.load_plan(plan({"fraud/1": version}, key=["card"], pii=["card"]))
    first, second, _ = bench.worker.predict(
        "fraud", [payment(card=SECRET), payment(20.0, card=SECRET), payment(card="5500")]
    )
    assert first["prediction_id"] != second["prediction_id"]
    segment = next((bench.root / "0").glob("*.log")).read_bytes()
    assert SECRET.encode() not in segment
    one, two, three = bench.records()
    assert one["inputs"]["card"] == two["inputs"]["card"] == one["key"]["card"] != three["inputs"]["card"]
    assert one["inputs"]["card"].startswith("pii:")
    from flyball.serving.manifest import manifest_from_data
    from flyball.serving.records import Privacy

    privacy = Privacy.of(manifest_from_data(fraud_manifest(features=features)), ["card"])
    assert privacy.features == {"card_is"}


def test_a_view_over_a_pii_column_shows_it_however_it_is_spelled() -> None:
    from flyball.serving.manifest import manifest_from_data
    from flyball.serving.records import Privacy

    source = {
        "name": "Payments",
        "columns": [{"name": "ssn", "type": "integer", "pii": True}, {"name": "card", "type": "string"}],
        "event_time": "time",
        "key": ["card"],
    }
    number = ["col", "Payments", "ssn"]
    aggregates = [
        {"name": "plain", "op": "last", "value": number, "window": 10, "hop": 1},
        {"name": "spelled", "op": "max", "value": ["add", number, ["lit", 0]], "window": 10, "hop": 1},
        {"name": "counted", "op": "count", "window": 10, "hop": 1},
    ]
    view = {"name": "Card", "kind": "window", "source": "Payments", "entity": ["card"], "aggregates": aggregates}
    features = [{"name": a["name"], "expr": ["view", "Card", a["name"], ["card"]]} for a in aggregates]
    manifest = manifest_from_data(fraud_manifest(sources=[source], views=[view], features=features))
    assert Privacy.of(manifest, []).features == {"plain", "spelled"}


def test_a_plan_that_cannot_be_loaded_leaves_what_was_served(bench: Bench, tmp_path: Path) -> None:
    good = tree_version(tmp_path)
    bench.worker.load_plan(plan({"fraud/1": good}))
    bad = tree_version(tmp_path, 1)
    (bad[1] / "model.txt").write_text("tampered")
    with pytest.raises(ConflictError, match=r"model\.txt") as caught:
        bench.worker.load_plan(plan({"fraud/2": bad}, epoch=2))
    assert caught.value.code == "version_corrupt"
    with pytest.raises(InvalidError, match="sum to 10000"):
        bench.worker.load_plan(plan({"fraud/1": good}, weights={"fraud/1": 9_999}, epoch=3))
    with pytest.raises(InvalidError, match="digest"):
        bench.worker.load_plan(plan({"fraud/1": good}, epoch=4) | {"digest": "0" * 64})
    assert bench.worker.predict("fraud", [payment()])[0]["version"] == "fraud/1"
    assert bench.worker.status()["epoch"] == 1
    kept = plan({"fraud/1": good, "fraud/2": bad}, epoch=5)  # only kept warm: its loss harms nobody
    bench.worker.load_plan(kept)
    assert bench.worker.status()["versions"] == ["fraud/1"]


def test_a_version_that_stays_is_not_loaded_again(tmp_path: Path) -> None:
    opened: list[str] = []

    def counting(kind: str, folder: Path, manifest: Manifest) -> Runtime:
        opened.append(folder.name)
        return open_runtime(kind, folder, manifest)

    bench = Bench(tmp_path, runtime=counting)
    versions = {"fraud/1": tree_version(tmp_path), "fraud/2": tree_version(tmp_path, 1)}
    bench.worker.load_plan(plan({"fraud/1": versions["fraud/1"]}))
    bench.worker.load_plan(plan(versions, epoch=2))
    bench.worker.load_plan(plan(versions, epoch=2))
    assert opened == [versions["fraud/1"][0], versions["fraud/2"][0]]
    bench.log.close()


def test_nothing_is_answered_that_could_not_be_logged(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}))

    def full(records: Any, *, durable: bool = False) -> None:
        raise ExhaustedError("the disk is full", code="disk_full")

    monkeypatch.setattr(bench.log, "write", full)
    replies = bench.worker.predict("fraud", [payment(), {}])
    assert [reply["error"]["code"] for reply in replies] == ["disk_full", "missing_field"]


def test_a_request_that_waited_past_its_deadline_is_refused(bench: Bench, tmp_path: Path) -> None:
    import time

    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}, deadline_us=1_000))
    late = Ask(service="fraud", rows=[payment()], arrived=time.monotonic() - 1)
    bench.worker.answer([late])
    assert isinstance(late.error, LateError)


def test_a_request_for_the_future_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}))
    with pytest.raises(InvalidError, match="ahead of"):
        bench.worker.predict("fraud", [payment()], at=NOW + 1)
    assert bench.worker.predict("fraud", [payment()], at=NOW - 5)[0]["at"] == NOW - 5


def test_a_version_can_be_asked_for_by_its_number(bench: Bench, tmp_path: Path) -> None:
    versions = {"fraud/1": tree_version(tmp_path), "fraud/2": tree_version(tmp_path, 1)}
    bench.worker.load_plan(plan(versions))
    assert bench.worker.predict("fraud", [payment()], version="2")[0]["version"] == "fraud/2"
    with pytest.raises(NotFoundError, match="'9'"):
        bench.worker.predict("fraud", [payment()], version="9")


def test_features_without_a_model_are_the_answer(bench: Bench, tmp_path: Path) -> None:
    version = write_version(tmp_path, {}, **fraud_manifest(runtime={"kind": "none"}, task=None))
    bench.worker.load_plan(plan({"fraud/1": version}))
    reply = bench.worker.predict("fraud", [payment(5.0)])[0]
    assert (reply["prediction"], reply["values"]) == (None, {"amount": 5.0, "channel": 0.0})


def test_infer_takes_one_tensor_a_field(bench: Bench, tmp_path: Path) -> None:
    bench.worker.load_plan(plan({"fraud/3": tree_version(tmp_path)}))
    request = {
        "id": "42",
        "inputs": [
            {"name": "amount", "datatype": "FP64", "shape": [2], "data": [90.0, 10.0]},
            {"name": "channel", "datatype": "BYTES", "shape": [2, 1], "data": [["web"], ["shop"]]},
        ],
        "outputs": [{"name": "score"}, {"name": "prediction_id"}],
    }
    reply = bench.worker.infer("fraud", request)
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("fraud", "3", "42")
    expected = trees.parse(booster_text()).predict(np.array([[90.0, 0.0], [10.0, 1.0]]))
    assert reply["outputs"][0]["data"] == expected.tolist()
    assert reply["outputs"][1]["data"] == [record["id"] for record in bench.records()]


def test_infer_is_answered_by_one_plan_where_another_is_loaded_meanwhile(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tree_version(tmp_path), tree_version(tmp_path, 1)
    bench.worker.load_plan(plan({"fraud/3": old}))

    def switch(*arguments: Any) -> Any:
        bench.worker.load_plan(plan({"fraud/4": new}, epoch=2))
        return rows_of(*arguments)

    monkeypatch.setattr(service, "rows_of", switch)
    request = {
        "inputs": [
            {"name": "amount", "datatype": "FP64", "shape": [1], "data": [90.0]},
            {"name": "channel", "datatype": "BYTES", "shape": [1], "data": ["web"]},
        ]
    }
    assert bench.worker.infer("fraud", request)["model_version"] == "3"
    assert [r["version"] for r in bench.records()] == ["fraud/3"]


def test_the_model_may_not_answer_with_what_is_no_number(tmp_path: Path) -> None:
    class NotFinite(FailingRuntime):
        def predict(self, matrix: Any) -> Any:
            score = self.inner.predict(matrix)
            return np.where(matrix[:, 0] == 66, np.nan, score)

    bench = Bench(tmp_path, runtime=lambda kind, folder, manifest: NotFinite(open_runtime(kind, folder, manifest)))
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}))
    replies = bench.worker.predict("fraud", [payment(1.0), payment(66.0)])
    assert "score" in replies[0]
    assert replies[1]["error"]["code"] == "bad_scores"
    bench.log.close()
