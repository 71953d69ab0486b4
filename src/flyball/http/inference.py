"""The inference routes over a worker's core: named-entity predict, and the Open Inference Protocol (v2).

Requests of one tick are answered as one batch. Services whose versions take long run on threads, so that they do not
hold up the others; what arrives for such a service meanwhile is its next batch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

import flyball
from flyball.http.access import LOOPBACK_HOSTS, Matched, authorize
from flyball.http.messages import Request, Respond, Response, error_response, json_response
from flyball.http.metrics import CONTENT_TYPE, InferenceMetrics
from flyball.kernel.errors import FlyballError, InternalError, InvalidError, UnavailableError
from flyball.kernel.times import parse_time
from flyball.serving.batcher import TickBatcher
from flyball.serving.oip_reply import write_reply
from flyball.serving.oip_request import InferRequest, read_header_length, read_request
from flyball.serving.replies import Outcome, reply_data
from flyball.serving.service import Ask, Worker

logger = logging.getLogger(__name__)

MAX_ROWS = 100_000
HEADER_LENGTH = "inference-header-content-length"
THREADS = 4


@dataclass(slots=True)
class _Waiting:
    """A predict request on its way. `single`: it asked for one row, and gets one reply."""

    ask: Ask
    respond: Respond
    single: bool


class InferenceApp:
    """The application of a worker's HTTP server.

    Args:
        worker: its core; its plan holds the tokens.
        loop: the event loop that calls it.
        ready: why the worker is not ready; empty where it is.
        hosts: names that the `Host` header may have.
    """

    def __init__(
        self,
        worker: Worker,
        metrics: InferenceMetrics,
        loop: asyncio.AbstractEventLoop,
        *,
        ready: Callable[[], str] = lambda: "",
        hosts: Iterable[str] = LOOPBACK_HOSTS,
    ) -> None:
        self._worker = worker
        self._metrics = metrics
        self._loop = loop
        self._ready = ready
        self._hosts = frozenset(hosts)
        self._batcher: TickBatcher[_Waiting] = TickBatcher(loop.call_soon, self._flush)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="slow")
        self._queued: dict[str, list[_Waiting]] = {}  # by slow service that is being answered: its next batch
        self._handlers: dict[str, Callable[[Request, Matched, Respond], None]] = {
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

    def __call__(self, request: Request, respond: Respond) -> None:
        try:
            matched = authorize("inference", self._worker.state.plan.tokens, request, hosts=self._hosts)
            self._handlers[matched.route.name](request, matched, respond)
        except FlyballError as error:
            self._metrics.refused(error.code)
            respond(error_response(error, request.path))

    def close(self) -> None:
        self._threads.shutdown()

    # every process

    def _healthz(self, request: Request, matched: Matched, respond: Respond) -> None:
        respond(json_response({"status": "ok"}))

    def _readyz(self, request: Request, matched: Matched, respond: Respond) -> None:
        self._check_ready()
        respond(json_response({"ready": True, "epoch": self._worker.state.plan.epoch}))

    def _render(self, request: Request, matched: Matched, respond: Respond) -> None:
        state = self._worker.state
        gauges = {"flyball_plan_epoch": float(state.plan.epoch), "flyball_services": float(len(state.services))}
        respond(Response(200, self._metrics.render(gauges), CONTENT_TYPE))

    def _check_ready(self) -> None:
        why = self._ready()
        if why:
            raise UnavailableError(f"the worker is not ready: {why}", code="not_ready")

    # named-entity predict

    def _predict(self, request: Request, matched: Matched, respond: Respond) -> None:
        rows, at, single = _read_rows(_decode(request.body))
        ask = Ask(service=matched.params["service"], rows=rows, at=at, arrived=time.monotonic())
        self._batcher.add(_Waiting(ask, respond, single))

    def _flush(self, waiting: list[_Waiting]) -> None:
        """Answer a tick's requests: those of fast services at once and together, those of slow ones on a thread."""
        services = self._worker.state.services
        fast: list[_Waiting] = []
        for item in waiting:
            service = services.get(item.ask.service)
            if service is None or not service.slow:
                fast.append(item)
            elif item.ask.service in self._queued:
                self._queued[item.ask.service].append(item)
            else:
                self._queued[item.ask.service] = [item]
                self._loop.call_soon(self._run_slow, item.ask.service)
        if fast:
            self._answer(fast, self._outcomes(fast))

    def _run_slow(self, service: str) -> None:
        batch, self._queued[service] = self._queued[service], []
        if not batch:
            del self._queued[service]
            return

        def done(future: asyncio.Future[list[list[Outcome] | FlyballError]]) -> None:
            self._answer(batch, future.result())
            self._run_slow(service)

        self._loop.run_in_executor(self._threads, self._outcomes, batch).add_done_callback(done)

    def _outcomes(self, waiting: list[_Waiting]) -> list[list[Outcome] | FlyballError]:
        try:
            return self._worker.predict_many([item.ask for item in waiting])
        except Exception:
            logger.exception("a batch was not answered")
            error = InternalError("a defect of the worker; its log has the details")
            return [error for _ in waiting]

    def _answer(self, waiting: list[_Waiting], results: list[list[Outcome] | FlyballError]) -> None:
        for item, result in zip(waiting, results, strict=True):
            if not isinstance(result, FlyballError) and item.single and isinstance(result[0], FlyballError):
                item.respond(error_response(result[0]))
            elif isinstance(result, FlyballError):
                self._metrics.refused(result.code)
                item.respond(error_response(result))
            elif item.single:
                item.respond(json_response(result[0]))
            else:
                item.respond(json_response({"predictions": [reply_data(outcome) for outcome in result]}))

    # Open Inference Protocol

    def _live(self, request: Request, matched: Matched, respond: Respond) -> None:
        respond(json_response({"live": True}))

    def _oip_ready(self, request: Request, matched: Matched, respond: Respond) -> None:
        self._check_ready()
        respond(json_response({"ready": True}))

    def _server(self, request: Request, matched: Matched, respond: Respond) -> None:
        respond(
            json_response({"name": "flyball", "version": flyball.__version__, "extensions": ["binary_tensor_data"]})
        )

    def _model(self, request: Request, matched: Matched, respond: Respond) -> None:
        service = self._worker.state.service(matched.params["model"])
        served = service.of(matched.params.get("version"))
        body = {
            "name": service.name,
            "versions": sorted(ref.rpartition("/")[2] for ref in service.versions),
            "platform": f"flyball_{served.manifest.kind or 'features'}",
            **msgspec.to_builtins(served.signature),
        }
        respond(json_response(body))

    def _model_ready(self, request: Request, matched: Matched, respond: Respond) -> None:
        self._check_ready()
        service = self._worker.state.service(matched.params["model"])
        if "version" in matched.params:
            service.find(matched.params["version"])
        respond(json_response({"name": service.name, "ready": True}))

    def _infer(self, request: Request, matched: Matched, respond: Respond) -> None:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise InvalidError("compressed requests are not taken", code="unsupported_media_type")
        model, version = matched.params["model"], matched.params.get("version")
        length = request.headers.get(HEADER_LENGTH)

        def answer() -> Response:
            try:
                asked = self._read(request.body, length, model, version)
                name, number, outputs, labels = self._worker.infer_tensors(model, asked, version=version)
                return _tensor_response(*write_reply(asked, name, number, outputs, labels))
            except FlyballError as error:
                self._metrics.refused(error.code)
                return error_response(error, request.path)
            except Exception:
                logger.exception("a request was not answered")
                return error_response(InternalError("a defect of the worker; its log has the details"), request.path)

        service = self._worker.state.services.get(model)
        if service is None or not service.slow:
            respond(answer())
        else:
            future = self._loop.run_in_executor(self._threads, answer)
            future.add_done_callback(lambda done: respond(done.result()))

    def _read(self, body: bytes, length: str | None, model: str, version: str | None) -> InferRequest:
        if length is None:
            return read_request(body)
        size = read_header_length(length)
        return read_request(
            body, size, None if size else self._worker.state.service(model).of(version).signature.inputs
        )


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
