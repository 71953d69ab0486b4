"""The Open Inference Protocol's extensions over a real socket: statistics, lists of models, bytes without JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.http.test_inference import TOKENS, Running, affine_version
from tests.serving.support import plan

LENGTH = "Inference-Header-Content-Length"


@pytest.fixture
def affine(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    made.bench.worker.load_plan(plan({"affine/1": affine_version(tmp_path)}, name="affine", tokens=TOKENS))
    yield made
    made.close()


def test_statistics_grow_with_each_answer(affine: Running) -> None:
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    for _ in range(3):
        assert affine.client.post("/v2/models/affine/infer", json=request).status_code == 200
    for path in ("/v2/models/stats", "/v2/models/affine/stats", "/v2/models/affine/versions/1/stats"):
        (found,) = affine.client.get(path).json()["model_stats"]
        assert (found["name"], found["version"], found["inference_count"]) == ("affine", "1", 3)
        assert found["inference_stats"]["success"]["ns"] > 0
    assert affine.client.get("/v2/models/affine/versions/9/stats").status_code == 404


def test_the_models_are_listed_and_indexed(affine: Running) -> None:
    assert affine.client.get("/v2/models").json() == {"models": ["affine"]}
    line = {"name": "affine", "version": "1", "state": "READY", "reason": ""}
    assert affine.client.post("/v2/repository/index").json() == [line]
    affine.not_ready = "it is stopping"
    assert affine.client.post("/v2/repository/index", json={"ready": True}).json() == []
    assert affine.client.post("/v2/repository/index", json={"ready": 1}).status_code == 400


def test_a_body_of_values_alone_is_answered_in_bytes(affine: Running) -> None:
    x = np.array([[1, 2], [3, 4]], dtype="<f4")
    reply = affine.client.post("/v2/models/affine/infer", content=x.tobytes(), headers={LENGTH: "0"})
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.content[int(reply.headers[LENGTH]) :] == (2 * x + 1).tobytes()
    for wrong in ("garbage", "-1", "99"):
        refused = affine.client.post("/v2/models/affine/infer", content=x.tobytes(), headers={LENGTH: wrong})
        assert (refused.status_code, LENGTH in refused.json()["error"]) == (400, True)


def test_an_unknown_output_is_refused_before_the_model_is_asked(affine: Running) -> None:
    request = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}],
        "outputs": [{"name": "z"}],
    }
    reply = affine.client.post("/v2/models/affine/infer", json=request)
    assert (reply.status_code, "'z'" in reply.json()["error"]) == (400, True)
    assert affine.bench.records() == []


def test_the_openapi_document_is_served_to_who_may_read(affine: Running) -> None:
    found = affine.client.get("/openapi.json").json()
    assert found["openapi"] == "3.1.0"
    assert found["paths"]["/v2/models/{model}/infer"]["post"]["parameters"][0]["schema"]["enum"] == ["affine"]
