"""Requests to a platform: one place where foreign exceptions become ours and error bodies become errors again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx
import msgspec

from flyball.kernel.errors import (
    FlyballError,
    InternalError,
    InvalidError,
    LateError,
    UnavailableError,
    from_data,
)
from flyball.kernel.settings import ClientSettings

ATTEMPTS = 4
FIRST_PAUSE = 0.1  # seconds; doubled at each further attempt
LONGEST_PAUSE = 60.0  # seconds that a busy platform may ask for


def plain(value: Any) -> Any:
    """A NumPy scalar, or anything else with an `item()`, as the Python number it stands for."""
    if hasattr(value, "item"):
        return value.item()
    raise InvalidError(f"a {type(value).__name__} cannot be sent; use plain values", code="not_json")


def encode(data: Any) -> bytes:
    """JSON of plain data, datetimes (ISO 8601), decimals (text) and NumPy scalars; NaN becomes null."""
    return msgspec.json.encode(data, enc_hook=plain)


def translate(error: httpx.HTTPError | httpx.InvalidURL | httpx.StreamError, url: str) -> FlyballError:
    """What httpx raises, in our words. Total: what is not named is a platform that does not answer."""
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return InvalidError(
            f"{url!r} is not an address of a platform: {error}",
            code="bad_url",
            hint="export FLYBALL_URL=http://HOST:PORT",
        )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return UnavailableError(
            f"nothing answers at {url}", code="not_running", hint="flyball up   (or set FLYBALL_URL)"
        )
    if isinstance(error, httpx.TimeoutException):
        return LateError(f"{url} did not answer in time", code="timeout", hint="flyball status")
    return UnavailableError(
        f"{url} broke off the answer: {type(error).__name__}", code="connection_lost", hint="flyball status"
    )


def error_of(response: httpx.Response) -> FlyballError:
    """The error that a response's body carries; a body that is none of ours is named by its status."""
    try:
        data = response.json()
        return from_data(data["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return InternalError(
            f"{response.request.url} answered {response.status_code} without an error of ours",
            code="foreign_answer",
            hint="is that address a Flyball platform?",
        )


class Transport:
    """Sends requests with the caller's token and gives back decoded bodies.

    Args:
        settings: the platform's address and the token.
        timeout: seconds for one answer.
        transport: what carries the requests; None is the network.
        sleep: called between attempts.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
        self._http = httpx.Client(headers=headers, timeout=timeout, transport=transport)
        self._sleep = sleep

    def close(self) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        content: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Send one request and decode its answer.

        An idempotent one is sent again, a bounded number of times, when its connection is lost, and when the platform
        is busy and says after how long to come back.
        """
        sent = dict(headers or {})
        body = content
        if json is not None:
            body, sent["Content-Type"] = encode(json), "application/json"
        query = {key: value for key, value in (params or {}).items() if value is not None}
        repeatable = idempotent and (body is None or isinstance(body, bytes))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._http.request(
                    method,
                    url,
                    content=body,
                    headers=sent,
                    params=query or None,
                    timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
                )
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                ours = translate(error, url)
                if not repeatable or ours.code != "connection_lost" or attempt == ATTEMPTS:
                    raise ours from error
                self._sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            else:
                pause = retry_after(response)
                if not repeatable or pause is None or attempt == ATTEMPTS:
                    return decode(response)
                self._sleep(pause)
        raise AssertionError("unreachable")  # pragma: no cover


def retry_after(response: httpx.Response) -> float | None:
    """The seconds after which a busy platform takes the request; None: it did not say so."""
    text = response.headers.get("Retry-After", "")
    if response.status_code not in (429, 503) or not text.isdecimal():
        return None
    return min(float(text), LONGEST_PAUSE)


def decode(response: httpx.Response) -> Any:
    if response.status_code >= 400:
        raise error_of(response)
    if not response.content:
        return None
    if "json" not in response.headers.get("Content-Type", ""):
        return response.text
    return response.json()
