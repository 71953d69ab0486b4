"""Triton's own client over HTTP, unchanged: synchronous and asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from .target import NOWHERE, PAIR, Subject, Target, identity
from .wire import texts

pytestmark = pytest.mark.clause("tritonclient")

REASON = "tritonclient[http] is not installed here: pip install 'tritonclient[http]'"


@pytest.fixture
def address(target: Target) -> str:
    url = target.client.base_url
    if url.scheme != "http":
        pytest.skip("the client is tried over http only")
    return f"{url.host}:{url.port or 80}"


@pytest.fixture
def headers(target: Target) -> dict[str, str]:
    """The headers of --header, for each call."""
    own = ("accept", "accept-encoding", "connection", "user-agent")
    return {name: value for name, value in target.client.headers.items() if name not in own}


@pytest.fixture
def http() -> Any:
    return pytest.importorskip("tritonclient.http", reason=REASON)


@pytest.fixture
def client(http: Any, address: str) -> Iterator[Any]:
    made = http.InferenceServerClient(address)
    yield made
    made.close()


def test_the_client_sees_a_live_and_ready_server(
    client: Any, headers: dict[str, str], target: Target, model: Subject
) -> None:
    """`is_server_live`, `is_server_ready`, `is_model_ready` and both metadata."""
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready(model.name, headers=headers)
    assert not client.is_model_ready(NOWHERE, headers=headers)
    assert client.get_server_metadata(headers=headers)["name"] == target.server["name"]
    assert client.get_model_metadata(model.name, headers=headers)["name"] == model.name
    for version in model.versions:
        assert client.get_model_metadata(model.name, model_version=version, headers=headers)["name"] == model.name


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_client_infers(
    http: Any,
    client: Any,
    headers: dict[str, str],
    target: Target,
    pair: Subject,
    binary_in: bool,
    binary_out: bool,
) -> None:
    """`infer` with JSON and bytes, both ways."""
    if binary_in or binary_out:
        target.need_extension("binary_tensor_data")
    outputs = [http.InferRequestedOutput(name, binary_data=binary_out) for name in ("next", "twice")]
    result = client.infer(PAIR, _given(http, pair, binary_in), outputs=outputs, request_id="7", headers=headers)
    _check(result, pair)
    assert result.get_response()["id"] == "7"


def test_the_client_infers_as_it_does_by_itself(
    http: Any, client: Any, headers: dict[str, str], target: Target, pair: Subject
) -> None:
    """`infer` with the client's defaults: bytes both ways, and the outputs not named; with a version, too."""
    target.need_extension("binary_tensor_data")
    _check(client.infer(PAIR, _given(http, pair, True), headers=headers), pair)
    for version in pair.versions:
        _check(client.infer(PAIR, _given(http, pair, True), model_version=version, headers=headers), pair)


def test_the_client_sends_a_priority_and_a_timeout(
    http: Any, client: Any, headers: dict[str, str], target: Target, pair: Subject
) -> None:
    """`priority`, `timeout` and parameters of one's own are taken, or ignored."""
    more = {"priority": 1, "timeout": 30_000_000, "parameters": {"oip_unknown": "x"}}
    outputs = [http.InferRequestedOutput(name, binary_data=False) for name in ("next", "twice")]
    _check(client.infer(PAIR, _given(http, pair, False), outputs=outputs, headers=headers, **more), pair)


def test_the_client_sends_and_reads_texts(http: Any, client: Any, headers: dict[str, str], target: Target) -> None:
    """BYTES beyond ASCII through the client's own codec."""
    target.need_extension("binary_tensor_data")
    target.need_model(identity("BYTES"))
    given = http.InferInput("x", [1, 2], "BYTES")
    given.set_data_from_numpy(texts("Zürich", "").reshape(1, 2))
    result = client.infer(identity("BYTES"), [given], headers=headers)
    assert result.as_numpy("y").tolist() == [["Zürich".encode(), b""]]


def test_the_client_infers_in_the_background(http: Any, client: Any, headers: dict[str, str], pair: Subject) -> None:
    """`async_infer`: several on their way at once."""
    outputs = [http.InferRequestedOutput(name, binary_data=False) for name in ("next", "twice")]
    asked = [
        client.async_infer(PAIR, _given(http, pair, False), outputs=outputs, request_id=str(i), headers=headers)
        for i in range(8)
    ]
    for i, request in enumerate(asked):
        result = request.get_result()
        assert result.get_response()["id"] == str(i)
        _check(result, pair)


def test_the_client_reads_statistics(client: Any, headers: dict[str, str], target: Target, model: Subject) -> None:
    """`get_inference_statistics` of all, of a model, of a version."""
    target.need_extension("statistics")
    assert client.get_inference_statistics(headers=headers)["model_stats"]
    for version in ("", *model.versions):
        found = client.get_inference_statistics(model.name, version, headers=headers)["model_stats"]
        assert {one["name"] for one in found} == {model.name}


def test_the_client_shows_an_error(
    http: Any, client: Any, headers: dict[str, str], target: Target, model: Subject
) -> None:
    """An error's message reaches the caller."""
    with pytest.raises(http.InferenceServerException) as caught:
        client.get_model_metadata(NOWHERE, headers=headers)
    assert caught.value.message()


def test_the_asynchronous_client_works(address: str, headers: dict[str, str], target: Target, pair: Subject) -> None:
    """`tritonclient.http.aio`: live, ready, metadata, and infer with JSON; bytes where they are offered."""
    aio = pytest.importorskip("tritonclient.http.aio", reason=REASON)
    kinds = [False, True] if "binary_tensor_data" in target.extensions else [False]

    async def ask(client: Any) -> list[Any]:
        assert await client.is_server_live(headers=headers)
        assert await client.is_server_ready(headers=headers)
        assert await client.is_model_ready(PAIR, headers=headers)
        assert (await client.get_model_metadata(PAIR, headers=headers))["name"] == PAIR
        return await asyncio.gather(
            *(
                client.infer(
                    PAIR,
                    _given(aio, pair, binary),
                    outputs=[aio.InferRequestedOutput(name, binary_data=binary) for name in ("next", "twice")],
                    headers=headers,
                )
                for binary in kinds
            )
        )

    for result in asyncio.run(_with(lambda: aio.InferenceServerClient(address), ask)):
        _check(result, pair)


async def _with(make: Callable[[], Any], use: Callable[[Any], Awaitable[list[Any]]]) -> list[Any]:
    client = make()
    try:
        return await use(client)
    finally:
        await client.close()


def _given(module: Any, pair: Subject, binary: bool) -> list[Any]:
    found = []
    for name, datatype in (("a", "FP32"), ("b", "INT64")):
        given = module.InferInput(name, list(pair.inputs[name].shape), datatype)
        given.set_data_from_numpy(pair.inputs[name], binary_data=binary)
        found.append(given)
    return found


def _check(result: Any, pair: Subject) -> None:
    np.testing.assert_array_equal(result.as_numpy("twice"), pair.inputs["a"] * 2)
    np.testing.assert_array_equal(result.as_numpy("next"), pair.inputs["b"] + 1)
