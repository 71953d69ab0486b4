"""A worker's application: its routes over its core.

What a request's head says (its route, the caller's permission, the service) is found out once for each head and plan,
not once a request. Replies are given when the core has them: at the end of the tick, or when a slow version is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flyball.http import openapi
from flyball.http.access import LOOPBACK_HOSTS, authorize
from flyball.http.handling import Handler, Known, check_ready, decode, defect, read_headers, take_headers
from flyball.http.messages import Exchange, Request, Response, error_response, json_response
from flyball.http.metrics import CONTENT_TYPE, InferenceMetrics
from flyball.http.oip import OpenInference
from flyball.http.outlet import Outlet
from flyball.kernel.errors import FlyballError, InvalidError
from flyball.kernel.times import parse_time
from flyball.serving.replies import outcomes, reply_data
from flyball.serving.request import Ask
from flyball.serving.service import Worker

MAX_ROWS = 100_000


class InferenceApp:
    """The application of a worker's HTTP server.

    Args:
        worker: its core, which answers on `loop` from now on; its plan holds the tokens.
        loop: the event loop that calls it, where its replies leave.
        ready: why the worker is not ready; empty where it is.
        hosts: names that the `Host` header may have.
    """

    def __init__(
        self,
        worker: Worker,
        metrics: InferenceMetrics,
        loop: Outlet,
        *,
        ready: Callable[[], str] = lambda: "",
        hosts: Iterable[str] = LOOPBACK_HOSTS,
    ) -> None:
        self._worker = worker
        self._metrics = metrics
        self._ready = ready
        self._hosts = frozenset(hosts)
        worker.run_on(loop, flush=loop.flush)
        self._handlers: dict[str, Handler] = {
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._render,
            "openapi": self._openapi,
            "predict": self._predict,
            **OpenInference(worker, metrics, why_not_ready=ready).handlers,
        }

    def __call__(self, request: Request, respond: Exchange) -> None:
        head, state = request.head, self._worker.state
        try:
            known = head.known if head is not None else None
            if known is None or known.state is not state:
                matched = authorize("inference", state.plan.tokens, request, hosts=self._hosts)
                known = Known(state, self._handlers[matched.route.name], matched)
                if head is not None:
                    head.known = known
            known.handler(request, known, respond)
        except FlyballError as error:
            self._metrics.refused(error.code)
            respond(error_response(error, request.path))

    def _healthz(self, request: Request, known: Known, respond: Exchange) -> None:
        respond(json_response({"status": "ok"}))

    def _readyz(self, request: Request, known: Known, respond: Exchange) -> None:
        check_ready(self._ready())
        respond(json_response({"ready": True, "epoch": self._worker.state.plan.epoch}))

    def _render(self, request: Request, known: Known, respond: Exchange) -> None:
        state = self._worker.state
        gauges = {"flyball_plan_epoch": float(state.plan.epoch), "flyball_services": float(len(state.services))}
        respond(Response(200, self._metrics.render(gauges), CONTENT_TYPE))

    def _openapi(self, request: Request, known: Known, respond: Exchange) -> None:
        respond(json_response(openapi.document(self._worker.state)))

    def _predict(self, request: Request, known: Known, respond: Exchange) -> None:
        rows, at, single = _read_rows(decode(request.body))

        def answer(ask: Ask) -> None:
            try:
                respond(_predicted(ask, single=single))
            except Exception:
                respond(defect(request.path))

        ask = Ask(known.matched.params["service"], rows, at=at, sender=respond, answer=answer)
        read_headers(known, request.headers)
        take_headers(ask, known)
        self._worker.submit(ask)


def _predicted(ask: Ask, *, single: bool) -> Response:
    if ask.error is not None:
        return error_response(ask.error)
    found = outcomes(ask)
    if not single:
        return json_response({"predictions": [reply_data(outcome) for outcome in found]})
    if isinstance(found[0], FlyballError):
        return error_response(found[0])
    return json_response(found[0])


def _read_rows(body: Mapping[str, Any]) -> tuple[list[Any], int | None, bool]:
    """Rows, their time (None: now), and whether one row was asked for: `{"inputs": {…}}`, `{"rows": [{…}]}`, or a
    bare object of fields."""
    if "rows" not in body and "inputs" not in body:
        return [body], None, True
    if not _ENVELOPE.issuperset(body):
        return [body], None, True
    at = body.get("at")
    if at is not None and (isinstance(at, bool) or not isinstance(at, int | str)):
        raise InvalidError("`at` must be ISO 8601 or microseconds since 1970", code="bad_time")
    moment = None if at is None else parse_time(at)
    if "rows" not in body:
        return [body["inputs"]], moment, True
    rows = body["rows"]
    if not isinstance(rows, list) or len(rows) > MAX_ROWS or "inputs" in body:
        raise InvalidError(f"`rows` must be a list of at most {MAX_ROWS} objects", code="bad_rows")
    return rows, moment, False


_ENVELOPE = frozenset({"rows", "inputs", "at"})
