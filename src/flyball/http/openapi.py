"""The OpenAPI 3.1 document of the data plane: the one table of routes, and the services of the plan.

What a route takes and answers stands here by its name; a route without an entry cannot be described and fails a test.
https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flyball
from flyball.http.handling import DEADLINE, PRIORITY
from flyball.http.openapi_schemas import Schema, object_of, ref, row_schema, schemas
from flyball.http.routes import Permission, Route, routes_of
from flyball.serving.state import State

JSON = "application/json"
BYTES = "application/octet-stream"
TEXT = "text/plain"
LENGTH = "Inference-Header-Content-Length"

PLAIN, PROTOCOL = "Error", "ProtocolError"
_ERRORS: dict[int, str] = {
    400: "The request is wrong; the message names what is, and where.",
    401: "There is no token, or it is not known.",
    403: "The token lacks the permission, or the host or the origin is not one that is served.",
    404: "There is no such service, model or version.",
    413: "The body is larger than the server takes.",
    415: "The body is compressed.",
    429: "A limit is reached; `Retry-After` says when to try again.",
    500: "A defect of the worker; its log has the details.",
    503: "The worker is not ready, or something that it needs does not answer.",
    504: "The deadline passed.",
}
_READ = (404,)
_ASK = (400, 404, 413, 429, 500, 503, 504)


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """What one route takes and answers. `reply` and `body` are names of schemas; "" where there is none.

    `binary`: bytes may follow the JSON, both ways. `errors` are beside those that its permission brings.
    """

    tag: str
    summary: str
    reply: str = ""
    body: str = ""
    binary: bool = False
    errors: tuple[int, ...] = ()


_PREDICTS = frozenset({"predict", "oip_infer", "oip_infer_version"})
_HEADERS: list[dict[str, Any]] = [
    {
        "name": DEADLINE,
        "in": "header",
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "description": "Milliseconds from arrival to answer; it can only shorten the service's own deadline.",
    },
    {
        "name": PRIORITY,
        "in": "header",
        "schema": {"type": "integer", "minimum": 1, "default": 2},
        "description": "1 is served first where rows wait for a version.",
    },
]


def _of(tag: str, summary: str, reply: str = "", *errors: int) -> Operation:
    return Operation(tag=tag, summary=summary, reply=reply, errors=errors)


def _infer(summary: str) -> Operation:
    return Operation(
        tag="inference",
        summary=summary,
        body="InferenceRequest",
        reply="InferenceReply",
        binary=True,
        errors=(*_ASK, 415),
    )


OPERATIONS: dict[str, Operation] = {  # by the route's name
    "healthz": _of("health", "Whether the process lives.", "Status"),
    "readyz": _of("health", "Whether the worker serves a plan.", "WorkerReady", 503),
    "metrics": _of("metrics", "Counts and durations in Prometheus' text format."),
    "openapi": _of("metrics", "This document."),
    "predict": Operation(
        tag="predict",
        summary="Predictions for rows of fields by name, with their receipts.",
        body="PredictRequest",
        reply="PredictReply",
        errors=_ASK,
    ),
    "oip_live": _of("health", "Whether the server lives.", "Live"),
    "oip_ready": _of("health", "Whether the server is ready.", "Ready", 503),
    "oip_server": _of("metadata", "Name, version and extensions of the server.", "ServerMetadata"),
    "oip_models": _of("metadata", "The models that are served.", "Models"),
    "oip_model": _of("metadata", "A model's versions, inputs and outputs.", "ModelMetadata", *_READ),
    "oip_model_version": _of("metadata", "A version's inputs and outputs.", "ModelMetadata", *_READ),
    "oip_model_ready": _of("health", "Whether a model is ready.", "ModelReady", *_READ, 503),
    "oip_model_version_ready": _of("health", "Whether a version is ready.", "ModelReady", *_READ, 503),
    "oip_infer": _infer("Ask a model; the plan's routing chooses the version."),
    "oip_infer_version": _infer("Ask a version of a model."),
    "oip_statistics": _of("statistics", "Statistics of everything that is served.", "Statistics"),
    "oip_model_statistics": _of("statistics", "Statistics of a model's versions.", "Statistics", *_READ),
    "oip_version_statistics": _of("statistics", "Statistics of a version.", "Statistics", *_READ),
    "oip_index": Operation(
        tag="metadata",
        summary="Each version that is served, and whether it is ready.",
        body="IndexRequest",
        reply="Index",
        errors=(400,),
    ),
}


def document(state: State) -> dict[str, Any]:
    """The document for what is served now. Pure."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes_of("inference"):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, state)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flyball inference",
            "version": flyball.__version__,
            "description": "Predictions by fields, and the Open Inference Protocol (v2) with the extensions "
            "binary_tensor_data and statistics.",
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas(), **_predict_schemas(state)},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the plan; `x-permission` of an operation is what it must be allowed.",
                }
            },
        },
    }


def _operation(route: Route, state: State) -> dict[str, Any]:
    said = OPERATIONS[route.name]
    found: dict[str, Any] = {
        "operationId": route.name,
        "summary": said.summary,
        "tags": [said.tag],
        "x-permission": route.permission.value,
        "security": [] if route.permission is Permission.PUBLIC else [{"token": []}],
        "responses": _responses(route, said),
    }
    parameters = [_parameter(name, state) for name in re.findall(r"\{(\w+)\}", route.path)]
    if said.binary:
        length = {"type": "integer", "minimum": 0}
        about = "How many bytes of the body are JSON, where tensors follow as bytes; 0: the body is the one input."
        parameters.append({"name": LENGTH, "in": "header", "schema": length, "description": about})
    if route.name in _PREDICTS:
        parameters += _HEADERS
    if parameters:
        found["parameters"] = parameters
    if said.body:
        content: dict[str, Any] = {JSON: {"schema": ref(said.body)}}
        if said.binary:
            content[BYTES] = {}
        found["requestBody"] = {"required": route.name != "oip_index", "content": content}
    return found


def _parameter(name: str, state: State) -> dict[str, Any]:
    schema: Schema = {"type": "string"}
    if name in ("service", "model") and state.services:
        schema["enum"] = sorted(state.services)
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _responses(route: Route, said: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {JSON: {"schema": ref(said.reply) if said.reply else {"type": "object"}}}
    if route.name == "metrics":
        content = {TEXT: {"schema": {"type": "string"}}}
    success: dict[str, Any] = {"description": "The answer.", "content": content}
    if said.binary:
        content[BYTES] = {}
        about = "How many bytes of the body are JSON; it is there where tensors follow as bytes."
        success["headers"] = {LENGTH: {"schema": {"type": "integer"}, "description": about}}
    protocol = route.path == "/v2" or route.path.startswith("/v2/")
    errors = {403, *said.errors}
    if route.permission is not Permission.PUBLIC:
        errors.add(401)
    shown = {str(status): _error(status, PROTOCOL if protocol else PLAIN) for status in sorted(errors)}
    return {"200": success, **shown}


def _error(status: int, schema: str) -> dict[str, Any]:
    found: dict[str, Any] = {"description": _ERRORS[status], "content": {JSON: {"schema": ref(schema)}}}
    if status == 401:
        found["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    if status == 429:
        found["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return found


def _predict_schemas(state: State) -> Mapping[str, Schema]:
    """A named predict's request: a row, `{"inputs": row}`, or `{"rows": [row, …]}`, of any of the services."""
    rows = {_name(name): row_schema(service) for name, service in sorted(state.services.items())}
    row = {"anyOf": [ref(name) for name in rows]} if rows else {"type": "object"}
    at = {"type": ["string", "integer"], "description": "the row's time: ISO 8601, or microseconds since 1970"}
    one = object_of({"inputs": ref("Row"), "at": at}, "at", closed=True)
    many = object_of({"rows": {"type": "array", "items": ref("Row")}, "at": at}, "at", closed=True)
    return {
        **rows,
        "Row": row,
        "PredictRequest": {"anyOf": [one, many, ref("Row")]},
        "PredictReply": {"anyOf": [ref("Prediction"), ref("Predictions")]},
    }


def _name(service: str) -> str:
    """A service's schema; names of components are letters, digits, dots, dashes and underscores."""
    return "Row_" + re.sub(r"[^A-Za-z0-9._-]", lambda found: f"-{ord(found[0]):x}", service)
