"""The conformance kit finds what is wrong: a server of our own whose replies are spoilt on their way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import uvloop

from flyball.http.inference import InferenceApp
from flyball.http.messages import Exchange, Request, Response
from flyball.http.metrics import InferenceMetrics
from flyball.http.outlet import Outlet
from flyball.http.server import start
from flyball.serving.plan import plan_digest
from tests.conformance.serving import TOKEN, plan_of_references, run_kit
from tests.serving.support import Bench

pytestmark = pytest.mark.slow

Spoil = Callable[[Request, Response], Response]


class Spoilt:
    """A reply's way, on which it is spoilt."""

    def __init__(self, request: Request, respond: Exchange, spoil: Spoil) -> None:
        self._request, self._respond, self._spoil = request, respond, spoil

    @property
    def gone(self) -> bool:
        return self._respond.gone

    def __call__(self, response: Response) -> None:
        self._respond(self._spoil(self._request, response))


@contextmanager
def spoilt(root: Path, spoil: Spoil) -> Iterator[str]:
    """A server on the reference models, each reply of which goes through `spoil`; gives its address."""
    bench = Bench(root)
    plan = plan_of_references(root / "versions")
    bench.worker.load_plan({**plan, "digest": plan_digest(plan)})
    loop = uvloop.new_event_loop()
    outlet = Outlet(loop)
    app = InferenceApp(bench.worker, InferenceMetrics(), outlet)

    def answer(request: Request, respond: Exchange) -> None:
        app(request, Spoilt(request, respond, spoil))

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(answer, outlet=outlet), loop).result(10)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(2), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        bench.log.close()


def drop_id(request: Request, response: Response) -> Response:
    return replace(response, body=response.body.replace(b'"id":', b'"_id":'))


def answer_errors_with_500(request: Request, response: Response) -> Response:
    return replace(response, status=500) if response.status == 400 else response


def name_errors_otherwise(request: Request, response: Response) -> Response:
    return replace(response, body=response.body.replace(b'{"error":', b'{"detail":'))


def turn_outputs_round(request: Request, response: Response) -> Response:
    if not response.body.startswith(b'{"model_name"') or response.content_type != "application/json":
        return response
    document = msgspec.json.decode(response.body)
    return replace(response, body=msgspec.json.encode(document | {"outputs": document["outputs"][::-1]}))


def give_a_length_too_long(request: Request, response: Response) -> Response:
    return replace(response, headers=tuple((name, str(int(value) + 1)) for name, value in response.headers))


def lose_the_last_byte(request: Request, response: Response) -> Response:
    return replace(response, body=response.body[:-1]) if response.content_type != "application/json" else response


FAULTS: list[tuple[Spoil, str, str]] = [
    (drop_id, "test_infer.py", "test_the_id_comes_back[42]"),
    (answer_errors_with_500, "test_errors.py", "test_an_input_that_lacks_a_member_is_refused[data]"),
    (name_errors_otherwise, "test_errors.py", "test_a_model_that_is_not_served_cannot_be_asked"),
    (turn_outputs_round, "test_infer.py", "test_outputs_come_in_the_order_in_which_they_are_asked_for"),
    (give_a_length_too_long, "test_binary.py", "test_a_binary_reply_gives_the_length_of_its_json"),
    (lose_the_last_byte, "test_binary.py", "test_values_survive_as_bytes[plain-FP32]"),
]


@pytest.mark.parametrize(("spoil", "file", "test"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_the_kit_finds_a_fault(tmp_path: Path, spoil: Spoil, file: str, test: str) -> None:
    with spoilt(tmp_path, spoil) as url:
        run = run_kit(url, tmp_path, "--header", f"Authorization: Bearer {TOKEN}", "-k", file)
    assert run.code == 1, run.output[-3000:]
    assert test in run.of("failed")


def test_the_kit_finds_none_where_nothing_is_spoilt(tmp_path: Path) -> None:
    with spoilt(tmp_path, lambda request, response: response) as url:
        run = run_kit(url, tmp_path, "--header", f"Authorization: Bearer {TOKEN}", "-k", "test_infer.py or test_errors")
    assert run.code == 0, run.output[-3000:]
