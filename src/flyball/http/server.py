"""The HTTP/1.1 server of the data plane: one `asyncio.Protocol` a connection, no framework, no task per request.

An application is a callable `app(request, respond)` that calls `respond(response)` exactly once, now or later (a batch
answers many requests at the end of a tick). Replies leave in the order of their requests, joined into one write per
connection and tick. HTTP is parsed by httptools (llhttp), strictly.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from typing import cast
from urllib.parse import parse_qsl

import httptools

from flyball.http.listening import listen_error
from flyball.http.messages import (
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
from flyball.kernel.errors import FlyballError, InternalError

logger = logging.getLogger(__name__)

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

LINGER_SECONDS = 2.0  # how long a refused client may go on sending before its connection is cut


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one server takes. Beyond it a client gets 431, 413, 429, 503 or 408; `pipeline` only stops the reading.

    `receiving_bytes` is of the bodies that are not complete yet, of all connections together.
    """

    header_bytes: int = 32 * 1024
    body_bytes: int = 64 * 1024 * 1024
    receiving_bytes: int = 4 * 1024**3
    connections: int = 4096
    pipeline: int = 128
    idle_seconds: float = 75.0  # nothing received and nothing owed
    request_seconds: float = 120.0  # from a request's first byte to its last


class _Exchange:
    """One request's place in its connection's queue of replies."""

    __slots__ = ("close", "connection", "data", "head_only", "interim", "path")

    def __init__(self, connection: _Connection, *, path: str, head_only: bool, close: bool) -> None:
        self.connection = connection
        self.path = path
        self.head_only = head_only
        self.close = close
        self.interim = False  # a `100 Continue` is owed before the reply
        self.data: bytes | None = None

    def respond(self, response: Response) -> None:
        if self.data is not None:
            raise RuntimeError(f"a request to {self.path} was answered twice")
        connection = self.connection
        if connection.queue and connection.server.stopping and connection.queue[-1] is self:
            self.close = True
        self.interim = False
        self.data = connection.server.encode(response, head_only=self.head_only, close=self.close)
        connection.server.flush_soon(connection)


class _Connection(asyncio.Protocol):
    """Parses requests and keeps their replies in order. All names without underscore are httptools' or asyncio's."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.queue: deque[_Exchange] = deque()
        self.dirty = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._reading = False  # between the first byte of a request and its last
        self._in_header = False
        self._began = 0.0
        self._seen = 0.0
        self._stalled = 0  # bytes received since a header began and did not end
        self._header_bytes = 0
        self._size = 0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._exchange: _Exchange | None = None
        self._refusal: Response | None = None
        self._last = False  # nothing more is read: an error, `Connection: close`, or the end of the server
        self._write_full = False

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._seen = self.server.time()
        if not self.server.admit(self):
            busy = refusal(503, "too_many_connections", "the server has as many connections as it takes; try again")
            self._transport.write(self.server.encode(busy, head_only=False, close=True))
            self._end_reading()
            self._close(refused=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._received()
        self.queue.clear()
        self.server.forget(self)

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        self._seen = self.server.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end_reading()  # no upgrade is offered: the request was taken as it is, what follows is not HTTP
        except httptools.HttpParserError:
            self._refusal = self._refusal or refusal(400, "bad_request", "the request is not valid HTTP/1.1")
        if self._in_header:
            self._stalled += len(data) if self._stalled else 1
            if self._stalled > self.server.limits.header_bytes:
                self._refuse_header()
        if self._refusal is not None:
            self._answer_refusal(self._refusal)
        elif len(self.queue) > self.server.limits.pipeline:
            self._pause()

    def eof_received(self) -> bool:
        if self._reading and self.queue and self.queue[-1] is self._exchange and self._exchange.data is None:
            self.queue.pop()  # its body will never be complete, so it is owed nothing
        self._received()
        self._end_reading()
        return bool(self.queue)  # half-closed: what is owed is still sent

    def pause_writing(self) -> None:
        self._write_full = True
        self._pause()

    def resume_writing(self) -> None:
        self._write_full = False
        self._resume()

    # httptools

    def on_message_begin(self) -> None:
        self._reading = self._in_header = True
        self._began = self._seen
        self._stalled = self._header_bytes = 0
        self._url = b""
        self._headers = {}
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.server.limits.header_bytes:
            self._refuse_header()
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        before = self._headers.get(key)
        self._headers[key] = text if before is None else f"{before}, {text}"

    def on_headers_complete(self) -> None:
        self._in_header = False
        if self._refusal is not None:
            return
        parser = self._parser
        path = self._url.partition(b"?")[0].decode("latin-1")
        close = not parser.should_keep_alive()
        self._exchange = _Exchange(self, path=path, head_only=parser.get_method() == b"HEAD", close=close)
        self.queue.append(self._exchange)
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > self.server.limits.body_bytes:
            self._refuse_body()
        elif self._headers.get("expect", "").lower() == "100-continue" and parser.get_http_version() != "1.0":
            self._exchange.interim = True
            self.server.flush_soon(self)

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        self.server.receiving += len(body)
        if self._size > self.server.limits.body_bytes:
            self._refuse_body()
        elif self.server.receiving > self.server.limits.receiving_bytes and self._size < self.server.receiving:
            self._refusal = refusal(429, "receiving_full", "too many bytes are on their way to this server; try again")
            self._refusal.headers = (("retry-after", "5"),)
        elif self._refusal is None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._refusal is not None or self._last:
            return
        self._reading = False
        self._received()
        exchange = cast(_Exchange, self._exchange)
        self._exchange = None
        if exchange.close:
            self._end_reading()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        request = Request(self._parser.get_method().decode(), exchange.path, _query(self._url), self._headers, body)
        try:
            self.server.app(request, exchange.respond)
        except FlyballError as error:
            exchange.respond(error_response(error, exchange.path))
        except Exception:
            logger.exception("a request was not answered", extra={"path": exchange.path})
            exchange.respond(error_response(InternalError("a defect of the server; its log has the details")))

    # replies

    def flush(self) -> None:
        """Write every reply that is ready and whose turn it is, in one write."""
        self.dirty = False
        if self._transport is None:
            return
        parts: list[bytes] = []
        close = False
        while self.queue and self.queue[0].data is not None and not close:
            exchange = self.queue.popleft()
            parts.append(cast(bytes, exchange.data))
            close = exchange.close
        if not close and self.queue and self.queue[0].interim:
            self.queue[0].interim = False
            parts.append(b"HTTP/1.1 100 Continue\r\n\r\n")
        if parts:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
        owes_nothing = not self.queue and not self._reading
        if close or (owes_nothing and (self._last or self.server.stopping)):
            self._last = True
            self._close(refused=self._refusal is not None)
        else:
            self._resume()

    def stop(self) -> None:
        """Close now if nothing is owed; else after the last reply that is."""
        if self._transport is not None and not self.queue and not self._reading:
            self._end_reading()
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def sweep(self, now: float) -> None:
        """Close a connection that is idle for too long, or whose request does not end."""
        limits = self.server.limits
        if self._transport is None or self._last:
            return
        if self._reading and (now - self._began > limits.request_seconds or now - self._seen > limits.idle_seconds):
            self._answer_refusal(refusal(408, "request_timeout", "the request did not arrive in time"))
        elif not self._reading and not self.queue and now - self._seen > limits.idle_seconds:
            self._transport.close()

    def _refuse_header(self) -> None:
        limit = self.server.limits.header_bytes
        self._refusal = refusal(431, "header_too_large", f"the request's header is larger than {limit} bytes")

    def _refuse_body(self) -> None:
        limit = self.server.limits.body_bytes
        self._refusal = refusal(413, "body_too_large", f"the request's body is larger than {limit} bytes")

    def _answer_refusal(self, response: Response) -> None:
        if self._last:
            return
        self._refusal = response
        self._received()
        self._body = []
        self._end_reading()
        exchange = self._exchange
        if exchange is None or exchange.data is not None:
            exchange = _Exchange(self, path="", head_only=False, close=True)
            self.queue.append(exchange)
        exchange.close = True
        exchange.respond(response)

    def _received(self) -> None:
        """The body is complete, or never will be: it is no longer on its way."""
        self.server.receiving -= self._size
        self._size = 0

    def _end_reading(self) -> None:
        self._last = True
        self._reading = self._in_header = False

    def _close(self, *, refused: bool) -> None:
        """A refused client may still be sending: closing at once would reset the connection and lose the reply."""
        if self._transport is None:
            return
        if refused and self._transport.can_write_eof():
            self._transport.write_eof()
            self.server.later(LINGER_SECONDS, self.abort)
            self._resume()
        else:
            self._transport.close()

    def _pause(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def _resume(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._write_full or transport.is_reading():
            return
        if len(self.queue) <= self.server.limits.pipeline:
            transport.resume_reading()


class Server:
    """A listening server; made by `start`."""

    def __init__(self, app: App, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.limits = limits
        self.stopping = False
        self.receiving = 0
        self.port = 0
        self.time = loop.time
        self.later = loop.call_later
        self._loop = loop
        self._listener: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._dirty: list[_Connection] = []
        self._empty: asyncio.Future[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._date = (0, b"")

    async def listen(self, host: str, port: int, *, reuse_port: bool) -> None:
        try:
            self._listener = await self._loop.create_server(
                lambda: _Connection(self), host, port, reuse_port=reuse_port or None, backlog=1024
            )
        except OSError as error:
            raise listen_error(error, host, port) from None
        self.port = int(self._listener.sockets[0].getsockname()[1])
        self._sweep()

    async def stop(self, grace: float = 10.0) -> None:
        """Stop accepting, answer what was received, close; what is not answered after `grace` seconds is cut."""
        self.stopping = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.stop()
        if self._connections:
            self._empty = self._loop.create_future()
            await asyncio.wait([self._empty], timeout=grace)
        for connection in list(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    @property
    def connections(self) -> int:
        return len(self._connections)

    def admit(self, connection: _Connection) -> bool:
        if self.stopping or len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def flush_soon(self, connection: _Connection) -> None:
        if connection.dirty:
            return
        connection.dirty = True
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(connection)

    def encode(self, response: Response, *, head_only: bool, close: bool) -> bytes:
        """The reply as bytes; a header that holds a line break is a defect and is refused."""
        head = status_line(response.status) + self._now() + response.content_type.encode("latin-1")
        for name, value in response.headers:
            if "\n" in value or "\r" in value:
                raise ValueError(f"the header {name} holds a line break")
            head += b"\r\n" + name.encode("latin-1") + b": " + value.encode("latin-1")
        if close:
            head += b"\r\nconnection: close"
        head += b"\r\ncontent-length: " + str(len(response.body)).encode() + b"\r\n\r\n"
        return head if head_only else head + response.body

    def _now(self) -> bytes:
        second = int(time.time())
        if second != self._date[0]:
            text = f"date: {formatdate(second, usegmt=True)}\r\ncontent-type: "
            self._date = (second, text.encode("latin-1"))
        return self._date[1]

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    def _sweep(self) -> None:
        now = self.time()
        for connection in list(self._connections):
            connection.sweep(now)
        pause = max(0.05, min(self.limits.idle_seconds, self.limits.request_seconds) / 4)
        self._sweeper = self._loop.call_later(pause, self._sweep)


async def start(
    app: App, *, host: str = "127.0.0.1", port: int = 0, reuse_port: bool = False, limits: Limits | None = None
) -> Server:
    """Listen on `host:port` (0: any free port; see `.port`); raises ConflictError `port_in_use` where it is taken."""
    server = Server(app, limits or Limits(), asyncio.get_running_loop())
    await server.listen(host, port, reuse_port=reuse_port)
    return server


def _query(url: bytes) -> dict[str, str]:
    text = url.partition(b"?")[2]
    return dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True)) if text else {}
