"""HTTP/1.1 under the protocol: connections that stay, requests that do not wait, bodies in parts and large ones."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from http.client import HTTPResponse

import numpy as np
import pytest

from . import wire
from .conftest import SECONDS
from .target import PAIR, Subject, Target, path_of
from .wire import Answer, Body, same

pytestmark = pytest.mark.clause("HTTP")


class _Kept(io.BufferedReader):
    """What a connection receives; a reply that was read does not close it for the next one."""

    def close(self) -> None: ...


class Connection:
    """One connection, by hand: what is sent, and replies read one after the other."""

    def __init__(self, target: Target) -> None:
        url = target.client.base_url
        self._head = "".join(
            f"{name}: {value}\r\n"
            for name, value in target.client.headers.items()
            if name.lower() not in ("connection", "accept-encoding", "content-length")
        )
        self._host = f"{url.host}:{url.port or 80}"
        self._socket = socket.create_connection((url.host, url.port or 80), SECONDS)
        self._received = _Kept(socket.SocketIO(self._socket, "r"))

    def head(self, path: str, body: Body, *more: str) -> bytes:
        own = [f"{name}: {value}" for name, value in body.headers.items()]
        lines = [f"POST {path} HTTP/1.1", f"Host: {self._host}", *own, *more]
        return ("\r\n".join(lines) + "\r\n" + self._head + "\r\n").encode()

    def whole(self, path: str, body: Body) -> bytes:
        return self.head(path, body, f"Content-Length: {len(body.data)}") + body.data

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self) -> HTTPResponse:
        """The next reply, its body read."""
        response = HTTPResponse(self, method="POST")  # type: ignore[arg-type]  # it calls makefile alone
        response.begin()
        return response

    def makefile(self, mode: str) -> io.BufferedReader:
        return self._received

    def peek(self, size: int) -> bytes:
        return self._socket.recv(size, socket.MSG_PEEK)

    def close(self) -> None:
        self._received.raw.close()
        self._socket.close()


@pytest.fixture
def connection(target: Target) -> Iterator[Connection]:
    if target.client.base_url.scheme != "http":
        pytest.skip("connections by hand are made over http only")
    made = Connection(target)
    yield made
    made.close()


def test_a_connection_stays_for_the_next_request(connection: Connection, model: Subject) -> None:
    """Two requests, one after the other, over one connection."""
    for id in ("first", "second"):
        connection.send(connection.whole(_path(model), wire.request(model.inputs, id=id)))
        assert _document(connection)["id"] == id


def test_a_connection_stays_after_an_error(connection: Connection, model: Subject) -> None:
    """A refused request does not end the connection."""
    connection.send(connection.whole(_path(model), Body(b"{")))
    response = connection.reply()
    assert response.status >= 400
    response.read()
    connection.send(connection.whole(_path(model), wire.request(model.inputs, id="after")))
    assert _document(connection)["id"] == "after"


def test_a_request_in_many_pieces_is_one_request(connection: Connection, model: Subject) -> None:
    """A request that arrives byte by byte at its beginning, and in two parts of its body."""
    data = connection.whole(_path(model), wire.request(model.inputs, id="pieces"))
    for at in range(20):
        connection.send(data[at : at + 1])
    connection.send(data[20:-10])
    connection.send(data[-10:])
    assert _document(connection)["id"] == "pieces"


def test_a_chunked_body_is_read(connection: Connection, model: Subject) -> None:
    """`Transfer-Encoding: chunked` in place of a length."""
    body = wire.request(model.inputs, id="chunked")
    half = len(body.data) // 2
    chunks = [f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (body.data[:half], body.data[half:])]
    connection.send(connection.head(_path(model), body, "Transfer-Encoding: chunked") + b"".join(chunks) + b"0\r\n\r\n")
    assert _document(connection)["id"] == "chunked"


def test_a_body_that_waits_for_leave_gets_it(connection: Connection, model: Subject) -> None:
    """`Expect: 100-continue`, as curl sends it before a large body, is answered before the body is there."""
    body = wire.request(model.inputs, id="expected")
    connection.send(connection.head(_path(model), body, f"Content-Length: {len(body.data)}", "Expect: 100-continue"))
    line = connection.peek(12)
    assert line.startswith(b"HTTP/1.1 100"), line
    connection.send(body.data)
    assert _document(connection)["id"] == "expected"  # http.client leaves the interim reply out


def test_requests_that_do_not_wait_are_answered_in_their_order(connection: Connection, model: Subject) -> None:
    """Two requests in one packet, the second before the first is answered."""
    both = [connection.whole(_path(model), wire.request(model.inputs, id=id)) for id in ("first", "second")]
    connection.send(b"".join(both))
    assert [_document(connection)["id"] for _ in range(2)] == ["first", "second"]


def test_many_rows_are_answered_in_json(target: Target, pair: Subject) -> None:
    """A body of about a megabyte of JSON."""
    _check_large(50_000, target.answer(PAIR, _rows(50_000)))


def test_many_rows_are_answered_in_bytes(target: Target, pair: Subject) -> None:
    """A body of about eight megabytes, in bytes both ways."""
    target.need_extension("binary_tensor_data")
    answer = target.answer(PAIR, _rows(500_000), binary=("a", "b"), parameters={"binary_data_output": True})
    _check_large(500_000, answer)


def _rows(count: int) -> dict[str, wire.Array]:
    return {"a": np.arange(2 * count, dtype=np.float32).reshape(count, 2), "b": np.arange(count, dtype=np.int64)}


def _check_large(count: int, answer: Answer) -> None:
    given = _rows(count)
    same(answer.outputs["twice"], given["a"] * 2)
    same(answer.outputs["next"], given["b"] + 1)


def _path(model: Subject) -> str:
    return path_of(model.name) + "/infer"


def _document(connection: Connection) -> dict[str, object]:
    response = connection.reply()
    text = response.read()
    assert response.status == 200, text[:300]
    document = wire.strict_json(text)
    assert isinstance(document, dict)
    return document
