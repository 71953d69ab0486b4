import datetime as dt
import json
from decimal import Decimal
from typing import Any

import httpx
import numpy as np
import pytest

from flyball.client.transport import ATTEMPTS, Transport, encode, translate
from flyball.kernel.errors import FlyballError, InternalError, InvalidError, NotFoundError, UnavailableError
from flyball.kernel.settings import ClientSettings

URL = "http://platform:1"


def transport(handler: httpx.MockTransport, pauses: list[float] | None = None) -> Transport:
    kept = pauses if pauses is not None else []
    return Transport(ClientSettings(url=URL, token="t0ken"), transport=handler, sleep=kept.append)


def foreign_errors(cls: type[Exception]) -> list[type[Exception]]:
    return [cls, *(deep for sub in cls.__subclasses__() for deep in foreign_errors(sub))]


@pytest.mark.parametrize("cls", foreign_errors(httpx.HTTPError))
def test_every_exception_of_httpx_becomes_one_of_ours(cls: type[httpx.HTTPError]) -> None:
    error = cls.__new__(cls)
    Exception.__init__(error, "x")
    assert isinstance(translate(error, URL), FlyballError)


def test_where_nothing_answers_the_next_command_is_flyball_up() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(UnavailableError, match="nothing answers at http://platform:1/x") as caught:
        transport(httpx.MockTransport(refuse)).request("GET", f"{URL}/x")
    assert caught.value.code == "not_running"
    assert "flyball up" in caught.value.hint


def test_an_error_body_becomes_the_error_it_was() -> None:
    sent = NotFoundError("no model 'tpi'", code="model_not_found", hint="flyball status")
    handler = httpx.MockTransport(lambda request: httpx.Response(404, json={"error": sent.to_data()}))
    with pytest.raises(NotFoundError) as caught:
        transport(handler).request("GET", f"{URL}/x")
    assert caught.value.to_data() == sent.to_data()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"detail": "x"}'])
def test_an_error_body_that_is_none_of_ours_is_named_by_its_status(body: bytes) -> None:
    handler = httpx.MockTransport(lambda request: httpx.Response(502, content=body))
    with pytest.raises(InternalError, match="502") as caught:
        transport(handler).request("GET", f"{URL}/x")
    assert caught.value.code == "foreign_answer"


def test_a_lost_connection_is_tried_again_only_where_that_is_safe() -> None:
    calls: list[str] = []

    def lose(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        if len(calls) < 3:
            raise httpx.RemoteProtocolError("gone")
        return httpx.Response(200, json={"ok": True})

    pauses: list[float] = []
    sender = transport(httpx.MockTransport(lose), pauses)
    assert sender.request("POST", f"{URL}/x", json={}, idempotent=True) == {"ok": True}
    assert pauses == [0.1, 0.2]
    calls.clear()
    with pytest.raises(UnavailableError):
        sender.request("POST", f"{URL}/x", json={})
    assert len(calls) == 1


def test_trying_again_has_an_end() -> None:
    calls: list[str] = []

    def lose(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        raise httpx.ReadError("gone")

    with pytest.raises(UnavailableError) as caught:
        transport(httpx.MockTransport(lose)).request("GET", f"{URL}/x", idempotent=True)
    assert caught.value.code == "connection_lost"
    assert len(calls) == ATTEMPTS


def test_the_token_travels_and_is_in_no_error() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer t0ken"
        raise httpx.ConnectError("refused")

    with pytest.raises(UnavailableError) as caught:
        transport(httpx.MockTransport(handler)).request("GET", f"{URL}/x")
    assert "t0ken" not in str(caught.value)


def test_an_address_that_is_none_is_an_invalid_value() -> None:
    sender = Transport(ClientSettings(url="ftp://x"))
    with pytest.raises(InvalidError) as caught:
        sender.request("GET", "ftp://x/v1")
    assert caught.value.code == "bad_url"


def test_values_that_users_hold_are_encoded() -> None:
    data = {"a": np.float32(0.5), "b": Decimal("1.20"), "c": dt.datetime(2024, 1, 2, tzinfo=dt.UTC), "d": float("nan")}
    assert json.loads(encode(data)) == {"a": 0.5, "b": "1.20", "c": "2024-01-02T00:00:00Z", "d": None}
    with pytest.raises(InvalidError):
        encode({"x": object()})


def test_a_busy_platform_is_asked_again_when_it_said_with_the_same_key_a_bounded_number_of_times() -> None:
    keys: list[str] = []
    busy = httpx.Response(429, headers={"Retry-After": "7"}, json={"error": {"code": "queue_full", "message": "m"}})
    answers = [busy, busy, httpx.Response(200, json={"accepted": 1})]

    def handle(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        return answers[min(len(keys), len(answers)) - 1]

    pauses: list[float] = []
    sent: dict[str, Any] = {"json": [1], "headers": {"Idempotency-Key": "k"}, "idempotent": True}
    assert transport(httpx.MockTransport(handle), pauses).request("POST", f"{URL}/x", **sent) == {"accepted": 1}
    assert (keys, pauses) == (["k"] * 3, [7.0, 7.0])
    answers[:] = [busy]
    keys.clear()
    pauses.clear()
    with pytest.raises(FlyballError, match="m"):
        transport(httpx.MockTransport(handle), pauses).request("POST", f"{URL}/x", **sent)
    assert (len(keys), len(pauses)) == (ATTEMPTS, ATTEMPTS - 1)


@pytest.mark.parametrize(("status", "header", "idempotent"), [(429, "", True), (500, "1", True), (429, "1", False)])
def test_a_refusal_without_a_time_or_of_what_must_not_be_repeated_is_final(
    status: int, header: str, idempotent: bool
) -> None:
    answer = httpx.Response(status, headers={"Retry-After": header} if header else {}, json={"error": {"message": "m"}})
    pauses: list[float] = []
    with pytest.raises(FlyballError):
        transport(httpx.MockTransport(lambda request: answer), pauses).request(
            "POST", f"{URL}/x", idempotent=idempotent
        )
    assert pauses == []
