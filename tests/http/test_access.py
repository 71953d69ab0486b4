"""Every route of the data plane is refused without the permission that its table names."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flyball.http.access import authorize, match, token_digest
from flyball.http.messages import Request, status_of
from flyball.http.routes import ROUTES, Permission, Process, Route, routes_of
from flyball.kernel.errors import FlyballError

DATA_PLANE: tuple[Process, ...] = ("ingest", "inference")
WALK = [(process, route) for process in DATA_PLANE for route in routes_of(process)]


def request(method: str, path: str, **headers: str) -> Request:
    return Request(method, path, {}, {"host": "127.0.0.1:7702", **headers}, b"")


def concrete(route: Route) -> str:
    return re.sub(r"\{\w+\}", "thing", route.path)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def refused(process: Process, tokens: dict[str, Any], asked: Request) -> FlyballError:
    with pytest.raises(FlyballError) as caught:
        authorize(process, tokens, asked)
    return caught.value


@pytest.mark.parametrize(("process", "route"), WALK, ids=lambda value: getattr(value, "name", value))
def test_each_route_asks_for_its_permission(process: Process, route: Route) -> None:
    path = concrete(route)
    others = [p.value for p in Permission if p not in (route.permission, Permission.ADMIN)]
    tokens = {token_digest("right"): [route.permission.value], token_digest("wrong"): others}
    if route.permission is Permission.PUBLIC:
        assert authorize(process, {}, request(route.method, path)).route is route
        return
    assert status_of(refused(process, tokens, request(route.method, path))) == 401
    assert status_of(refused(process, tokens, request(route.method, path, **bearer("unknown")))) == 401
    assert status_of(refused(process, tokens, request(route.method, path, authorization="Basic cmlnaHQ="))) == 401
    denied = refused(process, tokens, request(route.method, path, **bearer("wrong")))
    assert (status_of(denied), denied.code) == (403, "permission_missing")
    allowed = authorize(process, tokens, request(route.method, path, **bearer("right")))
    assert allowed.route is route
    assert allowed.caller == token_digest("right")
    assert set(allowed.params.values()) <= {"thing"}


@pytest.mark.parametrize(("process", "route"), WALK, ids=lambda value: getattr(value, "name", value))
def test_each_route_refuses_a_method_it_does_not_take(process: Process, route: Route) -> None:
    error = refused(process, {}, request("PATCH", concrete(route)))
    assert (status_of(error), error.code) == (405, "method_not_allowed")


def test_every_process_serves_its_own_routes_only() -> None:
    for process in DATA_PLANE:
        foreign = [route for route in ROUTES if route.process not in (process, "all")]
        for route in foreign:
            assert status_of(refused(process, {}, request(route.method, concrete(route)))) == 404


def test_an_unknown_path_says_what_is_near() -> None:
    error = refused("inference", {}, request("GET", "/v2/health/liv"))
    assert status_of(error) == 404
    assert "/v2/health/live" in error.message


@pytest.mark.parametrize(
    "path", ["/v1/services/:predict", "/v1/services/tip", "/v1/services/tip/x:predict", "//v2", "/v2/"]
)
def test_near_misses_of_a_pattern_do_not_match(path: str) -> None:
    with pytest.raises(FlyballError, match="there is nothing at"):
        match("inference", "POST", path)


def test_parameters_are_decoded_after_matching_so_that_a_slash_cannot_move_a_segment() -> None:
    route, params = match("inference", "POST", "/v1/services/a%2Fb%20c:predict")
    assert route.name == "predict"
    assert params == {"service": "a/b c"}


def test_head_is_matched_as_get() -> None:
    assert match("inference", "HEAD", "/healthz")[0].name == "healthz"


def test_an_administrator_may_do_everything() -> None:
    tokens = {token_digest("root"): ["admin"]}
    assert authorize("inference", tokens, request("GET", "/metrics", **bearer("root"))).route.name == "metrics"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "localhost@evil.example"])
def test_a_foreign_host_is_refused_even_on_public_routes(host: str) -> None:
    assert refused("inference", {}, request("GET", "/healthz", host=host)).code == "bad_host"
    assert refused("inference", {}, Request("GET", "/healthz", {}, {}, b"")).code == "bad_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7702", "127.0.0.1", "[::1]:7702", "[::1]"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert authorize("inference", {}, request("GET", "/healthz", host=host)).route.name == "healthz"


def test_a_configured_host_is_known() -> None:
    asked = request("GET", "/healthz", host="models.example:443")
    assert authorize("inference", {}, asked, hosts={"models.example"}).route.name == "healthz"


def test_a_page_of_another_site_cannot_change_anything() -> None:
    tokens = {token_digest("t"): ["predict"]}
    path = "/v1/services/tip:predict"
    for origin in ("https://evil.example", "null", "http://["):
        assert refused("inference", tokens, request("POST", path, origin=origin, **bearer("t"))).code == "cross_site"
    assert authorize("inference", tokens, request("POST", path, origin="http://localhost:7700", **bearer("t"))).params
    assert not authorize("inference", tokens, request("GET", "/healthz", origin="https://evil.example")).params
