import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from flyball import console
from flyball.http.access import token_digest
from flyball.http.control import Handlers, Shell, add_routes, application
from flyball.http.routes import Permission, Route, routes_of
from flyball.http.session import COOKIE, OneTimeCode, Sessions, session_cookie
from flyball.kernel.errors import InternalError
from flyball.kernel.facts import Actor
from tests.http.core import FakeCore
from tests.http.web import Web

OWNER = {"Authorization": "Bearer owner"}
PUSHER = {"Authorization": "Bearer pusher"}


@pytest.fixture
def core() -> FakeCore:
    return FakeCore()


@pytest.fixture
def code_file(tmp_path: Path) -> Path:
    return tmp_path / "console"


@pytest.fixture
def client(core: FakeCore, code_file: Path) -> Iterator[httpx.Client]:
    shell = Shell(
        pages=console,
        core=core,
        status=core.status,
        tokens={token_digest("owner"): ("admin",), token_digest("pusher"): ("ingest",)},
        names={token_digest("owner"): "owner"},
        sessions=Sessions(b"secret"),
        code=OneTimeCode(code_file),
        endpoints=lambda: {"control": "c", "ingest": "i", "inference": "w"},
    )
    with httpx.Client(transport=Web(application(shell)), base_url="http://127.0.0.1") as client:
        yield client


def call(client: httpx.Client, route: Route, headers: dict[str, str] | None = None) -> httpx.Response:
    return client.request(route.method, re.sub(r"\{\w+\}", "x", route.path), headers=headers or {})


ALL = routes_of("control")
GUARDED = [route for route in ALL if route.permission is not Permission.PUBLIC]


@pytest.mark.parametrize("route", GUARDED, ids=lambda r: r.name)
def test_a_guarded_route_refuses_a_caller_without_a_token_and_one_without_the_permission(
    client: httpx.Client, route: Route
) -> None:
    answer = call(client, route)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
    answer = call(client, route, PUSHER)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_missing")


@pytest.mark.parametrize("route", GUARDED, ids=lambda r: r.name)
def test_the_owner_reaches_the_handler_of_every_route(client: httpx.Client, route: Route) -> None:
    answer = call(client, route, OWNER)
    assert answer.status_code not in (401, 403, 405)
    if answer.status_code == 404:
        assert answer.json()["error"]["code"] != "no_such_path"


OUTSIDE = "/docs /openapi.json /redoc /v1 /v1/status/ /v1/runs/a%2Flogs //v1/status /v1/%73tatus /v2/models/m /v1/flush"


@pytest.mark.parametrize("path", OUTSIDE.split())
def test_what_is_not_in_the_table_is_refused(client: httpx.Client, path: str) -> None:
    request = client.build_request("GET", "http://127.0.0.1", headers=OWNER)
    request.url = httpx.URL("http://127.0.0.1").copy_with(raw_path=path.encode())
    assert client.send(request).status_code == 404


def test_every_route_has_its_handler_and_every_handler_its_route() -> None:
    class Extra(Handlers):
        def left_over(self) -> None: ...

    with pytest.raises(InternalError, match="left_over"):
        add_routes(FastAPI(), Extra.__new__(Extra))
    with pytest.raises(InternalError, match="rollback"):
        add_routes(FastAPI(), object())


def test_an_entity_is_asked_for_column_by_column(client: httpx.Client, core: FakeCore) -> None:
    path = "/v1/views/Card/features/n_1h/explain"
    params = {"entity": ["card=a=b", "shop=1"], "at": "2026-01-01T00:00:00Z"}
    assert client.get(path, params=params, headers=OWNER).json() == {"view": "Card"}
    assert core.asked == [("explain", "Card", "n_1h", {"card": "a=b", "shop": "1"}, 1_767_225_600_000_000, "")]
    client.get(path, params={"prediction": "p1", "at": "5"}, headers=OWNER)
    assert core.asked[-1] == ("explain", "Card", "n_1h", {}, 5, "p1")
    answer = client.get(path, params={"entity": "card"}, headers=OWNER)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_entity")


def test_a_view_is_printed_from_where_it_is_asked(client: httpx.Client) -> None:
    answer = client.get("/v1/views/Card/sql", params={"from": "table", "table": "mine"}, headers=OWNER)
    assert answer.json() == {"view": "Card", "sql": "table mine"}


def test_an_error_travels_with_its_code_and_hint_under_its_status(client: httpx.Client) -> None:
    answer = client.get("/v1/projects/taxi", headers=OWNER)
    assert answer.status_code == 404
    assert answer.json()["error"] | {"details": {}} == {
        "code": "project_not_found",
        "kind": "not_found",
        "message": "no project 'taxi'",
        "hint": "flyball apply",
        "details": {},
    }


def test_a_defect_is_an_internal_error_that_tells_nothing_of_itself(client: httpx.Client) -> None:
    answer = client.get("/v1/services/broken", headers=OWNER)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (500, "internal")
    assert "secret-marker" not in answer.text


def test_a_body_that_does_not_fit_is_refused_by_field_without_its_values(client: httpx.Client) -> None:
    answer = client.post("/v1/models/m/train", headers=OWNER, json={"reason": 4711_0815, "parms": {}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert "body.parms" in answer.text
    assert "47110815" not in answer.text


def test_an_act_is_recorded_under_its_tokens_name_and_its_request_id(client: httpx.Client, core: FakeCore) -> None:
    answer = client.post("/v1/models/m/train", headers=OWNER | {"X-Request-Id": "r-1"}, json={"reason": "why"})
    assert answer.headers["x-request-id"] == "r-1"
    assert core.asked == [("train", "m", Actor(name="owner", request_id="r-1"), "why", {})]


@pytest.mark.parametrize("given", ["", "a b", "x" * 81, 'a"b'])
def test_a_request_without_a_proper_id_gets_one(client: httpx.Client, given: str) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"].startswith("req_")


def test_an_artifact_must_be_what_its_name_says(client: httpx.Client, core: FakeCore) -> None:
    name = hashlib.sha256(b"model").hexdigest()
    assert client.put(f"/v1/artifacts/{name}", headers=OWNER, content=b"model").json() == {"digest": "stored"}
    answer = client.put(f"/v1/artifacts/{name}", headers=OWNER, content=b"other")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "digest_mismatch")
    assert core.asked == [("put_artifact", b"model")]


def test_a_spec_of_another_project_than_the_address_is_refused(client: httpx.Client, core: FakeCore) -> None:
    body = {"spec": {"name": "b"}, "base": ""}
    assert client.post("/v1/projects/a/apply", headers=OWNER, json=body).status_code == 400
    assert core.asked == []


def test_the_clock_takes_iso_text_and_microseconds(client: httpx.Client) -> None:
    for at in (1_000_000, "1970-01-01T00:00:01Z"):
        assert client.post("/v1/clock", headers=OWNER, json={"at": at}).json() == {"at": 1_000_000}


def test_a_one_time_address_opens_a_session_that_may_read_and_nothing_else(
    client: httpx.Client, core: FakeCore, code_file: Path
) -> None:
    code = code_file.read_text()
    assert code_file.stat().st_mode & 0o777 == 0o600
    answer = client.get("/open", params={"code": code})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=Strict" in answer.headers["set-cookie"]
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/console/loop").status_code == 200
    assert client.post("/v1/models/m/train", json={}).status_code == 401
    assert core.asked == []
    client.cookies.clear()
    assert client.get("/open", params={"code": code}).status_code == 403
    assert client.get("/").status_code == 401
    assert client.get("/open", params={"code": code_file.read_text()}).status_code == 303


def test_a_forged_or_expired_session_is_none() -> None:
    now = 1_000.0
    sessions = Sessions(b"secret", wall=lambda: now)
    cookie = sessions.issue()
    expiry, _, signature = cookie.partition(".")
    assert sessions.valid(cookie)
    for forged in ("", ".", f"{int(expiry) + 1}.{signature}", f"{expiry}.", Sessions(b"other").issue(), "ä.é"):
        assert not sessions.valid(forged)
    now += 13 * 3600
    assert not sessions.valid(cookie)


def test_a_name_that_is_not_ours_is_refused_as_host(client: httpx.Client) -> None:
    answer = client.get("/v1/status", headers=OWNER | {"Host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "bad_host")


def test_a_broken_cookie_is_no_session(client: httpx.Client) -> None:
    assert client.get("/", headers={"Cookie": f"{COOKIE}=x; =;"}).status_code == 401


def test_a_cookie_of_another_server_on_this_host_does_not_hide_the_session() -> None:
    for header in (f'theirs={{"a": 1}}; {COOKIE}=12.ab', f'{COOKIE}=12.ab; theirs="x'):
        assert session_cookie(header) == "12.ab"
    assert session_cookie(f"not_{COOKIE}=12.ab") == ""


def test_metrics_are_prometheus_text(client: httpx.Client) -> None:
    lines = client.get("/metrics", headers=OWNER).text.splitlines()
    assert 'flyball_source_rows_total{source="a\\"b"} 3' in lines
    assert "flyball_domain_time_seconds 5" in lines
    for line in lines:
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{.*\})? [-+.\deE]+", line), line


def test_head_is_answered_as_get_without_a_body(client: httpx.Client) -> None:
    answer = client.head("/v1/status", headers=OWNER)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_spec_that_is_no_project_is_refused(client: httpx.Client, core: FakeCore) -> None:
    body = {"spec": {"name": "a", "sauces": []}, "base": ""}
    answer = client.post("/v1/projects/a/apply", headers=OWNER, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_project")
    assert core.asked == []


def test_release_takes_the_newest_version_by_number_and_the_services_own_strategy(
    client: httpx.Client, core: FakeCore
) -> None:
    client.post("/v1/services/s/release", headers=OWNER, json={})
    client.post("/v1/services/s/release", headers=OWNER, json={"version": 9, "strategy": "full"})
    assert core.asked == [("release", "s", "m/10", None, "owner"), ("release", "s", 9, "full", "owner")]
    answer = client.post("/v1/services/s/release", headers=OWNER, json={"strategy": "fill"})
    assert (answer.status_code, "did you mean 'full'" in answer.text) == (400, True)


def test_approve_takes_the_version_that_waits(client: httpx.Client, core: FakeCore) -> None:
    client.post("/v1/services/waits/approve", headers=OWNER, json={})
    assert core.asked == [("approve", "waits", "m/10")]
    answer = client.post("/v1/services/s/approve", headers=OWNER, json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_awaiting")


def test_a_project_is_given_with_the_digest_that_plans_are_based_on(client: httpx.Client) -> None:
    answer = client.get("/v1/projects/known", headers=OWNER).json()
    assert answer["spec"] == {"name": "known"}
    assert len(answer["digest"]) == 64
