"""The inference routes over a real socket: named-entity predict, the Open Inference Protocol, tokens, metrics."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvloop

from flyball.http.access import token_digest
from flyball.http.inference import InferenceApp
from flyball.http.metrics import InferenceMetrics
from flyball.http.outlet import Outlet
from flyball.http.routes import routes_of
from flyball.http.server import Server, start
from flyball.serving import trees
from flyball.serving.observing import Counting
from tests.serving.onnx_models import affine
from tests.serving.support import NOW, Bench, booster_text, payment, plan, tree_version, write_version

TOKEN = "a-token"
TOKENS = {token_digest(TOKEN): ["predict", "read"], token_digest("reader"): ["read"]}
HEADERS: dict[str, str] = {"authorization": f"Bearer {TOKEN}"}


class Running:
    """A worker's application on a server in a thread of its own."""

    def __init__(self, root: Path) -> None:
        self.bench = Bench(root)
        self.metrics = InferenceMetrics()
        self.not_ready = ""
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.client = httpx.Client(base_url=self.url, headers=HEADERS)

    async def _start(self) -> Server:
        worker = self.bench.worker
        worker._observer = Counting(self.metrics.counters)
        outlet = Outlet(asyncio.get_running_loop())
        self.app = InferenceApp(worker, self.metrics, outlet, ready=lambda: self.not_ready)
        return await start(self.app, outlet=outlet)

    def close(self) -> None:
        self.client.close()
        asyncio.run_coroutine_threadsafe(self.server.stop(2), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.bench.log.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    made.bench.worker.load_plan(plan({"fraud/7": tree_version(tmp_path)}, tokens=TOKENS))
    yield made
    made.close()


@pytest.mark.parametrize("header", ["x-request-deadline-ms", "x-request-priority"])
@pytest.mark.parametrize("path", ["/v2/models/fraud/infer", "/v1/services/fraud:predict"])
def test_a_header_that_is_wrong_is_refused_each_time(running: Running, path: str, header: str) -> None:
    for _ in range(2):
        reply = running.client.post(path, json=payment(), headers={header: "soon"})
        assert reply.status_code == 400
        assert header in reply.text


def test_every_inference_route_has_a_handler(running: Running) -> None:
    assert set(running.app._handlers) == {route.name for route in routes_of("inference")}


def test_every_route_refuses_who_may_not_and_answers_who_may(running: Running) -> None:
    for route in routes_of("inference"):
        path = re.sub(r"\{(service|model)\}", "fraud", route.path).replace("{version}", "7")
        bare = httpx.request(route.method, running.url + path, content=b"{}")
        assert bare.status_code == 401 if route.permission != "public" else bare.status_code == 200
        reader = httpx.request(route.method, running.url + path, headers={"authorization": "Bearer reader"})
        if route.permission == "predict":
            assert reader.status_code == 403
        assert running.client.request(route.method, path, content=b"{}").status_code in (200, 400)


def test_predict_takes_rows_inputs_and_a_bare_object(running: Running) -> None:
    path = "/v1/services/fraud:predict"
    expected = trees.parse(booster_text()).predict(np.array([[90.0, 0.0]]))[0]
    bare = running.client.post(path, json=payment(90.0)).json()
    named = running.client.post(path, json={"inputs": payment(90.0), "at": NOW - 1}).json()
    many = running.client.post(path, json={"rows": [payment(90.0), {"amount": 1}, payment(90.0)]})
    assert bare["score"] == named["score"] == expected
    assert named["at"] == NOW - 1
    assert many.status_code == 200
    replies = many.json()["predictions"]
    assert [reply.get("score") for reply in replies] == [expected, None, expected]
    assert replies[1]["error"]["code"] == "missing_field"
    ids = [bare["prediction_id"], named["prediction_id"], replies[0]["prediction_id"], replies[2]["prediction_id"]]
    assert [record["id"] for record in running.bench.records()] == ids


@pytest.mark.parametrize(
    ("service", "content", "status", "code"),
    [
        ("fraud", b"{", 400, "bad_json"),
        ("fraud", b"[1]", 400, "bad_request"),
        ("fraud", b'{"rows": 3}', 400, "bad_rows"),
        ("fraud", b'{"rows": [], "at": "yesterday"}', 400, "bad_time"),
        ("fraud", b'{"inputs": {"amount": "x", "channel": "web"}}', 400, "bad_field"),
        ("fruad", b'{"rows": []}', 404, "service_not_found"),
    ],
)
def test_bad_requests_are_named(running: Running, service: str, content: bytes, status: int, code: str) -> None:
    reply = running.client.post(f"/v1/services/{service}:predict", content=content)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_concurrent_requests_get_their_own_answers(running: Running) -> None:
    model = trees.parse(booster_text())

    async def many() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=running.url, headers=HEADERS) as client:
            asked = [client.post("/v1/services/fraud:predict", json=payment(20.0 + i / 10)) for i in range(200)]
            return list(await asyncio.gather(*asked))

    replies = asyncio.run(many())
    expected = model.predict(np.array([[20.0 + i / 10, 0.0] for i in range(200)]))
    assert [reply.json()["score"] for reply in replies] == expected.tolist()
    assert len({reply.json()["prediction_id"] for reply in replies}) == len(running.bench.records()) == 200


def test_a_worker_that_is_not_ready_says_why_and_is_alive(running: Running) -> None:
    running.not_ready = "no plan yet"
    assert running.client.get("/healthz").status_code == 200
    assert running.client.get("/v2/health/live").status_code == 200
    assert "no plan yet" in running.client.get("/readyz").text
    assert running.client.get("/v2/health/ready").status_code == 503
    assert running.client.get("/v2/models/fraud/ready").json() == {"error": "the worker is not ready: no plan yet"}


def test_metrics_count_replies_errors_and_latency(running: Running) -> None:
    running.client.post("/v1/services/fraud:predict", json={"rows": [payment(), payment(), {}]})
    running.client.post("/v1/services/none:predict", json=payment())
    text = running.client.get("/metrics").text
    labels = 'service="fraud",version="fraud/7"'
    assert f'flyball_predictions_total{{{labels},rung="model"}} 2' in text
    assert f'flyball_prediction_errors_total{{{labels},code="missing_field"}} 1' in text
    assert 'flyball_refused_total{code="service_not_found"} 1' in text
    assert f"flyball_prediction_seconds_count{{{labels}}} 3" in text
    assert f'flyball_batch_rows_bucket{{{labels},le="2.0"}} 1' in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \S+ .+|\w+(\{.*\})? [-+.\deinf]+", line), line


def test_the_protocols_metadata_describes_fields_as_tensors(running: Running) -> None:
    model = running.client.get("/v2/models/fraud").json()
    assert (model["name"], model["versions"], model["platform"]) == ("fraud", ["7"], "flyball_trees")
    assert {"name": "amount", "datatype": "FP64", "shape": [-1]} in model["inputs"]
    assert [output["name"] for output in model["outputs"]] == ["prediction_id", "prediction", "score"]
    assert running.client.get("/v2/models/fraud/versions/9").status_code == 404


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3]}, "3 values"),
        ({"datatype": "FP32", "shape": [1, 2], "data": ["a", "b"]}, "not FP32"),
        ({"datatype": "FP99", "shape": [1, 2], "data": [1, 2]}, "FP99"),
        ({"datatype": "FP64", "shape": [1, 2], "data": [1, 2]}, "takes FP32"),
        ({"datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}, "shape"),
        ({"datatype": "FP32", "shape": [1, 2]}, "neither data nor"),
        ({"datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}, "8 bytes"),
    ],
)
def test_wrong_tensors_are_named(running: Running, tmp_path: Path, tensor: dict[str, Any], words: str) -> None:
    running.bench.worker.load_plan(plan({"affine/1": affine_version(tmp_path)}, name="affine", tokens=TOKENS, epoch=2))
    reply = running.client.post("/v2/models/affine/infer", json={"inputs": [{"name": "x", **tensor}]})
    assert reply.status_code == 400
    assert words in reply.json()["error"]
    assert running.bench.records() == []


def affine_version(root: Path) -> tuple[str, Path]:
    tensors = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    runtime = {"kind": "onnx", "file": "model.onnx", "input": "tensors", "tensors": tensors}
    return write_version(root, {"model.onnx": affine()}, model="affine", task=None, runtime=runtime, signature=tensors)


@pytest.mark.parametrize("data", [[1.0, 2.0, 3.0, 4.0], [[1.0, 2.0], [3.0, 4.0]], [[1, 2], [3, 4]]])
def test_a_model_of_tensors_takes_flat_and_nested_data(running: Running, tmp_path: Path, data: list[Any]) -> None:
    running.bench.worker.load_plan(plan({"affine/1": affine_version(tmp_path)}, name="affine", tokens=TOKENS, epoch=2))
    request = {"id": "a", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": data}]}
    reply = running.client.post("/v2/models/affine/versions/1/infer", json=request).json()
    assert reply["id"] == "a"
    assert reply["outputs"] == [{"name": "y", "shape": [2, 2], "datatype": "FP32", "data": [3.0, 5.0, 7.0, 9.0]}]
    (record,) = running.bench.records()
    assert record["output"]["prediction"] == {"y": [[3.0, 5.0], [7.0, 9.0]]}
    rows = running.client.post("/v1/services/affine:predict", json={"rows": [{"x": [1, 2]}, {"x": [3, 4]}, {"x": "?"}]})
    predictions = rows.json()["predictions"]
    assert [reply.get("prediction") for reply in predictions] == [{"y": [3.0, 5.0]}, {"y": [7.0, 9.0]}, None]
    assert predictions[2]["error"]["code"] == "bad_tensor"


def test_tritons_own_client_works_unchanged(running: Running, tmp_path: Path) -> None:
    triton = pytest.importorskip("tritonclient.http")
    versions = {"affine/1": affine_version(tmp_path)}
    running.bench.worker.load_plan(plan(versions, name="affine", tokens=TOKENS, epoch=2))
    client = triton.InferenceServerClient(f"127.0.0.1:{running.server.port}")
    x = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("affine")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata()["name"] == "flyball"
        metadata = client.get_model_metadata("affine", headers=dict(HEADERS))
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        for binary_in, binary_out in [(True, True), (False, False), (True, False), (False, True)]:
            given = triton.InferInput("x", [2, 2], "FP32")
            given.set_data_from_numpy(x, binary_data=binary_in)
            wanted = triton.InferRequestedOutput("y", binary_data=binary_out)
            result = client.infer("affine", [given], outputs=[wanted], headers=dict(HEADERS), request_id="7")
            np.testing.assert_array_equal(result.as_numpy("y"), 2 * x + 1)
            assert result.get_response()["id"] == "7"
        result = client.infer("affine", [given], headers=dict(HEADERS), model_version="1")
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * x + 1)
        with pytest.raises(triton.InferenceServerException, match="needs a token"):
            client.infer("affine", [given])
    finally:
        client.close()


def test_tritons_own_client_sends_texts_to_a_model_of_fields(running: Running) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(f"127.0.0.1:{running.server.port}")
    amount = triton.InferInput("amount", [2], "FP64")
    amount.set_data_from_numpy(np.array([90.0, 10.0]))
    channel = triton.InferInput("channel", [2], "BYTES")
    channel.set_data_from_numpy(np.array(["web", "shop"], dtype=object))
    try:
        result = client.infer("fraud", [amount, channel], headers=dict(HEADERS))
    finally:
        client.close()
    expected = trees.parse(booster_text()).predict(np.array([[90.0, 0.0], [10.0, 1.0]]))
    np.testing.assert_array_equal(result.as_numpy("score"), expected)
    assert [id.decode() for id in result.as_numpy("prediction_id")] == [r["id"] for r in running.bench.records()]


def test_a_slow_service_runs_on_a_thread_and_holds_up_nobody(running: Running, tmp_path: Path) -> None:
    state = running.bench.worker.state
    lane = state.services["fraud"].versions["fraud/7"].lane
    for rows in (1, 8, 64) * 64:
        lane.learn(rows, 0.01, 0.01)
    assert lane.inline_rows == 0
    many = running.client.post("/v1/services/fraud:predict", json={"rows": [payment(90.0)] * 3}).json()
    assert len(many["predictions"]) == 3
    assert not lane.inline
    tensor = {"name": "amount", "datatype": "FP64", "shape": [1], "data": [90.0]}
    text = {"name": "channel", "datatype": "BYTES", "shape": [1], "data": ["web"]}
    reply = running.client.post("/v2/models/fraud/infer", json={"inputs": [tensor, text]})
    assert reply.status_code == 200
    assert len(running.bench.records()) == 4
