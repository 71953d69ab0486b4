"""The data plane's HTTP server, spoken to byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httptools
import msgspec
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.http.server import (
    Limits,
    Request,
    Respond,
    Response,
    Server,
    error_response,
    json_response,
    start,
    status_of,
)
from flyball.kernel.errors import ConflictError, DeniedError, ExhaustedError, InvalidError

Replies = list[tuple[int, dict[str, str], bytes]]


def echo(request: Request, respond: Respond) -> None:
    respond(json_response({"method": request.method, "path": request.path, "body": request.body.decode()}))


class Later:
    """An application whose replies are given by the test, in the order it likes."""

    def __init__(self) -> None:
        self.asked: list[tuple[Request, Respond]] = []
        self.arrived = asyncio.Event()

    def __call__(self, request: Request, respond: Respond) -> None:
        self.asked.append((request, respond))
        self.arrived.set()

    async def have(self, count: int) -> None:
        while len(self.asked) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 5)


@contextlib.asynccontextmanager
async def serving(app: Any, **limits: Any) -> AsyncIterator[Server]:
    server = await start(app, limits=Limits(**limits))
    try:
        yield server
    finally:
        await server.stop(1)


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class _Parser:
    def __init__(self) -> None:
        self.replies: Replies = []
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.replies.append((self.parser.get_status_code(), self.headers, self.body))


async def replies(reader: asyncio.StreamReader, count: int) -> Replies:
    parsed = _Parser()
    while len(parsed.replies) < count:
        data = await asyncio.wait_for(reader.read(65536), 5)
        if not data:
            break
        parsed.parser.feed_data(data)
    return parsed.replies


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    uvloop.run(main())


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def test_a_connection_is_kept_and_pipelined_replies_come_in_order() -> None:
    async def test() -> None:
        app = Later()
        async with serving(app) as server, connected(server) as (reader, writer):
            writer.write(get("/a") + get("/b?x=1&y=%20z") + get("/c"))
            await app.have(3)
            assert app.asked[1][0].query == {"x": "1", "y": " z"}
            for request, respond in reversed(app.asked):
                respond(Response(200, request.path.encode(), "text/plain"))
            got = await replies(reader, 3)
            assert [body for _, _, body in got] == [b"/a", b"/b", b"/c"]
            writer.write(get("/d"))
            await app.have(4)
            app.asked[3][1](Response(200, b"again"))
            assert (await replies(reader, 1))[0][2] == b"again"

    run(test)


def test_bodies_arrive_whole_by_length_and_in_chunks() -> None:
    async def test() -> None:
        async with serving(echo) as server, connected(server) as (reader, writer):
            writer.write(b"POST /x HTTP/1.1\r\nhost: a\r\nContent-LENGTH: 5\r\n\r\nhel")
            await writer.drain()
            writer.write(b"lo")
            assert msgspec.json.decode((await replies(reader, 1))[0][2])["body"] == "hello"
            writer.write(b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n")
            writer.write(b"0\r\n\r\n")
            assert msgspec.json.decode((await replies(reader, 1))[0][2])["body"] == "abcde"

    run(test)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 220), max_size=6))
def test_any_cut_of_the_stream_gives_the_same_requests(cuts: list[int]) -> None:
    stream = (
        get("/a", "X-Long: " + "v" * 40)
        + b"POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody"
        + b"POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmore\r\n0\r\n\r\n"
    )

    async def test() -> None:
        async with serving(echo) as server, connected(server) as (reader, writer):
            at = 0
            for cut in [*sorted(cuts), len(stream)]:
                writer.write(stream[at:cut])
                await writer.drain()
                await asyncio.sleep(0)
                at = max(at, cut)
            got = [msgspec.json.decode(body) for _, _, body in await replies(reader, 3)]
            assert [(reply["path"], reply["body"]) for reply in got] == [("/a", ""), ("/b", "body"), ("/c", "more")]

    run(test)


def test_a_client_that_expects_100_is_told_to_continue() -> None:
    async def test() -> None:
        async with serving(echo) as server, connected(server) as (reader, writer):
            writer.write(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ok")
            assert (await replies(reader, 1))[0][0] == 200

    run(test)


def test_a_head_request_gets_the_length_and_no_body() -> None:
    async def test() -> None:
        async with serving(echo) as server, connected(server) as (reader, writer):
            writer.write(b"HEAD /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
            assert b"200 OK" in head
            assert b"content-length: 0" not in head
            assert body == b""

    run(test)


def test_what_is_too_large_is_refused_and_the_connection_closed() -> None:
    async def test() -> None:
        cases = {
            413: b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 101\r\n\r\n",
            431: get("/x", "a: " + "v" * 300),
        }
        chunk = b"40\r\n" + b"x" * 64 + b"\r\n"
        chunked = b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 2 + b"0\r\n\r\n"
        async with serving(echo, header_bytes=256, body_bytes=100) as server:
            for status, data in [*cases.items(), (413, chunked), (400, b"nonsense\r\n\r\n")]:
                async with connected(server) as (reader, writer):
                    writer.write(data)
                    got = await replies(reader, 2)
                    assert [reply[0] for reply in got] == [status]
                    assert got[0][1]["connection"] == "close"
                    assert "message" in msgspec.json.decode(got[0][2])["error"]

    run(test)


def test_a_header_without_end_is_refused() -> None:
    async def test() -> None:
        async with serving(echo, header_bytes=256) as server, connected(server) as (reader, writer):
            writer.write(b"GET /x HTTP/1.1\r\nhost: ")
            with contextlib.suppress(ConnectionError):
                for _ in range(64):
                    writer.write(b"v" * 64)
                    await writer.drain()
                    await asyncio.sleep(0)
            assert (await replies(reader, 1))[0][0] == 431

    run(test)


def test_more_connections_than_the_limit_are_turned_away() -> None:
    async def test() -> None:
        async with serving(echo, connections=1) as server, connected(server) as (one, writer):
            writer.write(get("/x"))
            assert (await replies(one, 1))[0][0] == 200
            async with connected(server) as (two, _):
                assert (await replies(two, 1))[0][0] == 503

    run(test)


def test_an_idle_connection_is_closed_and_a_request_without_end_gets_408() -> None:
    async def test() -> None:
        async with serving(echo, idle_seconds=0.05) as server:
            async with connected(server) as (reader, _):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            async with connected(server) as (reader, writer):
                writer.write(b"GET /x HTT")
                assert (await replies(reader, 1))[0][0] == 408

    run(test)


def test_an_application_that_raises_gives_500_and_the_next_request_is_served(caplog: pytest.LogCaptureFixture) -> None:
    def app(request: Request, respond: Respond) -> None:
        if request.path == "/bad":
            raise ZeroDivisionError("secret detail")
        if request.path == "/wrong":
            raise InvalidError("the value is wrong", code="wrong")
        echo(request, respond)

    async def test() -> None:
        async with serving(app) as server, connected(server) as (reader, writer):
            writer.write(get("/bad") + get("/wrong") + get("/ok"))
            got = await replies(reader, 3)
            assert [reply[0] for reply in got] == [500, 400, 200]
            assert b"secret" not in got[0][2]

    run(test)


def test_a_stop_answers_what_was_received_and_refuses_new_connections() -> None:
    async def test() -> None:
        app = Later()
        server = await start(app)
        async with connected(server) as (reader, writer), connected(server) as (idle, _):
            writer.write(get("/a") + get("/b"))
            await app.have(2)
            stopping = asyncio.create_task(server.stop(5))
            assert await asyncio.wait_for(idle.read(), 5) == b""
            with pytest.raises(OSError):  # noqa: PT011 - the kind of refusal is the system's
                await asyncio.open_connection("127.0.0.1", server.port)
            for _, respond in app.asked:
                respond(Response(200, b"done"))
            got = await replies(reader, 3)
            assert [body for _, _, body in got] == [b"done", b"done"]
            await stopping

    run(test)


def test_a_reply_after_the_client_left_and_a_second_reply_harm_nobody() -> None:
    async def test() -> None:
        app = Later()
        async with serving(app) as server:
            async with connected(server) as (_, writer):
                writer.write(get("/a"))
                await app.have(1)
            app.asked[0][1](Response(200, b"late"))
            with pytest.raises(RuntimeError, match="twice"):
                app.asked[0][1](Response(200, b"again"))
            async with connected(server) as (reader, writer):
                writer.write(get("/b"))
                await app.have(2)
                app.asked[1][1](Response(200, b"fine"))
                assert (await replies(reader, 1))[0][2] == b"fine"

    run(test)


def test_a_half_closed_client_still_gets_its_reply() -> None:
    async def test() -> None:
        app = Later()
        async with serving(app) as server, connected(server) as (reader, writer):
            writer.write(get("/a"))
            writer.write_eof()
            await app.have(1)
            app.asked[0][1](Response(200, b"yes"))
            assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"yes")

    run(test)


def test_a_taken_port_is_named() -> None:
    async def test() -> None:
        async with serving(echo) as server:
            with pytest.raises(ConflictError) as caught:
                await start(echo, port=server.port)
            assert caught.value.code == "port_in_use"
            assert str(server.port) in caught.value.message
            assert "--port" in caught.value.hint

    run(test)


def test_errors_have_the_status_of_their_kind_and_the_shape_of_their_path() -> None:
    denied = DeniedError("who are you", code="unauthenticated")
    assert status_of(denied) == 401
    assert status_of(DeniedError("no")) == 403
    assert status_of(ExhaustedError("full")) == 429
    assert dict(error_response(denied).headers) == {"www-authenticate": "Bearer"}
    assert msgspec.json.decode(error_response(denied).body)["error"]["code"] == "unauthenticated"
    assert msgspec.json.decode(error_response(denied, "/v2/models/m/infer").body) == {"error": "who are you"}


def test_a_header_with_a_line_break_never_leaves() -> None:
    async def test() -> None:
        def app(request: Request, respond: Respond) -> None:
            respond(Response(200, b"", headers=(("x", "a\r\nb: c"),)))

        async with serving(app) as server, connected(server) as (reader, writer):
            writer.write(get("/x"))
            assert (await replies(reader, 1))[0][0] == 500

    run(test)


async def until(condition: Callable[[], bool]) -> None:
    async def turn() -> None:
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turn(), 5)


def test_bodies_on_their_way_are_bounded_together_and_the_room_comes_back() -> None:
    async def test() -> None:
        head = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 80\r\n\r\n"
        async with serving(echo, receiving_bytes=100) as server:
            async with connected(server) as (_, slow), connected(server) as (reader, writer):
                slow.write(head + b"x" * 60)
                await until(lambda: server.receiving == 60)
                writer.write(head + b"x" * 60)
                answer = await asyncio.wait_for(reader.read(), 5)
                assert answer.startswith(b"HTTP/1.1 429 ")
                assert b"retry-after: 5" in answer
                assert b"receiving_full" in answer
                assert server.receiving == 60
            await until(lambda: server.receiving == 0)
            async with connected(server) as (reader, writer):
                writer.write(head + b"x" * 80)
                assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200 ")
                assert server.receiving == 0

    run(test)
