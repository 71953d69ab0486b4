"""Request heads, parsed once: a client sends the same block of headers again and again.

A block that was not seen before is parsed by llhttp, alone and strictly. What came of it is kept under its exact bytes,
so the next request with these bytes costs a look into a table. A head is kept only where its body's length stands in it
and nothing else about it asks for the stream (chunks, `Expect`, an upgrade); all others are left to the stream parser.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import httptools

END = b"\r\n\r\n"
ENTRIES = 4096
LONGEST = 4096  # bytes of a head that is kept; a longer one is rare, and is parsed each time
_STREAMED = frozenset({"transfer-encoding", "expect", "upgrade"})


class Head:
    """A request without its body. Shared by all requests with these bytes: what it holds is not changed.

    `known` is the application's: what it found out about this head, and which is true for every request with it.
    """

    __slots__ = ("close", "head_only", "headers", "known", "length", "method", "path", "query")

    def __init__(self, method: str, url: bytes, headers: dict[str, str], *, close: bool) -> None:
        self.method = method
        self.path = url.partition(b"?")[0].decode("latin-1")
        self.query = query_of(url)
        self.headers = headers
        self.length = 0
        self.close = close
        self.head_only = method == "HEAD"
        self.known: Any = None


class Heads:
    """The heads of one server. Bounded: the oldest goes where a new one comes.

    Args:
        header_bytes, body_bytes: a head beyond them is left to the stream parser, which refuses it.
    """

    def __init__(self, *, header_bytes: int, body_bytes: int, entries: int = ENTRIES) -> None:
        self._header_bytes = min(header_bytes, LONGEST)
        self._body_bytes = body_bytes
        self._entries = entries
        self._known: dict[bytes, Head] = {}

    def clear(self) -> None:
        """Forget all heads, and what the application knows of them: it may hold on to what is served no longer."""
        self._known.clear()

    def find(self, block: bytes) -> Head | None:
        """The head of a block that ends with an empty line; None where the stream parser must look at it."""
        head = self._known.get(block)
        if head is None and len(block) <= self._header_bytes:
            head = _parse(block, self._body_bytes)
            if head is not None:
                if len(self._known) >= self._entries:
                    del self._known[next(iter(self._known))]
                self._known[block] = head
        return head


class _Reading:
    """What llhttp finds in one block."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers: dict[str, str] = {}
        self.complete = False
        self.close = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        add_header(self.headers, name, value)

    def on_headers_complete(self) -> None:
        self.complete = True
        self.close = not self.parser.should_keep_alive()  # asked later, it speaks of the next message


def _parse(block: bytes, body_bytes: int) -> Head | None:
    reading = _Reading()
    try:
        reading.parser.feed_data(block)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None  # the stream parser says what is wrong
    length = reading.headers.get("content-length", "0")
    if not reading.complete or not _STREAMED.isdisjoint(reading.headers):
        return None
    if not (length.isascii() and length.isdigit()) or int(length) > body_bytes:
        return None
    head = Head(reading.parser.get_method().decode(), reading.url, reading.headers, close=reading.close)
    head.length = int(length)
    return head


def add_header(headers: dict[str, str], name: bytes, value: bytes) -> None:
    """Names are lower case; a repeated header is joined."""
    key, text = name.decode("latin-1").lower(), value.decode("latin-1")
    before = headers.get(key)
    headers[key] = text if before is None else f"{before}, {text}"


def query_of(url: bytes) -> dict[str, str]:
    text = url.partition(b"?")[2]
    return dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True)) if text else {}
