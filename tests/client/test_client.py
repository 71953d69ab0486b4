import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from flyball.client import Client
from flyball.client.client import CHUNK, by_convention
from flyball.http.routes import ROUTES
from flyball.kernel.errors import InvalidError, NotFoundError, UnavailableError
from flyball.kernel.ids import digest
from flyball.kernel.settings import ClientSettings

ENDPOINTS = {"control": "http://c:1", "ingest": "http://i:2", "inference": "http://w:3"}


class Platform:
    """Answers every route with what each needs, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.path == "/v1/endpoints":
            return httpx.Response(200, json=ENDPOINTS)
        names = ("facts", "sources", "runs", "lines", "versions", "rows", "predictions", "views", "sql")
        answer: dict[str, Any] = {key: [] for key in names}
        return httpx.Response(200, json=answer | {"horizons": {}, "at": 5, "digest": "d"})

    @property
    def last(self) -> httpx.Request:
        return self.asked[-1]

    def client(self) -> Client:
        return Client(ClientSettings(url="http://c:1", token="t"), transport=httpx.MockTransport(self))


def matches(pattern: str, path: str) -> bool:
    """Whether a path fits a route's pattern; `{name}` is one segment, or its part before a suffix."""
    wanted, given = pattern.split("/"), path.split("/")
    if len(wanted) != len(given):
        return False
    return all(
        w == g or ("{" in w and g.startswith(w.split("{")[0]) and g.endswith(w.split("}")[1]))
        for w, g in zip(wanted, given, strict=True)
    )


def test_every_verb_asks_for_a_route_of_the_table_at_the_process_that_serves_it(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a\n1\n")
    spec = {"name": "taxi"}
    platform = Platform()
    with platform.client() as client:
        calls: list[Any] = [
            client.status(), client.facts(), client.advance_clock(5), client.project("p"), client.plan(spec),
            client.apply(spec, base="b"), client.put_artifact(b"x"), client.push("s", [{"a": 1}]),
            client.upload("s", file), client.feedback([{"prediction_id": "p", "label": True}]), client.sources(),
            client.quarantine("s"), client.quarantined("s:1.1"), client.retry("s"), client.drop("s", everything=True),
            client.flush(), client.train("m"), client.runs(), client.run("r"),
            client.run_logs("r"), client.versions("m"), client.service("s"), client.release("s"),
            client.rollback("s"), client.approve("s"), client.quality("s"), client.drift("s"),
            client.skew("s"), client.views(), client.view_sql("v"), client.explain("v", "f", entity={"a": "b"}, at=5),
            client.prediction("p"), client.batch("b"), client.predict("s", a=1), client.infer("m", {}),
            client.infer("m", {}, version="3"),
        ]  # fmt: skip
    assert len(platform.asked) == len(calls) + 1  # and one discovery
    hosts = {"control": "c", "ingest": "i", "inference": "w"}
    for request in platform.asked:
        fitting = [r for r in ROUTES if r.method == request.method and matches(r.path, request.url.path)]
        assert [hosts[r.process] for r in fitting if r.process != "all"] == [request.url.host], request.url


def test_a_push_is_sent_under_an_idempotency_key() -> None:
    platform = Platform()
    client = platform.client()
    client.push("Trips", [{"fare": 1}], idempotency_key="k1")
    assert platform.last.headers["Idempotency-Key"] == "k1"
    client.push("Trips", [{"fare": 1}])
    assert platform.last.headers["Idempotency-Key"].startswith("push_")
    assert json.loads(platform.last.content) == {"rows": [{"fare": 1}]}


def test_an_artifact_is_named_by_its_digest() -> None:
    platform = Platform()
    assert platform.client().put_artifact(b"model") == digest(b"model")
    assert platform.last.url.path == f"/v1/artifacts/{digest(b'model')}"
    assert platform.last.content == b"model"


def test_a_file_is_sent_in_chunks_and_its_progress_told(tmp_path: Path) -> None:
    file = tmp_path / "trips.csv"
    file.write_bytes(b"a" * (2 * CHUNK + 5))
    told: list[tuple[int, int]] = []
    platform = Platform()
    platform.client().upload("Trips", file, progress=lambda done, total: told.append((done, total)))
    total = 2 * CHUNK + 5
    assert told == [(CHUNK, total), (2 * CHUNK, total), (total, total)]
    assert dict(platform.last.url.params) == {"format": "csv", "name": "trips.csv"}
    assert platform.last.headers["Content-Length"] == str(total)


def test_a_file_of_another_kind_and_one_that_is_not_there_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    platform = Platform()
    with pytest.raises(InvalidError, match=r"\.csv"):
        platform.client().upload("Trips", tmp_path / "x.xlsx")
    with pytest.raises(NotFoundError):
        platform.client().upload("Trips", tmp_path / "x.csv")
    assert platform.asked == []


def test_names_are_one_segment_whatever_is_in_them() -> None:
    platform = Platform()
    platform.client().service("a/b?c")
    assert platform.last.url.raw_path == b"/v1/services/a%2Fb%3Fc"


def test_with_control_gone_ingest_and_inference_are_found_by_convention() -> None:
    def only_ingest(request: httpx.Request) -> httpx.Response:
        if request.url.port == 7700:
            raise httpx.ConnectError("refused")
        assert request.url.port == 7701
        return httpx.Response(200, json={"accepted": 1})

    client = Client(ClientSettings(url="http://127.0.0.1:7700"), transport=httpx.MockTransport(only_ingest))
    assert client.push("Trips", [{"fare": 1}]) == {"accepted": 1}


def test_an_address_without_a_port_has_no_neighbours() -> None:
    with pytest.raises(UnavailableError):
        by_convention("https://flyball.example")
    assert by_convention("http://h:7700")["inference"] == "http://h:7702"
