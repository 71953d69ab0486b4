"""The inference routes over a worker's core: named-entity predict, and the Open Inference Protocol (v2).

What a request's head says (its route, the caller's permission) is found out once for each head and plan, not once a
request. Replies are given when the core has them: at the end of the tick, or when a slow version is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

import flyball
from flyball.http.access import LOOPBACK_HOSTS, Matched, authorize
from flyball.http.messages import Exchange, Request, Response, error_response, json_response
from flyball.http.metrics import CONTENT_TYPE, InferenceMetrics
from flyball.kernel.errors import FlyballError, InternalError, InvalidError, UnavailableError
from flyball.kernel.times import parse_time
from flyball.serving.oip_reply import write_reply
from flyball.serving.oip_request import InferRequest, read_header_length, read_request
from flyball.serving.ports import Loop
from flyball.serving.replies import outcomes, reply_data
from flyball.serving.request import Ask
from flyball.serving.service import Worker, inferred

logger = logging.getLogger(__name__)

MAX_ROWS = 100_000
HEADER_LENGTH = "inference-header-content-length"
DEADLINE = "x-request-deadline-ms"
PRIORITY = "x-request-priority"
LONGEST_MS = 1e9

Handler = Callable[[Request, Matched, Exchange], None]


class InferenceApp:
    """The application of a worker's HTTP server.

    Args:
        worker: its core, which answers on `loop` from now on; its plan holds the tokens.
        loop: the event loop that calls it.
        ready: why the worker is not ready; empty where it is.
        hosts: names that the `Host` header may have.
    """

    def __init__(
        self,
        worker: Worker,
        metrics: InferenceMetrics,
        loop: Loop,
        *,
        ready: Callable[[], str] = lambda: "",
        hosts: Iterable[str] = LOOPBACK_HOSTS,
    ) -> None:
        self._worker = worker
        self._metrics = metrics
        self._ready = ready
        self._hosts = frozenset(hosts)
        worker.run_on(loop)
        self._handlers: dict[str, Handler] = {
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._render,
            "predict": self._predict,
            "oip_live": self._live,
            "oip_ready": self._oip_ready,
            "oip_server": self._server,
            "oip_model": self._model,
            "oip_model_version": self._model,
            "oip_model_ready": self._model_ready,
            "oip_model_version_ready": self._model_ready,
            "oip_infer": self._infer,
            "oip_infer_version": self._infer,
        }

    def __call__(self, request: Request, respond: Exchange) -> None:
        head = request.head
        tokens = self._worker.state.plan.tokens
        try:
            if head is not None and head.known is not None and head.known[0] is tokens:
                _, handler, matched = head.known
            else:
                matched = authorize("inference", tokens, request, hosts=self._hosts)
                handler = self._handlers[matched.route.name]
                if head is not None:
                    head.known = (tokens, handler, matched)
            handler(request, matched, respond)
        except FlyballError as error:
            self._metrics.refused(error.code)
            respond(error_response(error, request.path))

    def close(self) -> None:
        """Nothing is answered any more."""

    # every process

    def _healthz(self, request: Request, matched: Matched, respond: Exchange) -> None:
        respond(json_response({"status": "ok"}))

    def _readyz(self, request: Request, matched: Matched, respond: Exchange) -> None:
        self._check_ready()
        respond(json_response({"ready": True, "epoch": self._worker.state.plan.epoch}))

    def _render(self, request: Request, matched: Matched, respond: Exchange) -> None:
        state = self._worker.state
        gauges = {"flyball_plan_epoch": float(state.plan.epoch), "flyball_services": float(len(state.services))}
        respond(Response(200, self._metrics.render(gauges), CONTENT_TYPE))

    def _check_ready(self) -> None:
        why = self._ready()
        if why:
            raise UnavailableError(f"the worker is not ready: {why}", code="not_ready")

    # named-entity predict

    def _predict(self, request: Request, matched: Matched, respond: Exchange) -> None:
        rows, at, single = _read_rows(_decode(request.body))

        def answer(ask: Ask) -> None:
            try:
                respond(_predicted(ask, single=single))
            except Exception:
                respond(self._defect(request.path))

        ask = Ask(service=matched.params["service"], rows=rows, at=at, sender=respond, answer=answer)
        _take_headers(ask, request.headers)
        self._worker.submit(ask)

    # Open Inference Protocol

    def _live(self, request: Request, matched: Matched, respond: Exchange) -> None:
        respond(json_response({"live": True}))

    def _oip_ready(self, request: Request, matched: Matched, respond: Exchange) -> None:
        self._check_ready()
        respond(json_response({"ready": True}))

    def _server(self, request: Request, matched: Matched, respond: Exchange) -> None:
        respond(
            json_response({"name": "flyball", "version": flyball.__version__, "extensions": ["binary_tensor_data"]})
        )

    def _model(self, request: Request, matched: Matched, respond: Exchange) -> None:
        service = self._worker.state.service(matched.params["model"])
        served = service.of(matched.params.get("version"))
        body = {
            "name": service.name,
            "versions": sorted(ref.rpartition("/")[2] for ref in service.versions),
            "platform": f"flyball_{served.manifest.kind or 'features'}",
            **msgspec.to_builtins(served.signature),
        }
        respond(json_response(body))

    def _model_ready(self, request: Request, matched: Matched, respond: Exchange) -> None:
        self._check_ready()
        service = self._worker.state.service(matched.params["model"])
        if "version" in matched.params:
            service.find(matched.params["version"])
        respond(json_response({"name": service.name, "ready": True}))

    def _infer(self, request: Request, matched: Matched, respond: Exchange) -> None:
        headers = request.headers
        if headers.get("content-encoding", "identity") != "identity":
            raise InvalidError("compressed requests are not taken", code="unsupported_media_type")
        model, version = matched.params["model"], matched.params.get("version")
        asked = self._read(request.body, headers.get(HEADER_LENGTH), model, version)

        def answer(ask: Ask) -> None:
            try:
                number, outputs, labels = inferred(ask)
                respond(_tensor_response(*write_reply(asked, model, number, outputs, labels)))
            except FlyballError as error:
                respond(error_response(error, request.path))
            except Exception:
                respond(self._defect(request.path))

        ask = self._worker.ask_of(model, asked, version=version)
        ask.sender, ask.answer = respond, answer
        _take_headers(ask, headers)
        self._worker.submit(ask)

    def _defect(self, path: str) -> Response:
        logger.exception("a request was not answered", extra={"path": path})
        return error_response(InternalError("a defect of the worker; its log has the details"), path)

    def _read(self, body: bytes, length: str | None, model: str, version: str | None) -> InferRequest:
        if length is None:
            return read_request(body)
        size = read_header_length(length)
        return read_request(
            body, size, None if size else self._worker.state.service(model).of(version).signature.inputs
        )


def _predicted(ask: Ask, *, single: bool) -> Response:
    if ask.error is not None:
        return error_response(ask.error)
    found = outcomes(ask)
    if not single:
        return json_response({"predictions": [reply_data(outcome) for outcome in found]})
    if isinstance(found[0], FlyballError):
        return error_response(found[0])
    return json_response(found[0])


def _take_headers(ask: Ask, headers: Mapping[str, str]) -> None:
    """The deadline and the priority of a request; the stricter deadline of header and body counts."""
    ask.arrived = time.monotonic()
    given = headers.get(DEADLINE)
    if given is not None:
        milliseconds = _number(DEADLINE, given, "milliseconds above 0")
        if not 0 < milliseconds <= LONGEST_MS:
            raise _bad_header(DEADLINE, given, "milliseconds above 0")
        timeout = max(1, int(milliseconds * 1_000))
        ask.timeout_us = timeout if ask.timeout_us is None else min(ask.timeout_us, timeout)
    given = headers.get(PRIORITY)
    if given is not None:
        ask.priority = int(_number(PRIORITY, given, "1 for the highest, or more"))
        if ask.priority < 1:
            raise _bad_header(PRIORITY, given, "1 for the highest, or more")


def _number(name: str, given: str, right: str) -> float:
    try:
        return float(given)
    except ValueError:
        raise _bad_header(name, given, right) from None


def _bad_header(name: str, given: str, right: str) -> InvalidError:
    return InvalidError(f"the header {name} is {given[:40]!r}; it must be {right}", code="bad_request")


def _decode(body: bytes) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"the body is not JSON: {error}", code="bad_json") from None
    if not isinstance(data, dict):
        raise InvalidError("the body must be a JSON object", code="bad_request")
    return data


def _read_rows(body: Mapping[str, Any]) -> tuple[list[Any], int | None, bool]:
    """Rows, their time (None: now), and whether one row was asked for: `{"inputs": {…}}`, `{"rows": [{…}]}`, or a
    bare object of fields."""
    known = {"rows", "inputs", "at"}
    if ("rows" not in body and "inputs" not in body) or not known.issuperset(body):
        return [dict(body)], None, True
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


def _tensor_response(body: bytes, header_length: int | None) -> Response:
    if header_length is None:
        return Response(200, body)
    header = (("Inference-Header-Content-Length", str(header_length)),)
    return Response(200, body, "application/octet-stream", header)
