"""Every route of every live process asks for the permission that the table names, and nothing else is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from flyball.http.access import token_digest
from flyball.http.routes import ROUTES, Permission, Process, Route, routes_of
from flyball.kernel.files import read_document, write_atomic, write_document
from flyball.loop.plans import FORMATS
from flyball.serving.plan import PLAN_FORMAT, publish
from tests.scenarios.desk.conftest import Desk
from tests.scenarios.live import eventually

pytestmark = pytest.mark.slow
PROCESSES: tuple[Process, ...] = ("control", "ingest", "inference")
OPEN = "/open"  # public, and asks for a one-time code itself
UNKNOWN = (
    "/v1/nothing",
    "/v1/status/../secrets",
    "/v1//status",
    "/.env",
    "/console/static/../../token",
    "/%2e%2e/token",
)


def ask(url: str, route: Route, token: str = "") -> httpx.Response:
    path = re.sub(r"\{\w+\}", "thing", route.path)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.request(route.method, url + path, headers=headers, timeout=30.0)


def refusals(url: str, process: Process, token: str) -> dict[str, int]:
    """Status of every route that is not public, when asked with this token."""
    asked = [route for route in routes_of(process) if route.permission is not Permission.PUBLIC]
    return {f"{route.method} {route.path}": ask(url, route, token).status_code for route in asked}


@pytest.mark.parametrize("process", PROCESSES)
def test_without_a_token_and_with_a_wrong_one_every_route_that_is_not_public_is_refused(
    desk: Desk, process: Process
) -> None:
    url = desk.url(process)
    for token in ("", "wrong"):
        statuses = refusals(url, process, token)
        assert len(statuses) >= 5
        assert set(statuses.values()) == {401}, statuses
    for route in routes_of(process):
        if route.permission is Permission.PUBLIC and route.path != OPEN:
            assert ask(url, route).status_code not in (401, 403), route.path


@pytest.mark.parametrize("process", PROCESSES)
def test_what_is_not_in_the_table_is_not_there(desk: Desk, process: Process) -> None:
    url, token = desk.url(process), desk.platform.layout.token.read_text().strip()
    foreign = [route for route in ROUTES if route.process not in (process, "all")]
    assert {ask(url, route, token).status_code for route in foreign} <= {404, 405}
    for path in UNKNOWN:
        answer = desk.http(process, "GET", path)
        assert (answer.status_code, "token" in answer.text and token in answer.text) == (404, False), path
    for route in routes_of(process):
        other = "DELETE"
        path = re.sub(r"\{\w+\}", "thing", route.path)
        assert desk.http(process, other, path).status_code in (404, 405), route.path


@pytest.fixture
def other_tokens(desk: Desk) -> Iterator[dict[str, str]]:
    """A token for each permission but that of an administrator, known to ingest and the workers by their plans."""
    layout = desk.platform.layout
    names = {p.value: f"token-that-may-{p.value}" for p in Permission if p not in (Permission.PUBLIC, Permission.ADMIN)}
    more = {token_digest(token): [permission] for permission, token in names.items()}
    before = [(path, path.read_bytes()) for path in (layout.ingest_plan, layout.serving_plan)]
    ingest = read_document(layout.ingest_plan, FORMATS["ingest"])
    write_document(layout.ingest_plan, FORMATS["ingest"], ingest | {"tokens": ingest["tokens"] | more})
    serving = read_document(layout.serving_plan, PLAN_FORMAT)
    contents = {key: value for key, value in serving.items() if key != "digest"}
    publish(layout, contents | {"tokens": serving["tokens"] | more})
    for process in ("ingest", "inference"):
        known = {"Authorization": f"Bearer {names['read']}"}
        eventually(partial(reads, desk.url(process), known), f"{process} to know the tokens")
    yield names
    for path, data in before:
        write_atomic(path, data)


def reads(url: str, headers: dict[str, str]) -> bool:
    return httpx.get(f"{url}/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("process", ["ingest", "inference"])
def test_a_token_of_another_permission_is_refused_and_one_of_the_right_one_is_not(
    desk: Desk, process: Process, other_tokens: dict[str, str]
) -> None:
    url = desk.url(process)
    for route in routes_of(process):
        if route.permission is Permission.PUBLIC:
            continue
        for permission, token in other_tokens.items():
            status = ask(url, route, token).status_code
            if permission == route.permission.value:
                assert status not in (401, 403), (route.path, permission)
            else:
                assert status == 403, (route.path, permission)


def test_a_console_session_may_read_and_nothing_else(desk: Desk) -> None:
    """Control knows one token; what has another permission there is the session of a browser, which may read."""
    with desk.platform.client() as client, httpx.Client(base_url=desk.url("control"), follow_redirects=True) as browser:
        assert browser.get(client.status()["console"]).status_code == 200
        for route in routes_of("control"):
            path = re.sub(r"\{\w+\}", "thing", route.path)
            status = browser.request(route.method, path).status_code
            if route.path == OPEN:
                assert status == 403, "a wrong one-time code opens nothing"
            elif route.permission in (Permission.PUBLIC, Permission.READ) and route.method == "GET":
                assert status not in (401, 403), path
            elif route.permission is not Permission.PUBLIC:
                assert status in (401, 403), (route.method, path)
