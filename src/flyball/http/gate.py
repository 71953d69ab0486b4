"""The control process's gate: pure ASGI, before every handler. It names the request, checks access, and turns errors
into answers. What it lets through carries the route, the path's parameters and the actor in `scope["state"]`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flyball.http.access import Matched, Tokens, authorize, token_digest
from flyball.http.messages import Request, Response, error_response
from flyball.http.session import Sessions, session_cookie
from flyball.kernel.errors import FlyballError, InternalError, NotFoundError
from flyball.kernel.facts import Actor
from flyball.kernel.ids import new_id

logger = logging.getLogger(__name__)
REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,80}")


class Gate:
    """Checks each request against the table of routes, then hands it on.

    Args:
        tokens: SHA-256 of each token → its permissions.
        names: SHA-256 of each token → the name its acts are recorded under.
        sessions: what the console's cookies are checked against; a session may read, by GET alone.
    """

    def __init__(self, app: ASGIApp, *, tokens: Tokens, names: Mapping[str, str], sessions: Sessions) -> None:
        self._app = app
        self._tokens = tokens
        self._names = names
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = request_of(scope)
        given = request.headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else new_id("req")
        started = finished = False

        async def named(message: Message) -> None:
            nonlocal started, finished
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            matched = self._authorize(request)
            actor = Actor(name=self._names.get(matched.caller, "anonymous"), request_id=request_id)
            scope.setdefault("state", {}).update(matched=matched, actor=actor)
            await self._app(scope, receive, named)
        except FlyballError as error:
            await answer(error_response(error, request.path), named)
        except Exception:
            logger.exception("a request was not answered", extra={"path": request.path, "request": request_id})
            if not started:
                await answer(defect(), named)
            elif not finished:
                raise  # the server cuts the connection: the caller must not take half an answer for a whole one

    def _authorize(self, request: Request) -> Matched:
        tokens = self._tokens
        cookie = session_cookie(request.headers.get("cookie", ""))
        if (
            cookie
            and request.method == "GET"
            and "authorization" not in request.headers
            and self._sessions.valid(cookie)
        ):
            tokens = {**tokens, token_digest(cookie): ("read",)}
            request.headers["authorization"] = f"Bearer {cookie}"
        matched = authorize("control", tokens, request)
        if any("/" in value for value in matched.params.values()):  # the framework would see other segments than we do
            raise NotFoundError(f"there is nothing at {request.path}", code="no_such_path")
        return matched


def request_of(scope: Scope) -> Request:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    path = scope.get("raw_path") or scope["path"].encode()
    return Request(scope["method"], path.decode("latin-1").partition("?")[0], {}, headers, b"")


def defect() -> Response:
    return error_response(InternalError("a defect of the platform; control's log has it"))


async def answer(response: Response, send: Send) -> None:
    headers = [(b"content-type", response.content_type.encode())]
    headers += [(name.encode(), value.encode()) for name, value in response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
