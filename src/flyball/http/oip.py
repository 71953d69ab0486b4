"""The Open Inference Protocol (v2) and its extensions, over HTTP.

https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Callable

from flyball.http.access import Matched
from flyball.http.handling import Handler, Known, check_ready, decode, defect, read_headers, take_headers
from flyball.http.messages import Exchange, Request, Response, error_response, json_response
from flyball.http.metrics import InferenceMetrics
from flyball.kernel.errors import FlyballError, InvalidError
from flyball.serving.inferred import reply_to
from flyball.serving.oip_documents import index_document, model_document, models_document, server_document
from flyball.serving.oip_reply import ReplyForm
from flyball.serving.oip_request import read_header_length, read_request
from flyball.serving.oip_statistics import statistics_document
from flyball.serving.request import Ask
from flyball.serving.service import Worker
from flyball.serving.state import Served, Service

HEADER_LENGTH = "inference-header-content-length"


class _Target:
    """What an inference's head asks for, in one state of the worker."""

    __slots__ = (
        "described",
        "form",
        "header_length",
        "may_turn_away",
        "model",
        "refusal",
        "refused",
        "service",
        "version",
    )

    def __init__(self, service: Service, model: str, version: str | None, header_length: int | None) -> None:
        self.service = service
        self.model = model
        self.version = version
        self.described: Served = service.of(version)
        self.header_length = header_length
        self.form = ReplyForm(model)
        self.may_turn_away = version is None
        self.refused: FlyballError | None = None
        self.refusal = Response(429, b"")


class OpenInference:
    """The protocol's handlers, by the names of their routes.

    Args:
        why_not_ready: why the worker is not ready; empty where it is.
    """

    def __init__(self, worker: Worker, metrics: InferenceMetrics, *, why_not_ready: Callable[[], str]) -> None:
        self._worker = worker
        self._metrics = metrics
        self._why_not_ready = why_not_ready
        self.handlers: dict[str, Handler] = {
            "oip_live": self._live,
            "oip_ready": self._ready,
            "oip_server": self._server,
            "oip_models": self._models,
            "oip_model": self._model,
            "oip_model_version": self._model,
            "oip_model_ready": self._model_ready,
            "oip_model_version_ready": self._model_ready,
            "oip_statistics": self._statistics,
            "oip_model_statistics": self._statistics,
            "oip_version_statistics": self._statistics,
            "oip_index": self._index,
            "oip_infer": self._infer,
            "oip_infer_version": self._infer,
        }

    def _live(self, request: Request, known: Known, respond: Exchange) -> None:
        respond(json_response({"live": True}))

    def _ready(self, request: Request, known: Known, respond: Exchange) -> None:
        check_ready(self._why_not_ready())
        respond(json_response({"ready": True}))

    def _server(self, request: Request, known: Known, respond: Exchange) -> None:
        respond(json_response(server_document()))

    def _models(self, request: Request, known: Known, respond: Exchange) -> None:
        respond(json_response(models_document(self._worker.state)))

    def _model(self, request: Request, known: Known, respond: Exchange) -> None:
        params = known.matched.params
        service = self._worker.state.service(params["model"])
        respond(json_response(model_document(service, params.get("version"))))

    def _model_ready(self, request: Request, known: Known, respond: Exchange) -> None:
        check_ready(self._why_not_ready())
        service = self._worker.state.service(known.matched.params["model"])
        service.of(known.matched.params.get("version"))
        respond(json_response({"name": service.name, "ready": True}))

    def _statistics(self, request: Request, known: Known, respond: Exchange) -> None:
        params = known.matched.params
        sums, state = self._metrics.sums(), self._worker.state
        respond(json_response(statistics_document(sums, state, params.get("model"), params.get("version"))))

    def _index(self, request: Request, known: Known, respond: Exchange) -> None:
        only_ready = bool(request.body) and decode(request.body).get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidError("`ready` must be true or false", code="bad_request")
        state, why = self._worker.state, self._why_not_ready()
        respond(json_response(index_document(state, only_ready=only_ready, not_ready=why)))

    def _infer(self, request: Request, known: Known, respond: Exchange) -> None:
        target = known.target
        if target is None:
            read_headers(known, request.headers)  # first: a head that is refused is refused each time
            target = known.target = self._target(request, known.matched)
        if target.may_turn_away and b'"priority"' not in request.body:
            refused = self._worker.turn_away(target.service, target.described, known.timeout_us)
            if refused is not None:
                if refused is not target.refused:
                    target.refused, target.refusal = refused, error_response(refused, request.path)
                respond(target.refusal)
                return
        length = target.header_length
        asked = read_request(request.body, length, target.described.signature.inputs if length == 0 else None)

        def answer(ask: Ask) -> None:
            if ask.error is not None:
                respond(error_response(ask.error, request.path))
                return
            try:
                body, json_bytes = reply_to(asked, ask, target.form)
                if json_bytes is None:
                    respond(Response(200, body))
                else:
                    header = (("Inference-Header-Content-Length", str(json_bytes)),)
                    respond(Response(200, body, "application/octet-stream", header))
            except FlyballError as error:
                respond(error_response(error, request.path))
            except Exception:
                respond(defect(request.path))

        ask = self._worker.ask_of(target.service, target.described, asked, version=target.version)
        ask.sender, ask.answer = respond, answer
        take_headers(ask, known)
        self._worker.submit(ask)

    def _target(self, request: Request, matched: Matched) -> _Target:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise InvalidError("compressed requests are not taken", code="unsupported_media_type")
        length = request.headers.get(HEADER_LENGTH)
        return _Target(
            self._worker.state.service(matched.params["model"]),
            matched.params["model"],
            matched.params.get("version"),
            None if length is None else read_header_length(length),
        )
