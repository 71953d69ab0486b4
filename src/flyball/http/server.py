"""The HTTP/1.1 server of the data plane: one `asyncio.Protocol` a connection, no framework, no task per request.

An application is a callable `app(request, respond)` that calls `respond(response)` exactly once, now or later (a batch
answers many requests at the end of a tick). Replies leave in the order of their requests, joined into one write per
connection and tick. HTTP is parsed by httptools (llhttp), strictly: a head that was seen before is known by its bytes
(`heads.py`), all others, and bodies without a length, are parsed as a stream.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

from flyball.http.connection import Connection, Limits
from flyball.http.heads import Heads
from flyball.http.listening import listen_error
from flyball.http.messages import (
    JSON,
    App,
    Request,
    Respond,
    Response,
    error_response,
    json_response,
    refusal,
    status_line,
    status_of,
)
from flyball.http.outlet import Outlet

__all__ = [
    "App",
    "Limits",
    "Request",
    "Respond",
    "Response",
    "Server",
    "error_response",
    "json_response",
    "refusal",
    "start",
    "status_of",
]


class Server:
    """A listening server; made by `start`.

    Args:
        outlet: where replies leave; an application that answers in callbacks of its own gives it to them as their loop.
    """

    def __init__(self, app: App, limits: Limits, loop: asyncio.AbstractEventLoop, outlet: Outlet | None = None) -> None:
        self.app = app
        self.limits = limits
        self.stopping = False
        self.leaving = False  # replies close their connections, while all else goes on
        self.receiving = 0
        self.port = 0
        self.heads = Heads(header_bytes=limits.header_bytes, body_bytes=limits.body_bytes)
        self.time = loop.time
        self.later = loop.call_later
        self._loop = loop
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self.outlet = outlet or Outlet(loop)
        self._empty: asyncio.Future[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._dated = 0
        self._date = b""
        self._ok_head = b""  # what most replies begin with, up to their length

    async def listen(self, host: str, port: int) -> None:
        try:
            self._listener = await self._loop.create_server(self.connect, host, port, backlog=1024)
        except OSError as error:
            raise listen_error(error, host, port) from None
        self.port = int(self._listener.sockets[0].getsockname()[1])
        self.sweep()

    async def stop(self, grace: float = 10.0) -> None:
        """Stop accepting, answer what was received, close; what is not answered after `grace` seconds is cut."""
        self.stopping = self.leaving = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.stop()
        if self._connections:
            self._empty = self._loop.create_future()
            await asyncio.wait([self._empty], timeout=grace)
        self.cut()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def cut(self) -> None:
        """Close all connections now, whatever they are owed."""
        for connection in list(self._connections):
            connection.abort()

    def connect(self) -> Connection:
        """The protocol of one more connection, for who accepts by himself."""
        return Connection(self)

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def owed(self) -> int:
        """Requests that are not answered yet."""
        return sum(len(connection.queue) for connection in self._connections)

    def admit(self, connection: Connection) -> bool:
        if self.stopping or len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def flush_soon(self, connection: Connection) -> None:
        if not connection.dirty:
            connection.dirty = True
            self.outlet.add(connection)

    def encode(self, response: Response, *, head_only: bool, close: bool) -> bytes:
        """The reply as bytes; a header that holds a line break is a defect and is refused."""
        body = response.body
        if response.status == 200 and response.content_type is JSON and not (response.headers or close or head_only):
            if self._dated != int(time.time()):
                self._now()
            return b"%b%d\r\n\r\n%b" % (self._ok_head, len(body), body)
        head = status_line(response.status) + self._now() + response.content_type.encode("latin-1")
        for name, value in response.headers:
            if "\n" in value or "\r" in value:
                raise ValueError(f"the header {name} holds a line break")
            head += b"\r\n" + name.encode("latin-1") + b": " + value.encode("latin-1")
        if close:
            head += b"\r\nconnection: close"
        head += b"\r\ncontent-length: " + str(len(body)).encode() + b"\r\n\r\n"
        return head if head_only else head + body

    def _now(self) -> bytes:
        second = int(time.time())
        if second != self._dated:
            self._dated = second
            self._date = f"date: {formatdate(second, usegmt=True)}\r\ncontent-type: ".encode("latin-1")
            self._ok_head = status_line(200) + self._date + JSON.encode() + b"\r\ncontent-length: "
        return self._date

    def sweep(self) -> None:
        """Close what idles too long, now and then. Called once, where connections come from elsewhere than `listen`."""
        now = self.time()
        for connection in list(self._connections):
            connection.sweep(now)
        pause = max(0.05, min(self.limits.idle_seconds, self.limits.request_seconds) / 4)
        self._sweeper = self._loop.call_later(pause, self.sweep)


async def start(
    app: App, *, host: str = "127.0.0.1", port: int = 0, limits: Limits | None = None, outlet: Outlet | None = None
) -> Server:
    """Listen on `host:port` (0: any free port; see `.port`); raises ConflictError `port_in_use` where it is taken."""
    server = Server(app, limits or Limits(), asyncio.get_running_loop(), outlet)
    await server.listen(host, port)
    return server
