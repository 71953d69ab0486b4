"""Bodies that nobody should send: each gets one answer, never a defect of ours, and the next request is served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httptools
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyball.http.access import token_digest
from flyball.http.connection import Connection, Limits
from flyball.http.inference import InferenceApp
from flyball.http.metrics import InferenceMetrics
from flyball.http.outlet import Outlet
from flyball.http.server import Server
from flyball.serving.plan import plan_digest
from tests.http.test_connection import Loop, Transport
from tests.serving.onnx_models import affine
from tests.serving.support import Bench, payment, plan, tree_version, write_version

ONE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
PATHS = ("/v2/models/m/infer", "/v2/models/m/versions/1/infer", "/v1/services/m:predict")
SEEDS: tuple[bytes, ...] = (
    msgspec.json.encode(ONE),
    msgspec.json.encode(payment()),
    msgspec.json.encode({"rows": [payment(), payment(20.0)]}),
    msgspec.json.encode({**ONE, "id": "é", "parameters": {"timeout": 5, "priority": 1, "binary_data_output": True}}),
    msgspec.json.encode({**ONE, "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}),
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}'
    + np.array([1, 2], dtype="<f4").tobytes(),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


class Desk:
    """A worker's application on a connection of its own, without a socket."""

    def __init__(self, root: Path) -> None:
        self.bench = Bench(root)
        signature = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        }
        runtime = {"kind": "onnx", "file": "m.onnx", "tensors": signature}
        tensors = write_version(root, {"m.onnx": affine()}, model="m", runtime=runtime, signature=signature)
        both = plan({"m/1": tensors}, name="m", tokens={token_digest("t"): ["predict", "read"]})
        fields = plan({"fraud/1": tree_version(root)})
        body = {
            "services": both["services"] | fields["services"],
            "versions": both["versions"] | fields["versions"],
            "tokens": both["tokens"],
        }
        self.bench.worker.load_plan({"epoch": 1, "digest": plan_digest(body), **body})
        self.loop = Loop()
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        outlet = Outlet(loop)
        self.server = Server(InferenceApp(self.bench.worker, InferenceMetrics(), outlet), Limits(), loop, outlet)
        self.bench.worker._dispatcher._threads = False  # a loop that stands still does not hear of threads

    def ask(self, path: str, body: bytes, length: str | None) -> list[tuple[int, bytes]]:
        """The replies to one request, and to a good one after it."""
        transport = Transport()
        connection = Connection(self.server)
        connection.connection_made(cast(asyncio.Transport, transport))
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer t\r\n"
        extra = "" if length is None else f"inference-header-content-length: {length}\r\n"
        connection.data_received(f"{head}{extra}content-length: {len(body)}\r\n\r\n".encode() + body)
        self._run()
        length_of = b"content-length: %d\r\n\r\n" % len(SEEDS[0])
        connection.data_received(head.replace(path, PATHS[0]).encode() + length_of + SEEDS[0])
        self._run()
        connection.connection_lost(None)
        return _replies(transport.sent)

    def _run(self) -> None:
        while self.loop.soon:
            self.loop.turn()


def _replies(sent: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []

    class Reading:
        body = b""

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            found.append((parser.get_status_code(), self.body))
            self.body = b""

    parser = httptools.HttpResponseParser(Reading())
    parser.feed_data(sent)
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.bench.log.close()


def check(found: list[tuple[int, bytes]]) -> None:
    (status, _), (good, _) = found
    assert status in (200, 400, 404, 413, 415, 429, 503, 504), found[0]
    assert good == 200


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bodies_that_were_cut_and_changed_get_one_answer(desk: Desk, data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body)))
        step = data.draw(st.sampled_from(["cut", "change", "insert"]))
        if step == "cut":
            del body[at:]
        elif step == "change" and at < len(body):
            body[at] = data.draw(st.integers(0, 255))
        else:
            body[at:at] = data.draw(st.binary(max_size=8))
    length = data.draw(st.none() | st.sampled_from([str(len(body)), "0", "1", "-1", "99999", "x", ""]))
    check(desk.ask(data.draw(st.sampled_from((*PATHS, "/v1/services/fraud:predict"))), bytes(body), length))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_documents_of_the_right_members_and_wrong_values_get_one_answer(desk: Desk, data: st.DataObject) -> None:
    def some(*names: str) -> dict[str, Any]:
        return {name: data.draw(VALUES) for name in names if data.draw(st.booleans())}

    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | some("datatype", "shape", "data")
    tensor |= some("parameters")
    body = {"inputs": [tensor]} | some("id", "parameters", "outputs") | some("rows", "at", "amount")
    try:
        encoded = msgspec.json.encode(body)
    except OverflowError:
        return
    check(desk.ask(data.draw(st.sampled_from((*PATHS, "/v1/services/fraud:predict"))), encoded, None))
