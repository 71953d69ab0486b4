"""The OpenAPI document of the data plane against the table of routes and the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyball.http.openapi import OPERATIONS, document
from flyball.http.routes import Permission, routes_of
from flyball.serving.plan import plan_digest
from flyball.serving.state import State
from tests.http.test_inference import affine_version
from tests.serving.support import Bench, plan, tree_version

METHODS = {"get", "put", "post", "delete", "patch"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    bench = Bench(tmp_path)
    first = plan({"fraud/7": tree_version(tmp_path)})
    second = plan({"affine/1": affine_version(tmp_path)}, name="affine")
    both = {"services": first["services"] | second["services"], "versions": first["versions"] | second["versions"]}
    whole = {"epoch": 1, "tokens": {}, **both}
    bench.worker.load_plan({**whole, "digest": plan_digest(whole)})
    yield bench.worker.state
    bench.log.close()


def operations(found: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in found["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield path, method, operation


def refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for part in value.values():
            yield from refs(part)
    elif isinstance(value, list):
        for part in value:
            yield from refs(part)


def test_each_inference_route_is_in_the_document_and_nothing_else_is(state: State) -> None:
    described = {(method.upper(), path, one["operationId"]) for path, method, one in operations(document(state))}
    assert described == {(route.method, route.path, route.name) for route in routes_of("inference")}
    assert set(OPERATIONS) == {route.name for route in routes_of("inference")}


def test_an_operation_says_what_it_needs(state: State) -> None:
    found = document(state)
    permissions = {(route.path, route.method.lower()): route.permission for route in routes_of("inference")}
    for path, method, operation in operations(found):
        permission = permissions[path, method]
        assert operation["x-permission"] == permission
        assert operation["security"] == ([] if permission is Permission.PUBLIC else [{"token": []}])
        assert ("401" in operation["responses"]) == (permission is not Permission.PUBLIC)
        given = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert given == set(re.findall(r"\{(\w+)\}", path))
    assert found["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_the_document_is_whole(state: State) -> None:
    found = json.loads(json.dumps(document(state)))
    assert found["openapi"] == "3.1.0"
    assert set(found["info"]) >= {"title", "version"}
    names = found["components"]["schemas"]
    targets = set(refs(found))
    assert {target.removeprefix("#/components/schemas/") for target in targets} <= set(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    for _, _, operation in operations(found):
        assert operation["summary"]
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert response["description"]


def test_errors_have_the_form_that_their_path_has(state: State) -> None:
    for path, _, operation in operations(document(state)):
        for status, response in operation["responses"].items():
            if status != "200":
                (target,) = refs(response)
                assert target.endswith("/ProtocolError" if path.startswith("/v2") else "/Error")


def test_the_services_of_the_plan_are_in_it_with_their_fields(state: State) -> None:
    found = document(state)
    predict = found["paths"]["/v1/services/{service}:predict"]["post"]
    assert predict["parameters"][0]["schema"]["enum"] == ["affine", "fraud"]
    fraud = found["components"]["schemas"]["Row_fraud"]
    assert fraud["required"] == ["amount", "channel"]
    assert fraud["properties"]["channel"]["enum"] == ["web", "shop"]
    assert fraud["properties"]["card"]["type"] == ["string", "null"]
    assert found["components"]["schemas"]["Row_affine"]["properties"]["x"]["description"] == "FP32 [2]"
    assert found["components"]["schemas"]["Row"]["anyOf"] == [
        {"$ref": "#/components/schemas/Row_affine"},
        {"$ref": "#/components/schemas/Row_fraud"},
    ]


def test_a_worker_without_a_plan_has_a_document_too() -> None:
    found = document(State())
    assert found["components"]["schemas"]["Row"] == {"type": "object"}
    assert {target.rpartition("/")[2] for target in refs(found)} <= set(found["components"]["schemas"])


def test_the_document_is_valid_by_the_standards_own_schema(state: State) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed here")
    validator.validate(json.loads(json.dumps(document(state))))
