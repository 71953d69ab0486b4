"""The quarantine over HTTP: what a request asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from flyball.http.messages import Request, Response, json_response
from flyball.kernel.errors import InvalidError

STATES = ("open", "retried", "superseded", "dropped")


class QuarantineCore(Protocol):
    """What these handlers call of `flyball.ingest.service.Ingest`."""

    def quarantine(self, source: str, *, rule: str = "", state: str = "", limit: int = 100) -> dict[str, Any]: ...

    def quarantined(self, id: str) -> dict[str, Any]: ...

    def retry(self, source: str, *, rule: str = "", ids: Sequence[str] = ()) -> dict[str, Any]: ...

    def drop(self, source: str, *, rule: str = "", ids: Sequence[str] = ()) -> dict[str, Any]: ...


def list_quarantine(core: QuarantineCore, request: Request, source: str) -> Response:
    """`?rule=&state=&limit=`: the newest rows, and the newest pushes that were refused whole."""
    text = request.query.get("limit", "100")
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise InvalidError(f"limit is {text!r}; use 1 to 1000", code="bad_limit")
    state = request.query.get("state", "")
    if state not in ("", *STATES):
        raise InvalidError(f"state is {state!r}; use {', '.join(STATES)}, or nothing for all", code="bad_state")
    return json_response(core.quarantine(source, rule=request.query.get("rule", ""), state=state, limit=int(text)))


def show_quarantined(core: QuarantineCore, id: str) -> Response:
    return json_response(core.quarantined(id))


def retry_quarantine(core: QuarantineCore, request: Request, source: str) -> Response:
    """`{"rule": …, "ids": […]}`, or nothing for all open rows."""
    rule, ids = _asked(request.body)
    return json_response(core.retry(source, rule=rule, ids=ids))


def drop_quarantine(core: QuarantineCore, request: Request, source: str) -> Response:
    """`{"rule": …}`, `{"ids": […]}`, or `{"all": true}`, so that nothing is dropped by an empty request."""
    rule, ids = _asked(request.body, all_said=True)
    return json_response(core.drop(source, rule=rule, ids=ids))


def _asked(body: bytes, *, all_said: bool = False) -> tuple[str, list[str]]:
    try:
        asked = msgspec.json.decode(body) if body else {}
    except msgspec.DecodeError as error:
        raise InvalidError(f"the body is not JSON: {error}", code="bad_json") from None
    rule = asked.get("rule") or "" if isinstance(asked, dict) else None
    ids = asked.get("ids") or [] if isinstance(asked, dict) else None
    if not isinstance(rule, str) or not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise InvalidError('send {"rule": "null"} or {"ids": ["Payments:12.3"]}', code="bad_body")
    if all_said and not (rule or ids or asked.get("all") is True):
        raise InvalidError(
            'nothing says which rows are dropped; send {"rule": …}, {"ids": […]} or {"all": true}', code="bad_body"
        )
    return rule, ids
