"""A port that several share, and how a worker ends without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from flyball.http.accepting import Acceptor
from flyball.http.draining import DrainConfig, drain
from flyball.http.listening import open_listener, refuse_new
from flyball.http.server import Limits, Request, Respond, Response, Server
from flyball.kernel.errors import ConflictError, InvalidError
from flyball.platform.supervisor import GRACE

ASK = b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n"
SECONDS = 20.0  # only for a test that fails


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), SECONDS)

    uvloop.run(limited())


class Later:
    """Answers when it is told to; `at_once` from then on."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.at_once = False

    def __call__(self, request: Request, respond: Respond) -> None:
        if self.at_once:
            respond(Response(200, b"done"))
        else:
            self.asked.append(respond)

    def answer(self) -> None:
        self.at_once = True
        for respond in self.asked:
            respond(Response(200, b"done"))

    async def have(self, count: int) -> None:
        while len(self.asked) < count:
            await asyncio.sleep(0)


class Pool:
    """Servers on one shared socket, as workers would be."""

    def __init__(self, servers: int, app: Callable[[Any, Any], None]) -> None:
        self.listener = open_listener("127.0.0.1", 0)
        self.port = int(self.listener.getsockname()[1])
        self.servers = [Server(app, Limits(), asyncio.get_running_loop()) for _ in range(servers)]
        self.acceptors = [
            Acceptor(self.listener.dup(), server.connect, may_take=self._turn(server)) for server in self.servers
        ]

    def _turn(self, server: Server) -> Callable[[], bool]:
        return lambda: all(other.connections >= server.connections - 1 for other in self.servers)

    async def end(self) -> None:
        for server, acceptor in zip(self.servers, self.acceptors, strict=True):
            acceptor.stop()
            await server.stop(0)
        self.listener.close()

    def drained(
        self, number: int, *, window: float = 0.0, whole_pool: bool = True, forced: asyncio.Event
    ) -> asyncio.Task[None]:
        config = DrainConfig(window=window, grace=SECONDS)
        ending = drain(self.servers[number], self.acceptors[number], config, whole_pool=whole_pool, forced=forced)
        return asyncio.ensure_future(ending)


@asynccontextmanager
async def pool(servers: int, app: Callable[[Any, Any], None]) -> AsyncIterator[Pool]:
    made = Pool(servers, app)
    try:
        yield made
    finally:
        await made.end()


async def ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ASK)
    return reader, writer


async def reply(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    return head, await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


async def until(check: Callable[[], bool]) -> None:
    while not check():
        await asyncio.sleep(0.001)


def test_servers_on_one_socket_share_the_connections_evenly() -> None:
    async def test() -> None:
        app = Later()
        async with pool(3, app) as made:
            clients = [await ask(made.port) for _ in range(60)]
            await app.have(60)
            assert sum(server.connections for server in made.servers) == 60
            assert all(abs(server.connections - 20) <= 2 for server in made.servers)
            for _, writer in clients:
                writer.close()

    run(test)


def test_a_connection_is_taken_by_another_where_its_turn_is_with_a_busy_one() -> None:
    async def test() -> None:
        app = Later()
        app.at_once = True
        listener = open_listener("127.0.0.1", 0)
        server = Server(app, Limits(), asyncio.get_running_loop())
        acceptor = Acceptor(listener, server.connect, may_take=lambda: False)
        reader, writer = await ask(int(listener.getsockname()[1]))
        assert (await reply(reader))[1] == b"done"
        writer.close()
        acceptor.stop()
        await server.stop(0)

    run(test)


def test_what_the_port_had_taken_is_served_when_it_closes() -> None:
    async def test() -> None:
        app = Later()
        app.at_once = True
        async with pool(1, app) as made:
            made.acceptors[0]._pause(None)  # a worker that is busy: nobody accepts
            clients = [await ask(made.port) for _ in range(50)]
            made.listener.close()
            ending = made.drained(0, forced=asyncio.Event())
            for reader, writer in clients:
                head, body = await reply(reader)
                assert (body, b"connection: close" in head) == (b"done", True)
                writer.close()
            await ending
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", made.port)

    run(test)


def test_a_worker_that_is_one_too_many_leaves_the_port_to_the_others() -> None:
    async def test() -> None:
        app = Later()
        async with pool(2, app) as made:
            clients = [await ask(made.port) for _ in range(10)]
            await app.have(10)
            ending = made.drained(0, whole_pool=False, forced=asyncio.Event())
            await until(lambda: made.servers[0].leaving)
            before = made.servers[0].connections
            more = [await ask(made.port) for _ in range(10)]
            await app.have(20)
            assert made.servers[0].connections == before
            app.answer()
            closed = 0
            for reader, writer in clients + more:
                head, body = await reply(reader)
                assert body == b"done"
                closed += b"connection: close" in head
                writer.close()
            assert closed == before
            await ending

    run(test)


def test_in_the_window_new_connections_are_served_and_at_its_end_replies_close_theirs() -> None:
    async def test() -> None:
        app = Later()
        app.at_once = True
        forced = asyncio.Event()
        async with pool(1, app) as made:
            reader, writer = await ask(made.port)
            await reply(reader)
            ending = made.drained(0, window=0.4, forced=forced)
            heads = []
            while not made.servers[0].leaving:
                writer.write(ASK)
                heads.append((await reply(reader))[0])
            assert all(b"connection: close" not in head for head in heads[:-1])
            new_reader, new_writer = await ask(made.port)
            assert b"connection: close" in (await reply(new_reader))[0]
            await ending
            writer.close()
            new_writer.close()

    run(test)


def test_a_second_request_to_end_cuts_what_is_left() -> None:
    async def test() -> None:
        app = Later()
        forced = asyncio.Event()
        async with pool(1, app) as made:
            reader, writer = await ask(made.port)
            await app.have(1)
            ending = made.drained(0, window=SECONDS, forced=forced)
            await asyncio.sleep(0)
            forced.set()
            await ending
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    run(test)


def test_a_request_that_is_owed_a_reply_gets_it_within_the_grace_and_a_force_cuts_it() -> None:
    async def test() -> None:
        app = Later()
        forced = asyncio.Event()
        async with pool(1, app) as made:
            first, second = await ask(made.port), await ask(made.port)
            await app.have(2)
            ending = made.drained(0, forced=forced)
            await until(lambda: made.servers[0].stopping)
            app.asked[0](Response(200, b"done"))
            assert (await reply(first[0]))[1] == b"done"
            assert not ending.done()
            forced.set()
            await ending
            for _, writer in (first, second):
                writer.close()

    run(test)


def test_a_socket_that_refuses_new_connections_still_has_those_it_took() -> None:
    listener = open_listener("127.0.0.1", 0)
    address = listener.getsockname()
    with listener, socket.create_connection(address) as queued, socket.socket() as late:
        refuse_new(listener)
        refuse_new(listener)
        late.setblocking(False)
        with pytest.raises(BlockingIOError):
            late.connect(address)
        accepted, _ = listener.accept()
        queued.sendall(b"still here")
        accepted.setblocking(True)
        assert accepted.recv(100) == b"still here"
        accepted.close()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_queued_connection_outlives_a_process_that_shared_the_socket() -> None:
    with open_listener("127.0.0.1", 0) as listener:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        with socket.create_connection(listener.getsockname()) as client:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            listener.accept()[0].close()
            assert client.recv(1) == b""


def test_a_port_that_is_listened_on_is_named() -> None:
    with open_listener("127.0.0.1", 0) as first, pytest.raises(ConflictError) as caught:
        open_listener("127.0.0.1", first.getsockname()[1])
    assert caught.value.code == "port_in_use"


def test_a_drain_that_makes_no_sense_is_refused_and_its_time_is_bounded() -> None:
    with pytest.raises(InvalidError, match="600"):
        DrainConfig(window=-1)
    config = DrainConfig(window=5, grace=10)
    assert config.longest > config.window + config.grace, "the zygote waits longer than a worker takes"
    assert GRACE["inference"] > DrainConfig().longest, "and the supervisor longer than the zygote"
