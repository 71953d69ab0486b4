"""Promise 3: an id leads to all that made a prediction, and late labels find their way back to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from flyball.kernel.ids import digest
from flyball.kernel.layout import Layout
from flyball.kernel.times import DAY, HOUR, show_time
from flyball.storage.artifacts import LocalArtifacts
from flyball.testing import TestPlatform, platform
from tests.scenarios.market.project import market
from tests.scenarios.market.stream import NOW, history


@pytest.fixture(scope="module")
def running() -> Iterator[TestPlatform]:
    with platform(market(), at=NOW) as opened:
        payments, chargebacks = history()
        opened.load("Payments", payments)
        opened.load("Chargebacks", chargebacks)
        opened.train("chargeback")
        yield opened


def ask(running: TestPlatform, number: int, amount: float) -> dict[str, Any]:
    fields = {"id": f"asked-{number}", "card": "card-1", "shop": "shop-1", "kind": "chip", "amount": f"{amount:.2f}"}
    reply: dict[str, Any] = running.predict("chargeback", **fields)
    return reply


def test_an_id_leads_to_version_run_snapshot_features_code_and_facts(running: TestPlatform) -> None:
    reply = ask(running, 0, 12.5)
    receipt = running.prediction(reply["prediction_id"])
    (version,) = running.versions("chargeback")

    assert receipt["prediction"]["id"] == reply["prediction_id"]
    assert receipt["prediction"]["output"]["score"] == reply["score"]
    assert receipt["version"]["version"] == reply["version"] == version["version"]
    assert receipt["version"]["digest"] == version["digest"]
    assert len(version["digest"]) == 64
    run = running._control.run(receipt["run"]["id"])
    assert (run["run"], run["state"], run["model"]) == (version["run"], "succeeded", "chargeback")
    assert receipt["run"]["actor"] == "test"
    horizon = receipt["snapshot"]["horizon"]
    assert (horizon["Payments"]["rows"], horizon["Payments"]["lsn"]) == (300, 300)
    assert len(receipt["snapshot"]["digest"]) == 64
    names = {feature["name"] for feature in receipt["features"]}
    assert names == receipt["prediction"]["features"].keys()
    assert {view["name"] for view in receipt["views"]} == {"Card", "Shop", "CardAtShop"}
    bundle = LocalArtifacts(Layout(running._folder).artifacts).get(receipt["code"]["bundle"])
    assert digest(bundle) == receipt["code"]["bundle"], "the code that trained it is kept"
    assert receipt["code"]["environment"]["packages"].keys() >= {"lightgbm"}
    assert [fact["kind"] for fact in receipt["approvals"]][-1] == "rollout.start"
    for fact in receipt["approvals"]:
        assert {"actor", "at", "wall", "request_id", "before", "after"} <= fact.keys()


def test_labels_that_come_late_are_joined_by_the_predictions_id_and_by_the_events_key() -> None:
    with platform(market(), at=NOW) as running:
        payments, chargebacks = history()
        running.load("Payments", payments)
        running.load("Chargebacks", chargebacks)
        running.train("chargeback")
        draw = random.Random(1)
        asked = [(n, ask(running, n, draw.uniform(1, 300))) for n in range(60)]
        running.advance("6h")
        assert not any(p["matured"] for p in running.quality("chargeback")["periods"]), "the window has not ended"
        told = [{"prediction_id": reply["prediction_id"], "label": n % 2 == 0} for n, reply in asked[:20]]
        assert running.feedback(told)["accepted"] == 20
        at = running.clock.now() - HOUR
        returned = [{"payment": f"asked-{n}", "time": show_time(at)} for n, _ in asked[20:] if n % 3 == 0]
        running.push("Chargebacks", returned)
        running.advance(2 * DAY)
        period = next(p for p in running.quality("chargeback")["periods"] if p["rows"] == 60)
        assert (period["matured"], period["labelled"]) == (60, 60)
        rows = labelled(running)
        assert {n: rows[reply["prediction_id"]] for n, reply in asked[:20]} == {n: float(n % 2 == 0) for n in range(20)}
        assert {n: rows[reply["prediction_id"]] for n, reply in asked[20:]} == {
            n: float(n % 3 == 0) for n in range(20, 60)
        }


def labelled(running: TestPlatform) -> dict[str, float]:
    """The label that monitoring found for each prediction."""
    from flyball.define.compile import compile_project
    from flyball.monitoring.quality import Labelling, with_labels

    spec = compile_project(market())
    model = spec.model("chargeback")
    assert model.label is not None
    watch = running._control._watch
    by = Labelling(
        label=model.label,
        rows=spec.source("Payments"),
        other=spec.source("Chargebacks"),
        reader=watch._readers.labels,
        evaluate=watch._readers.evaluate,
        seal=watch._readers.seal,
    )
    now = running.clock.now()
    predictions = watch._readers.predictions.between("chargeback", 0, now)
    frame = with_labels(predictions, by, start=0, end=now, now=now)
    return {id: float(y) for id, y in frame.select("id", "y").iter_rows()}
