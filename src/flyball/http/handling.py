"""What the handlers of a worker's routes share: what is known of a request's head, its deadline, its body as JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from flyball.http.access import Matched
from flyball.http.messages import Exchange, Request, Response, error_response
from flyball.kernel.errors import InternalError, InvalidError, UnavailableError
from flyball.serving.request import Ask
from flyball.serving.state import State

logger = logging.getLogger(__name__)

DEADLINE = "x-request-deadline-ms"
PRIORITY = "x-request-priority"
LONGEST_MS = 1e9


class Known:
    """What is true for every request with one head, in one state of the worker.

    `target` is the handler's own. `timeout_us` and `priority` stand in the head; `read` says whether they were looked
    for.
    """

    __slots__ = ("handler", "matched", "priority", "read", "state", "target", "timeout_us")

    def __init__(self, state: State, handler: Handler, matched: Matched) -> None:
        self.state = state
        self.handler = handler
        self.matched = matched
        self.target: Any = None
        self.read = False
        self.timeout_us: int | None = None
        self.priority: int | None = None


Handler = Callable[[Request, Known, Exchange], None]


def decode(body: bytes) -> dict[str, Any]:
    """A body as a JSON object; raises `bad_json` or `bad_request`."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"the body is not JSON: {error}", code="bad_json") from None
    if not isinstance(data, dict):
        raise InvalidError("the body must be a JSON object", code="bad_request")
    return data


def check_ready(why_not: str) -> None:
    """Raises `not_ready` where there is a reason why a worker is not."""
    if why_not:
        raise UnavailableError(f"the worker is not ready: {why_not}", code="not_ready")


def defect(path: str) -> Response:
    """To be called where an exception is handled that nobody foresaw."""
    logger.exception("a request was not answered", extra={"path": path})
    return error_response(InternalError("a defect of the worker; its log has the details"), path)


def read_headers(known: Known, headers: Mapping[str, str]) -> None:
    """The deadline and the priority that stand in a head; raises `bad_request`."""
    if not known.read:
        known.timeout_us, known.priority = _deadline(headers.get(DEADLINE)), _priority(headers.get(PRIORITY))
        known.read = True


def take_headers(ask: Ask, known: Known) -> None:
    """What `read_headers` found, for one request; of two deadlines, in header and body, the stricter counts."""
    ask.arrived = time.monotonic()
    if known.timeout_us is not None:
        ask.timeout_us = known.timeout_us if ask.timeout_us is None else min(ask.timeout_us, known.timeout_us)
    if known.priority is not None:
        ask.priority = known.priority


def _deadline(given: str | None) -> int | None:
    if given is None:
        return None
    milliseconds = _number(given)
    if not 0 < milliseconds <= LONGEST_MS:
        raise _bad_header(DEADLINE, given, "milliseconds above 0")
    return max(1, int(milliseconds * 1_000))


def _priority(given: str | None) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and int(given[:9]) > 0):
        raise _bad_header(PRIORITY, given, "1 for the highest, or a larger whole number")
    return int(given[:9])


def _number(given: str) -> float:
    """NaN for what is no number: it is neither below nor above anything."""
    try:
        return float(given)
    except ValueError:
        return float("nan")


def _bad_header(name: str, given: str, right: str) -> InvalidError:
    return InvalidError(f"the header {name} is {given[:40]!r}; it must be {right}", code="bad_request")
