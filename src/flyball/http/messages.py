"""Requests, replies and errors as the data plane's applications see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from flyball.http.errors import HTTP_STATUS
from flyball.http.heads import Head
from flyball.kernel.errors import ErrorKind, FlyballError

JSON = "application/json"
CODE_STATUS: dict[str, int] = {  # codes whose status is more exact than that of their kind
    "unauthenticated": 401,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "body_too_large": 413,
    "header_too_large": 431,
    "unsupported_media_type": 415,
}


@dataclass(slots=True)
class Request:
    """One request. `path` is as received, percent-encoded; header names are lower case; a repeated one is joined.
    `head`: where other requests may have the same one, which then stands for all of it but the body."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    head: Head | None = None


@dataclass(slots=True)
class Response:
    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


Respond = Callable[[Response], None]


class Exchange(Protocol):
    """Where the one reply to a request goes. `gone`: the client has left, so that nobody waits for it."""

    @property
    def gone(self) -> bool: ...

    def __call__(self, response: Response, /) -> None: ...


App = Callable[[Request, Exchange], None]


def json_response(data: Any, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(data))


def status_of(error: FlyballError) -> int:
    """The HTTP status of an error: by its kind, or by its code where that is more exact."""
    return CODE_STATUS.get(error.code) or HTTP_STATUS[error.kind]


def error_response(error: FlyballError, path: str = "") -> Response:
    """`{"error": {...}}`, or the Open Inference Protocol's `{"error": "message"}` where `path` is one of its own."""
    if path == "/v2" or path.startswith("/v2/"):
        body: Any = {"error": error.message}
    else:
        body = {"error": error.to_data()}
    response = json_response(body, status_of(error))
    if response.status == HTTPStatus.UNAUTHORIZED:
        response.headers = (("www-authenticate", "Bearer"),)
    elif response.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        response.headers = (("retry-after", str(max(1, int(error.details.get("retry_after", 1))))),)
    return response


def refusal(status: int, code: str, message: str, path: str = "") -> Response:
    """An error of the protocol itself, which has no kind in the tree of errors."""
    body: Any = {"code": code, "kind": ErrorKind.INVALID.value, "message": message}
    return json_response({"error": message if path.startswith("/v2") else body}, status)


_STATUS_LINES: dict[int, bytes] = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


def status_line(status: int) -> bytes:
    """The first line of a reply."""
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()
