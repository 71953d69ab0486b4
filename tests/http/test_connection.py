"""A connection without a socket: known heads and the stream parser must cut the same requests out of the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.http.connection import Connection, Limits
from flyball.http.heads import Head, Heads
from flyball.http.messages import Request, Respond, Response
from flyball.http.server import Server


class Loop:
    """Time stands still, and what is to be done soon is done when asked."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, call: Callable[..., object], *args: object) -> None:
        self.soon.append(lambda: call(*args))

    def call_later(self, delay: float, call: Callable[[], None]) -> None: ...

    def turn(self) -> None:
        calls, self.soon = self.soon, []
        for call in calls:
            call()


class Transport:
    def __init__(self) -> None:
        self.sent = b""
        self.reading = True
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_reading(self) -> bool:
        return self.reading

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


class NoHeads(Heads):
    def find(self, block: bytes) -> Head | None:
        return None


LIMITS = Limits(header_bytes=300, body_bytes=40, pipeline=4)
PIECES = (
    b"GET /a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /b HTTP/1.1\r\nhost: a\r\nContent-Length: 4\r\n\r\nbody",
    b"POST /b HTTP/1.1\r\nhost: a\r\nContent-Length: 0\r\n\r\n",
    b"POST /c HTTP/1.1\r\nhost: a\r\nx: 1\r\nX: 2\r\ncontent-length: 9\r\n\r\nx\r\n\r\nbody",
    b"POST /d HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmore\r\n0\r\n\r\n",
    b"POST /e HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nok",
    b"\r\nGET /f HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /g HTTP/1.0\r\nHost: a\r\n\r\n",
    b"GET /h HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /i HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"POST /j HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    b"POST /k HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /l HTTP/1.1\r\nhost: a\r\ncontent-length: 41\r\n\r\n",
    b"POST /m HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nbody",
    b"GET /n HTTP/1.1\r\nhost : a\r\n\r\n",
    b"GET /o HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
    b"GET /p HTTP/1.1\r\nhost: a\r\nlong: " + b"v" * 300 + b"\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
)


def talk(stream: bytes, cuts: list[int], heads: type[Heads]) -> tuple[list[Any], bytes, bool]:
    """What the application saw, what was sent, and whether the connection was closed."""
    asked: list[Any] = []

    def app(request: Request, respond: Respond) -> None:
        asked.append((request.method, request.path, request.query, request.headers, request.body))
        respond(Response(200, request.path.encode(), "text/plain"))

    loop, transport = Loop(), Transport()
    server = Server(app, LIMITS, cast(asyncio.AbstractEventLoop, loop))
    server.heads = heads(header_bytes=LIMITS.header_bytes, body_bytes=LIMITS.body_bytes, entries=3)
    server._dated, server._date = 1 << 60, b"content-type: "
    server._now = lambda: b"content-type: "  # type: ignore[method-assign]
    connection = Connection(server)
    connection.connection_made(cast(asyncio.Transport, transport))
    at = 0
    for cut in [*sorted(cuts), len(stream)]:
        if cut > at and not transport.closed:
            connection.data_received(stream[at:cut])
            loop.turn()
        at = max(at, cut)
    connection.connection_lost(None)
    assert server.receiving == 0
    return asked, transport.sent, transport.closed


@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 400), max_size=6),
)
def test_known_heads_and_the_stream_parser_agree_on_every_stream(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    known, streamed = talk(stream, cuts, Heads), talk(stream, cuts, NoHeads)
    assert known[0] == streamed[0]
    assert known[1] == streamed[1]
    assert known[2] == streamed[2]


@pytest.mark.parametrize("piece", PIECES[:5])
def test_a_head_that_came_before_is_not_parsed_again(piece: bytes) -> None:
    heads = Heads(header_bytes=300, body_bytes=40)
    block = piece[: piece.index(b"\r\n\r\n") + 4]
    assert heads.find(block) is heads.find(bytes(block))


@pytest.mark.parametrize("piece", PIECES[5:7] + PIECES[10:18])
def test_a_head_that_is_not_plain_is_left_to_the_stream_parser(piece: bytes) -> None:
    heads = Heads(header_bytes=300, body_bytes=40)
    assert heads.find(piece[: piece.index(b"\r\n\r\n") + 4]) is None


def test_heads_that_are_forgotten_are_parsed_again() -> None:
    heads = Heads(header_bytes=300, body_bytes=40)
    block = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    before = heads.find(block)
    heads.clear()
    assert heads.find(block) is not before


def test_the_oldest_head_goes_where_a_new_one_comes() -> None:
    heads = Heads(header_bytes=300, body_bytes=40, entries=2)
    blocks = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(3)]
    found = [heads.find(block) for block in blocks]
    assert heads.find(blocks[1]) is found[1]
    assert heads.find(blocks[2]) is found[2]
    assert heads.find(blocks[0]) is not found[0]
