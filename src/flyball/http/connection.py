"""One connection of the data plane's server: requests cut out of its bytes, replies in the order of their requests."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httptools

from flyball.http.heads import END, Head, add_header, query_of
from flyball.http.messages import Request, Response, error_response, refusal
from flyball.kernel.errors import FlyballError, InternalError

if TYPE_CHECKING:
    from flyball.http.server import Server

logger = logging.getLogger(__name__)

LINGER_SECONDS = 2.0  # how long a refused client may go on sending before its connection is cut


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one server takes. Beyond it a client gets 431, 413, 429, 503 or 408; `pipeline` only stops the reading.

    `receiving_bytes` is of the bodies that are not complete yet, of all connections together.
    """

    header_bytes: int = 32 * 1024
    body_bytes: int = 64 * 1024 * 1024
    receiving_bytes: int = 4 * 1024**3
    connections: int = 16_384
    pipeline: int = 128
    idle_seconds: float = 75.0  # nothing received and nothing owed
    request_seconds: float = 120.0  # from a request's first byte to its last


class Exchange:
    """One request's place in its connection's queue of replies; called with the reply."""

    __slots__ = ("close", "connection", "data", "head_only", "interim", "path")

    def __init__(self, connection: Connection, path: str, head_only: bool, close: bool) -> None:
        self.connection = connection
        self.path = path
        self.head_only = head_only
        self.close = close
        self.interim = False  # a `100 Continue` is owed before the reply
        self.data: bytes | None = None

    @property
    def gone(self) -> bool:
        """Whether the client has left, so that nobody waits for the reply."""
        return self.connection.lost

    def __call__(self, response: Response) -> None:
        if self.data is not None:
            raise RuntimeError(f"a request to {self.path} was answered twice")
        connection = self.connection
        server = connection.server
        if server.leaving and connection.queue and connection.queue[-1] is self:
            self.close = True
        self.interim = False
        self.data = server.encode(response, head_only=self.head_only, close=self.close)
        if not connection.dirty:
            server.flush_soon(connection)


class Connection(asyncio.Protocol):
    """Parses requests and keeps their replies in order. All names without underscore are httptools' or asyncio's."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.queue: deque[Exchange] = deque()
        self.dirty = False
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None  # llhttp, made where it is first needed: most connections never need it
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
        self._exchange: Exchange | None = None
        self._refusal: Response | None = None
        self._streaming = False  # llhttp is in the middle of a request
        self._head: Head | None = None  # a known head whose body is not complete
        self.lost = False
        self._last = False  # nothing more is read: an error, `Connection: close`, or the end of the server
        self._write_full = False

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._seen = self.server.time()
        if not self.server.admit(self):
            busy = refusal(503, "too_many_connections", "the server has as many connections as it takes; try again")
            busy.headers = (("retry-after", "1"),)
            self._transport.write(self.server.encode(busy, head_only=False, close=True))
            self._end_reading()
            self._close(refused=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.lost = True
        self._received()
        self.queue.clear()
        self.server.forget(self)

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        server = self.server
        self._seen = server.time()
        server.outlet.held = True
        try:
            if self._streaming:
                self._stream(data)
            else:
                self._frame(data)
            if self._refusal is not None:
                self._answer_refusal(self._refusal)
            elif len(self.queue) > server.limits.pipeline:
                self._pause()
        finally:
            server.outlet.release()

    def _frame(self, data: bytes) -> None:
        """Cut requests with known heads out of what came; from the first other one on, it is the stream parser's."""
        at, size = 0, len(data)
        heads = self.server.heads
        while at < size and not self._last and self._refusal is None:
            head = self._head
            if head is None:
                end = data.find(END, at) + 4
                head = heads.find(data[at:end] if at or end < size else data) if end > 3 else None
                if head is None:
                    self._stream(data[at:] if at else data)
                    return
                at = end
                self._exchange = Exchange(self, head.path, head.head_only, head.close)
                self.queue.append(self._exchange)
            missing = head.length - self._size
            if size - at < missing:
                if self._head is None:
                    self._head = head
                    self._reading = True
                    self._began = self._seen
                self._take(data[at:] if at else data)
                return
            body = data[at : at + missing]
            at += missing
            if self._head is not None:
                self._head = None
                self._reading = False
                self._body.append(body)
                body = b"".join(self._body)
                self._body = []
                self._received()
            self._hand_over(Request(head.method, head.path, head.query, head.headers, body, head))

    def _stream(self, data: bytes) -> None:
        """Have llhttp parse what came: the rest of its request, and what follows."""
        self._streaming = True
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
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
        self._streaming = self._reading

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
        add_header(self._headers, name, value)

    def on_headers_complete(self) -> None:
        self._in_header = False
        if self._refusal is not None:
            return
        parser = self._parser
        path = self._url.partition(b"?")[0].decode("latin-1")
        close = not parser.should_keep_alive()
        self._exchange = Exchange(self, path, parser.get_method() == b"HEAD", close)
        self.queue.append(self._exchange)
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > self.server.limits.body_bytes:
            self._refuse_body()
        elif self._headers.get("expect", "").lower() == "100-continue" and parser.get_http_version() != "1.0":
            self._exchange.interim = True
            self.server.flush_soon(self)

    def on_body(self, body: bytes) -> None:
        self._take(body)

    def on_message_complete(self) -> None:
        if self._refusal is not None or self._last:
            return
        self._reading = False
        self._received()
        exchange = cast(Exchange, self._exchange)
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        method = self._parser.get_method().decode()
        self._hand_over(Request(method, exchange.path, query_of(self._url), self._headers, body))

    def _take(self, part: bytes) -> None:
        """A part of a body that is not complete."""
        server = self.server
        self._size += len(part)
        server.receiving += len(part)
        if self._size > server.limits.body_bytes:
            self._refuse_body()
        elif server.receiving > server.limits.receiving_bytes and self._size < server.receiving:
            self._refusal = refusal(429, "receiving_full", "too many bytes are on their way to this server; try again")
            self._refusal.headers = (("retry-after", "5"),)
        elif self._refusal is None:
            self._body.append(part)

    def _hand_over(self, request: Request) -> None:
        """Give a whole request to the application."""
        exchange = cast(Exchange, self._exchange)
        self._exchange = None
        if exchange.close:
            self._end_reading()
        try:
            self.server.app(request, exchange)
        except FlyballError as error:
            exchange(error_response(error, exchange.path))
        except Exception:
            logger.exception("a request was not answered", extra={"path": exchange.path})
            exchange(error_response(InternalError("a defect of the server; its log has the details")))

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
            exchange = Exchange(self, "", False, True)
            self.queue.append(exchange)
        exchange.close = True
        exchange(response)

    def _received(self) -> None:
        """The body is complete, or never will be: it is no longer on its way."""
        self.server.receiving -= self._size
        self._size = 0

    def _end_reading(self) -> None:
        self._last = True
        self._reading = self._in_header = False
        self._head = None

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
