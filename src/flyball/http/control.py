"""The control API: a FastAPI application made from the table of routes, over a core that knows no HTTP.

Each control route's handler is found by the route's name; a route without a handler, or a handler without a route,
fails at start. Access is checked by the `Gate` before any of this runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from flyball.define.spec import ProjectSpec, RolloutSpec, project_from_data
from flyball.http.access import Tokens
from flyball.http.control_metrics import exposition
from flyball.http.gate import Gate, defect
from flyball.http.messages import Response as Answer
from flyball.http.messages import error_response
from flyball.http.routes import routes_of
from flyball.http.session import OneTimeCode, Sessions, set_cookie
from flyball.kernel.errors import (
    ConflictError,
    FlyballError,
    InternalError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    did_you_mean,
)
from flyball.kernel.facts import Actor
from flyball.kernel.ids import digest as digest_of
from flyball.kernel.times import parse_time

MAX_ARTIFACT = 2 << 30  # bytes
Data = dict[str, Any]


class ControlCore(Protocol):
    """What the API needs of `flyball.loop.control.Control`. Errors are `FlyballError`s."""

    def plan(self, project: ProjectSpec) -> Data: ...
    def apply(self, project: ProjectSpec, *, base: str, actor: Actor) -> Data: ...
    def project(self, name: str) -> ProjectSpec: ...
    def put_artifact(self, data: bytes) -> str: ...
    def train(self, model: str, *, actor: Actor, reason: str = "", params: Data | None = None) -> Data: ...
    def runs(self, *, model: str = "", kind: str = "", limit: int = 50) -> list[Data]: ...
    def run(self, run: str) -> Data: ...
    def run_logs(self, run: str, after: Annotated[int, Query(ge=0, le=2**31)] = 0) -> Data: ...
    def versions(self, model: str) -> Data: ...
    def service(self, name: str) -> Data: ...
    def release(
        self, service: str, *, version: int | str, strategy: RolloutSpec | None = None, actor: Actor
    ) -> Data: ...
    def rollback(self, service: str, *, actor: Actor) -> Data: ...
    def approve(self, service: str, *, version: int | str, actor: Actor) -> Data: ...
    def quality(self, service: str) -> Data: ...
    def drift(self, service: str) -> Data: ...
    def skew(self, service: str) -> Data: ...
    def views(self) -> list[Data]: ...
    def view_sql(self, view: str, *, kind: str = "delta", table: str = "") -> Data: ...
    def explain(
        self, view: str, feature: str, *, entity: Mapping[str, Any], at: int | None = None, prediction: str = ""
    ) -> Data: ...
    def prediction(self, prediction: str) -> Data: ...
    def batch(self, name: str) -> Data: ...
    def facts(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[Data]: ...
    def erase(
        self,
        source: str,
        column: str,
        value: str,
        *,
        also: Sequence[tuple[str, str]] = (),
        actor: Actor,
        dry_run: bool = False,
    ) -> Data: ...
    def erasure(self, erasure: str) -> Data: ...
    def erasures(self, *, limit: int = 100) -> list[Data]: ...
    def advance_clock(self, at: int, actor: Actor) -> Data: ...


class Pages(Protocol):
    """What draws the console: `flyball.console`, handed in by the composition root."""

    SECURITY_HEADERS: dict[str, str]

    def page(self, status: Any) -> str: ...
    def loop_picture(self, status: Any) -> str: ...
    def static(self, file: str) -> tuple[bytes, str]: ...


@dataclass(frozen=True, kw_only=True)
class Shell:
    """What a core is served with.

    Args:
        pages: the console.
        status: what `/v1/status`, the console and the metrics show: the core's, with what other processes tell.
        tokens, names: SHA-256 of each token → its permissions, and the name its acts are recorded under.
        endpoints: where the processes listen: `{"control", "ingest", "inference"}`; None while that is not known.
        writing: held by whoever changes the platform: a request, or the loops' tick.
        ready: raises `UnavailableError` while the platform cannot do its work.
    """

    core: ControlCore
    pages: Pages
    status: Callable[[], Data]
    tokens: Tokens
    names: Mapping[str, str]
    sessions: Sessions
    code: OneTimeCode
    endpoints: Callable[[], Data | None]
    writing: threading.Lock = field(default_factory=threading.Lock)
    ready: Callable[[], None] = lambda: None


Limit = Annotated[int, Query(ge=1, le=10_000)]
Entity = Annotated[list[str] | None, Query()]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PlanBody(Body):
    spec: Data


class ApplyBody(Body):
    spec: Data
    base: str


class TrainBody(Body):
    reason: str = ""
    params: Data = {}


class ReleaseBody(Body):
    version: int | str | None = None
    strategy: str | None = None


class ApproveBody(Body):
    version: int | str | None = None


class EraseBody(Body):
    source: str
    column: str
    value: str
    also: list[tuple[str, str]] = []
    dry_run: bool = False


class ClockBody(Body):
    at: int | str


def actor_of(request: Request) -> Actor:
    actor: Actor = request.state.actor
    return actor


By = Depends(actor_of)


def reply(data: Any) -> Response:
    return Response(msgspec.json.encode(data), media_type="application/json")


def project_of(data: Data) -> ProjectSpec:
    try:
        return project_from_data(data)
    except msgspec.ValidationError as error:
        raise InvalidError(
            f"the body's `spec` is not a compiled project: {error}",
            code="bad_project",
            hint="send what flyball.define.compile.compile_project(project).to_data() gives, from the same version",
        ) from None


def newest(core: ControlCore, service: str) -> str:
    """The newest version of a service's model."""
    model = str(core.service(service)["model"])
    versions = core.versions(model)["versions"]
    if not versions:
        raise NotFoundError(f"{model} has no version yet", code="version_not_found", hint=f"flyball train {model}")
    return str(max(versions, key=lambda version: int(version["number"]))["version"])


def entity_of(given: Sequence[str]) -> Data:
    """`column=value` texts as an entity."""
    entity: Data = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidError("an entity is given as entity=column=value, once for each column", code="bad_entity")
        entity[name] = value
    return entity


def awaiting(core: ControlCore, service: str) -> str:
    """The version that waits for approval."""
    waits = core.service(service).get("awaiting")
    if not waits:
        raise ConflictError(f"no version waits for approval by {service}", code="not_awaiting", hint="flyball status")
    return str(waits["version"])


STRATEGIES: dict[str, RolloutSpec | None] = {
    "": None,  # the service's own
    "full": RolloutSpec(kind="full"),
    "canary": RolloutSpec(kind="canary", steps=(1.0, 5.0, 25.0, 100.0)),
}


def strategy_of(name: str) -> RolloutSpec | None:
    if name not in STRATEGIES:
        raise InvalidError(f"no strategy {name!r}: {did_you_mean(name, filter(None, STRATEGIES))}", code="bad_strategy")
    return STRATEGIES[name]


class Handlers:
    """One method for each control route, of the route's name. FastAPI runs them in threads."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._core = shell.core

    # every process

    def healthz(self) -> Response:
        return reply({"status": "ok"})

    def readyz(self) -> Response:
        self._shell.ready()
        return reply({"status": "ready"})

    def metrics(self) -> Response:
        return Response(exposition(self._shell.status()), media_type="text/plain; version=0.0.4; charset=utf-8")

    # console

    def console(self) -> Response:
        return self._html(self._shell.pages.page(self._shell.status()))

    def console_loop(self) -> Response:
        return self._html(self._shell.pages.loop_picture(self._shell.status()))

    def console_static(self, file: str) -> Response:
        content, kind = self._shell.pages.static(file)
        headers = {**self._shell.pages.SECURITY_HEADERS, "Cache-Control": "max-age=60", "Content-Type": kind}
        return Response(content, headers=headers)

    def console_open(self, code: str = "") -> Response:
        self._shell.code.redeem(code)
        cookie = set_cookie(self._shell.sessions.issue())
        return Response(
            status_code=303, headers={**self._shell.pages.SECURITY_HEADERS, "Location": "/", "Set-Cookie": cookie}
        )

    def _html(self, text: str) -> Response:
        return Response(text, media_type="text/html; charset=utf-8", headers=self._shell.pages.SECURITY_HEADERS)

    # the platform

    def status(self) -> Response:
        return reply(self._shell.status())

    def endpoints(self) -> Response:
        found = self._shell.endpoints()
        if found is None:
            raise UnavailableError("the platform is still starting", code="starting", hint="try again in a second")
        return reply(found)

    def list_facts(self, subject: str = "", kind: str = "", limit: Limit = 100) -> Response:
        return reply({"facts": self._core.facts(subject=subject, kind=kind, limit=limit)})

    def advance_clock(self, body: ClockBody, actor: Actor = By) -> Response:
        return reply(self._core.advance_clock(parse_time(body.at), actor))  # time does not wait for a tick

    # projects

    async def put_artifact(self, digest: str, request: Request) -> Response:
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_ARTIFACT:
                raise InvalidError("an artifact is larger than 2 GiB", code="body_too_large")
        return await run_in_threadpool(self._store, digest, bytes(data))

    def _store(self, digest: str, data: bytes) -> Response:
        found = digest_of(data)
        if found != digest:
            raise InvalidError(
                f"the artifact was named {digest[:12]}… and its content is {found[:12]}…", code="digest_mismatch"
            )
        return reply({"digest": self._core.put_artifact(data)})

    def get_project(self, project: str) -> Response:
        spec = self._core.project(project)
        return reply({"digest": spec.hash, "spec": spec.to_data()})

    def plan_project(self, project: str, body: PlanBody) -> Response:
        self._same_project(project, body.spec)
        return reply(self._core.plan(project_of(body.spec)))

    def apply_project(self, project: str, body: ApplyBody, actor: Actor = By) -> Response:
        self._same_project(project, body.spec)
        spec = project_of(body.spec)
        with self._shell.writing:
            return reply(self._core.apply(spec, base=body.base, actor=actor))

    @staticmethod
    def _same_project(project: str, spec: Data) -> None:
        if spec.get("name") != project:
            raise InvalidError(
                f"the address names the project {project!r}, the body {spec.get('name')!r}", code="project_mismatch"
            )

    # training

    def train(self, model: str, body: TrainBody, actor: Actor = By) -> Response:
        with self._shell.writing:
            return reply(self._core.train(model, actor=actor, reason=body.reason, params=body.params))

    def list_runs(self, model: str = "", limit: Limit = 50) -> Response:
        return reply({"runs": self._core.runs(model=model, limit=limit)})

    def get_run(self, run: str) -> Response:
        return reply(self._core.run(run))

    def run_logs(self, run: str, after: Annotated[int, Query(ge=0, le=2**31)] = 0) -> Response:
        return reply(self._core.run_logs(run, after=after))

    def list_versions(self, model: str) -> Response:
        return reply(self._core.versions(model))

    # services

    def get_service(self, service: str) -> Response:
        return reply(self._core.service(service))

    def release(self, service: str, body: ReleaseBody, actor: Actor = By) -> Response:
        strategy = strategy_of(body.strategy or "")
        with self._shell.writing:
            version = newest(self._core, service) if body.version is None else body.version
            return reply(self._core.release(service, version=version, strategy=strategy, actor=actor))

    def rollback(self, service: str, actor: Actor = By) -> Response:
        with self._shell.writing:
            return reply(self._core.rollback(service, actor=actor))

    def approve(self, service: str, body: ApproveBody, actor: Actor = By) -> Response:
        with self._shell.writing:
            version = awaiting(self._core, service) if body.version is None else body.version
            return reply(self._core.approve(service, version=version, actor=actor))

    def service_quality(self, service: str) -> Response:
        return reply(self._core.quality(service))

    def service_drift(self, service: str) -> Response:
        return reply(self._core.drift(service))

    def service_skew(self, service: str) -> Response:
        return reply(self._core.skew(service))

    # views

    def list_views(self) -> Response:
        return reply({"views": self._core.views()})

    def view_sql(self, view: str, kind: Annotated[str, Query(alias="from")] = "delta", table: str = "") -> Response:
        return reply(self._core.view_sql(view, kind=kind, table=table))

    def explain_feature(
        self, view: str, feature: str, entity: Entity = None, at: str = "", prediction: str = ""
    ) -> Response:
        moment = parse_time(int(at) if at.lstrip("-").isdecimal() else at) if at else None
        found = self._core.explain(view, feature, entity=entity_of(entity or []), at=moment, prediction=prediction)
        return reply(found)

    def get_prediction(self, prediction: str) -> Response:
        return reply(self._core.prediction(prediction))

    def get_batch(self, batch: str) -> Response:
        return reply(self._core.batch(batch))

    # erasure

    def erase(self, body: EraseBody, actor: Actor = By) -> Response:
        with self._shell.writing:
            return reply(
                self._core.erase(
                    body.source, body.column, body.value, also=body.also, actor=actor, dry_run=body.dry_run
                )
            )

    def list_erasures(self, limit: Limit = 100) -> Response:
        return reply({"erasures": self._core.erasures(limit=limit)})

    def get_erasure(self, erasure: str) -> Response:
        return reply(self._core.erasure(erasure))


def same_route(request: Request) -> None:
    """A second look: the framework must have chosen the very route whose permission was checked."""
    if request.scope["route"].name != request.state.matched.route.name:
        raise NotFoundError(f"there is nothing at {request.url.path}", code="no_such_path")


def application(shell: Shell) -> Gate:
    """The ASGI application of the control process."""
    api = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(same_route)])
    add_routes(api, Handlers(shell))
    api.add_exception_handler(RequestValidationError, refuse_body)
    api.add_exception_handler(FlyballError, tell_error)
    api.add_exception_handler(Exception, tell_defect)  # the framework raises it again: the gate logs it
    return Gate(api, tokens=shell.tokens, names=shell.names, sessions=shell.sessions)


def add_routes(api: FastAPI, handlers: object) -> None:
    """Give each control route its handler; both must match exactly."""
    routes = {route.name: route for route in routes_of("control")}
    offered = {name for name in dir(handlers) if not name.startswith("_")}
    if offered != set(routes):
        raise InternalError(
            f"routes and handlers differ: {', '.join(sorted(offered ^ set(routes)))}", code="routes_incomplete"
        )
    for name, route in routes.items():
        methods = [route.method, "HEAD"] if route.method == "GET" else [route.method]
        api.add_api_route(route.path, getattr(handlers, name), methods=methods, name=name, response_model=None)


def as_reply(answer: Answer) -> Response:
    headers = dict(answer.headers)
    return Response(answer.body, status_code=answer.status, media_type=answer.content_type, headers=headers)


async def tell_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FlyballError)  # as registered
    return as_reply(error_response(error))


async def tell_defect(request: Request, error: Exception) -> Response:
    return as_reply(defect())


async def refuse_body(request: Request, error: Exception) -> Response:
    """What a body or query lacks, without its values: they may be a user's data."""
    problems: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError) else ()
    said = "; ".join(f"{'.'.join(str(part) for part in p['loc'])}: {p['msg']}" for p in problems[:5])
    return as_reply(error_response(InvalidError(f"the request does not fit: {said}", code="bad_request")))
