"""One room at a time: a model without features, features without a model, a batch, and one file with no project."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

import flyball as fb
from flyball.kernel.layout import Layout
from flyball.kernel.times import HOUR, show_time
from flyball.platform.ports import free_ports
from flyball.storage.lake import DeltaLake
from flyball.testing import platform
from tests.scenarios.live import PATIENCE
from tests.scenarios.market.project import Card, Payments, Shop, amount_against_usual, chargeback
from tests.scenarios.market.stream import NOW, history
from tests.serving.onnx_models import affine


def test_a_service_with_a_pretrained_model_and_no_features(tmp_path: Path) -> None:
    (tmp_path / "affine.onnx").write_bytes(affine())
    model = fb.Pretrained(tmp_path / "affine.onnx")
    with platform(fb.Project("score", services=[fb.Service("score", model=model)]), at=NOW) as running:
        assert running.predict("score", x=[1.0, 2.0])["prediction"] == {"y": [3.0, 5.0]}
        request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [0, 1, 2, 3]}]}
        answer = running._worker.infer("score", request)
        assert (answer["model_version"], answer["outputs"][0]["data"]) == ("1", [1.0, 3.0, 5.0, 7.0])
        (version,) = running.versions("affine")
        assert version["version"] == "affine/1"


def test_a_service_with_features_and_no_model() -> None:
    service = fb.Service("card-now", rows=Payments, features=[Card, Shop, amount_against_usual])
    with platform(fb.Project("features", services=[service]), at=NOW) as running:
        running.advance("1h")
        at = running.clock.now()
        row = {"card": "c", "shop": "s", "kind": "online", "holder": None}
        running.push(
            "Payments",
            [{**row, "id": f"p{n}", "amount": 10 * (n + 1), "time": show_time(at - HOUR // 2)} for n in (0, 1)],
        )
        running.advance("1m")
        reply = running.predict("card-now", card="c", shop=None, kind="chip", amount="30.00")
        values = reply["values"]
        assert (values["Card.payments_6h"], values["Card.amount_1d"], values["Card.online_6h"]) == (2, 30, 2)
        assert values["amount_against_usual"] == 2.0
        assert values["Shop.payments_1h"] == 0  # no shop was given: the default
        receipt = running.prediction(reply["prediction_id"])
        assert receipt["prediction"]["features"]["Card.amount_1d"] == 30


def test_a_batch_scores_new_rows_once_on_its_schedule() -> None:
    batch = fb.Batch("nightly", model=chargeback, rows=Payments, every="1d", output="scores")
    project = fb.Project("scoring", services=[fb.Service("chargeback", model=chargeback)], batches=[batch])
    with platform(project, at=NOW) as running:
        lake = DeltaLake(Layout(running._folder).lake)
        payments, chargebacks = history()
        running.load("Payments", payments)
        running.load("Chargebacks", chargebacks)
        running.train("chargeback")
        running.advance("31m")  # all of history is known by now
        running.advance("1d")
        assert lake.count("scores") == 300
        asked = [{name: row[name] for name in ("card", "shop", "kind", "amount")} for row in payments[:7]]
        answered = running.predict("chargeback", asked)
        at = show_time(running.clock.now())
        running.advance("1h")
        running.push("Payments", [{**row, "id": f"new-{n}", "time": at} for n, row in enumerate(payments[:7])])
        running.advance("1h")
        assert lake.count("scores") == 300, "nothing is scored before the day is over"
        running.advance("1d")

        scores = lake.scan("scores").collect()
        assert len(scores) == scores["_key"].n_unique() == 307
        assert set(scores["version"]) == {running.versions("chargeback")[0]["digest"]}
        keys = lake.scan("Payments").select("id", "_key").collect()
        by_id = dict(keys.join(scores, on="_key").select("id", "score").iter_rows())
        online = [reply["score"] for reply in answered]
        assert [by_id[f"new-{n}"] for n in range(7)] == pytest.approx(online, abs=1e-12), "as answered at that moment"
        runs = running._control.batch("nightly")["runs"]
        assert {run["state"] for run in runs if (run["result"] or {})["rows"]} == {"succeeded"}
        assert [run["result"]["skipped"] for run in runs if run["state"] == "stopped"] == ["no new rows in Payments"]
        assert set(scores["run"]) == {run["run"] for run in runs if run["state"] == "succeeded"}


@pytest.mark.slow
def test_one_onnx_file_is_served_with_no_project(tmp_path: Path) -> None:
    (tmp_path / "affine.onnx").write_bytes(affine())
    port = free_ports("127.0.0.1")["inference"]
    state = tmp_path / "state"
    command = [sys.executable, "-m", "flyball", "serve", str(tmp_path / "affine.onnx"), "--port", str(port)]
    process = subprocess.Popen([*command, "--state", str(state)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}/v2/models/affine"
        wait_for(f"{url}/ready", process)
        given = np.arange(4.0).reshape(2, 2)
        request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": given.ravel().tolist()}]}
        assert httpx.post(f"{url}/infer", json=request).status_code == 401
        token = Layout(state).token.read_text().strip()
        reply = httpx.post(f"{url}/infer", json=request, headers={"Authorization": f"Bearer {token}"})
        assert reply.json()["outputs"][0]["data"] == (2 * given + 1).ravel().tolist()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        output = process.stdout.read().decode() if process.stdout else ""
        if process.stdout:
            process.stdout.close()
        process.wait()
    assert f"curl {url}/infer" in output
    assert "Traceback" not in output


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "flyball serve ended"
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"{url} was not ready")
