"""The ingest process over HTTP."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from flyball.http.access import token_digest
from flyball.http.ingest import ARROW, INLINE_BYTES, IngestApp
from flyball.http.outbox import Room
from flyball.http.routes import routes_of
from flyball.http.server import Request, Response, start
from flyball.ingest.backlog import BacklogLimits
from flyball.ingest.group import Answer, GroupLimits
from flyball.ingest.pump import Pump
from flyball.ingest.receipts import Push
from flyball.ingest.service import Ingest, IngestConfig
from flyball.kernel.errors import ExhaustedError
from tests.ingest.sources import NOW, PAYMENTS, SECOND, make_ingest, payment

DEADLINE = 20.0
AT = NOW // SECOND
TOKENS = {
    token_digest("writer"): ["ingest"],
    token_digest("reader"): ["read"],
    token_digest("both"): ["ingest", "read", "admin"],
}


class Caller:
    """Calls an app as the server would, on an event loop, and waits for its answer."""

    def __init__(self, app: IngestApp) -> None:
        self.app = app

    def __call__(
        self, method: str, path: str, body: Any = b"", *, token: str = "both", query: dict[str, str] | None = None,
        **headers: str,
    ) -> tuple[int, Any]:  # fmt: skip
        answer: tuple[int, Any] = self.many([(method, path, body, token, query, headers)])[0]
        return answer

    def many(self, calls: Sequence[tuple[str, str, Any, str, dict[str, str] | None, dict[str, str]]]) -> list[Any]:
        responses = asyncio.run(self._call([self._request(*call) for call in calls]))
        return [(r.status, msgspec.json.decode(r.body) if r.content_type.endswith("json") else r.body.decode())
                for r in responses]  # fmt: skip

    def _request(
        self, method: str, path: str, body: Any, token: str, query: dict[str, str] | None, headers: dict[str, str]
    ) -> Request:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given |= {"host": "127.0.0.1:7701"} | ({"authorization": f"Bearer {token}"} if token else {})
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return Request(method, path, query or {}, given, data)

    async def _call(self, requests: Sequence[Request]) -> list[Response]:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in requests]
        for request, future in zip(requests, futures, strict=True):
            self.app(request, future.set_result)
        return await asyncio.wait_for(asyncio.gather(*futures), DEADLINE)


@contextmanager
def serving(ingest: Ingest, folder: Path, **more: Any) -> Iterator[Caller]:
    app = IngestApp(ingest, TOKENS, spool=folder / "spool", **more)
    try:
        yield Caller(app)
    finally:
        app.close()


@pytest.fixture
def ingest(tmp_path: Path) -> Ingest:
    return make_ingest(tmp_path)


@pytest.fixture
def call(ingest: Ingest, tmp_path: Path) -> Iterator[Caller]:
    with serving(ingest, tmp_path) as caller:
        yield caller


@pytest.mark.parametrize(
    "body", [[payment(1), payment(2)], {"events": [payment(1), payment(2)]}, {"rows": [payment(1), payment(2)]}]
)
def test_events_are_pushed_as_an_array_or_in_an_object(call: Caller, body: Any) -> None:
    status, receipt = call("POST", "/v1/events/Payments", body)
    assert (status, receipt["accepted"], receipt["last_lsn"]) == (200, 2, 2)


def test_one_event_is_pushed_as_an_object_and_a_bad_one_is_answered_with_the_reason(call: Caller) -> None:
    assert call("POST", "/v1/events/Payments", payment(1))[1]["accepted"] == 1
    status, receipt = call("POST", "/v1/events/Payments", payment(2, card="secret-marker"))
    assert (status, receipt["accepted"], receipt["reasons"]) == (200, 0, {"pattern": 1})
    assert "secret-marker" not in str(receipt)


def test_events_are_pushed_as_an_arrow_stream(call: Caller) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"page": ["a", "b"], "at": [AT, AT]}).write_ipc_stream(buffer)
    status, receipt = call("POST", "/v1/events/Clicks", buffer.getvalue(), content_type=ARROW)
    assert (status, receipt["accepted"]) == (200, 2)
    status, answer = call("POST", "/v1/events/Clicks", b"nonsense", content_type=ARROW)
    assert (status, answer["error"]["code"]) == (400, "bad_body")


def test_the_idempotency_key_is_a_header(call: Caller) -> None:
    first = call("POST", "/v1/events/Payments", [payment(1)], idempotency_key="k")[1]
    again = call("POST", "/v1/events/Payments", [payment(1)], idempotency_key="k")[1]
    assert again == first | {"replayed": True}
    status, answer = call("POST", "/v1/events/Payments", [payment(2)], idempotency_key="k")
    assert (status, answer["error"]["code"]) == (409, "idempotency_key_used")


def test_pushes_of_one_moment_share_a_commit_and_keep_their_answers(call: Caller) -> None:
    calls: list[tuple[str, str, Any, str, dict[str, str] | None, dict[str, str]]] = [
        ("POST", "/v1/events/Payments", [payment(number)], "both", None, {}) for number in range(50)
    ]
    answers = call.many(calls)
    assert [status for status, _ in answers] == [200] * 50
    assert [receipt["first_lsn"] for _, receipt in answers] == list(range(1, 51))
    queue = call("GET", "/v1/sources")[1]["queue"]
    assert queue["pushes"] == 50
    assert queue["commits"] < 50


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/events/Payments", b"{", 400, "bad_body"),
        ("/v1/events/Payments", b"5", 400, "bad_body"),
        ("/v1/events/Nothing", b"[]", 404, "source_not_found"),
        ("/v1/files/Payments", b"id", 400, "unknown_format"),
        ("/v1/flush", b'{"sources": "Payments"}', 400, "bad_body"),
        ("/v1/flush", b'{"sources": ["Nothing"]}', 404, "source_not_found"),
        ("/v1/feedback", b"true", 400, "bad_body"),
        ("/v1/elsewhere", b"", 404, "no_such_path"),
    ],
)
def test_a_mistake_is_answered_with_its_code(call: Caller, path: str, body: bytes, status: int, code: str) -> None:
    answered, error = call("POST", path, body)
    assert (answered, error["error"]["code"]) == (status, code)


def test_a_large_body_is_decoded_off_the_loop_with_the_same_answers(call: Caller) -> None:
    rows = [payment(i, kind="chip") for i in range(3_000)]
    assert len(msgspec.json.encode(rows)) > INLINE_BYTES
    assert call("POST", "/v1/events/Payments", rows)[1]["accepted"] == 3_000
    assert call("POST", "/v1/events/Payments", b"[" + b" " * INLINE_BYTES)[1]["error"]["code"] == "bad_body"


def test_a_push_that_is_too_large_is_refused_at_once(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.http.ingest.PUSH_BYTES", 100)
    status, answer = call("POST", "/v1/events/Payments", b"[" + b" " * 100 + b"]")
    assert (status, answer["error"]["code"]) == (413, "body_too_large")


def test_a_file_is_the_body_and_its_spool_is_emptied(call: Caller, tmp_path: Path) -> None:
    lines = "id,card,amount,kind,score,items,gift,due,at\n" + "".join(f"f{i},1234,1.5,,,,,,{AT}\n" for i in range(9))
    status, receipt = call("POST", "/v1/files/Payments", lines.encode(), query={"format": "csv"})
    assert (status, receipt["accepted"], receipt["replayed"]) == (200, 9, False)
    assert call("POST", "/v1/files/Payments", lines.encode(), query={"format": "csv"})[1]["replayed"]
    status, answer = call("POST", "/v1/files/Payments", b"PAR1 torn", query={"format": "parquet"})
    assert (status, answer["error"]["code"]) == (400, "bad_file")
    named = call("POST", "/v1/files/Payments", b"PAR1 torn", query={"format": "parquet", "name": "may.parquet"})[1]
    assert named["error"]["message"].startswith("may.parquet cannot be read as parquet"), "the sender's name of it"
    assert (
        call("POST", "/v1/files/Clicks", b"{}", query={"format": "jsonl"})[1]["error"]["code"] == "history_not_declared"
    )
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_server_reads_no_file_that_a_client_names(call: Caller, tmp_path: Path) -> None:
    path = tmp_path / "trips.jsonl"
    path.write_text("{}")
    body = {"path": str(path)}
    assert call("POST", "/v1/files/Payments", body)[1]["error"]["code"] == "unknown_format"
    receipt = call("POST", "/v1/files/Payments", body, query={"format": "jsonl"})[1]
    assert (receipt["received"], receipt["quarantined"], receipt["ignored"]) == (1, 1, ["path"])


def test_feedback_flush_sources_and_quarantine_are_answered(call: Caller) -> None:
    assert call("POST", "/v1/feedback", {"items": [{"prediction_id": "a", "label": True}]})[1]["accepted"] == 1
    call("POST", "/v1/events/Payments", [payment(1), payment(2, amount="x")])
    horizons = call("POST", "/v1/flush", {"sources": ["Payments"]})[1]["horizons"]
    assert horizons == {"Payments": {"lsn": 1, "version": 0, "rows": 1}}
    assert set(call("POST", "/v1/flush")[1]["horizons"]) == {"Payments", "Trips", "Clicks", "flyball_feedback"}
    sources = {s["name"]: s for s in call("GET", "/v1/sources")[1]["sources"]}
    assert (sources["Payments"]["rows"], sources["Payments"]["rate"]) == (1, 0.1)
    assert sources["Payments"]["declaration"]["key"] == ["id"]
    listed = call("GET", "/v1/sources/Payments/quarantine", query={"limit": "5"})[1]
    assert [row["rule"] for row in listed["rows"]] == ["wrong_type"]
    assert call("GET", "/v1/sources/Payments/quarantine", query={"limit": "0"})[0] == 400


def test_the_quarantine_is_listed_shown_retried_and_dropped(ingest: Ingest, tmp_path: Path) -> None:
    stored: list[int] = []
    with serving(ingest, tmp_path, on_stored=lambda: stored.append(1)) as call:
        call("POST", "/v1/events/Payments", [payment(1, amount=-1), payment(2, card="4711x"), payment(3, amount="?")])
        status, listed = call("GET", "/v1/sources/Payments/quarantine", query={"rule": "pattern", "state": "open"})
        assert (status, [row["id"] for row in listed["rows"]]) == (200, ["Payments:1.2"])
        status, row = call("GET", "/v1/quarantine/Payments:1.2")
        assert (status, row["row"]["card"], row["source"]) == (200, "[pii]", "Payments")
        assert "4711" not in str(row)
        wider = msgspec.structs.replace(
            PAYMENTS, columns=tuple(msgspec.structs.replace(c, ge=None) for c in PAYMENTS.columns)
        )
        ingest.load_plan({"epoch": 2, "digest": "", "sources": [wider], "views": []})
        before = len(stored)
        status, done = call("POST", "/v1/sources/Payments/quarantine/retry", {"ids": ["Payments:1.1"]})
        assert (status, done["accepted"], len(stored)) == (200, 1, before + 1)
        status, error = call("POST", "/v1/sources/Payments/quarantine/retry", {"ids": ["Payments:1.1"]})
        assert (status, error["error"]["code"]) == (409, "quarantine_changed")
        assert call("POST", "/v1/sources/Payments/quarantine/retry")[1]["accepted"] == 0
        wrong: list[Any] = [{}, {"all": "yes"}, {"ids": "x"}, {"rule": 5}, [], b"", b"{"]
        for body in wrong:
            assert call("POST", "/v1/sources/Payments/quarantine/drop", body)[0] == 400
        assert call("POST", "/v1/sources/Payments/quarantine/drop", {"rule": "pattern"})[1]["dropped"] == 1
        assert call("POST", "/v1/sources/Payments/quarantine/drop", {"all": True})[1]["dropped"] == 1
        assert call("GET", "/v1/quarantine/Payments:9.9")[0] == 404
        assert call("GET", "/v1/quarantine/nonsense")[0] == 400
        assert call("GET", "/v1/sources/Payments/quarantine", query={"state": "shut"})[0] == 400
        text = call("GET", "/metrics")[1]
        assert 'flyball_ingest_quarantine_open{source="Payments"} 0' in text
        for path in ("retry", "drop"):
            assert call("POST", f"/v1/sources/Payments/quarantine/{path}", {"all": True}, token="reader")[0] == 403


def test_a_refused_batch_is_answered_with_its_rule_and_the_rest_of_the_moment_is_stored(tmp_path: Path) -> None:
    columns = tuple(
        msgspec.structs.replace(c, on_violation="reject_batch") if c.name == "amount" else c for c in PAYMENTS.columns
    )
    strict = make_ingest(tmp_path, sources=[msgspec.structs.replace(PAYMENTS, columns=columns)])
    with serving(strict, tmp_path) as call:
        bodies = [[payment(1)], [payment(2), payment(3, amount=-5)], [payment(4)]]
        answers = call.many([("POST", "/v1/events/Payments", body, "both", None, {}) for body in bodies])
        assert [status for status, _ in answers] == [200, 400, 200]
        error = answers[1][1]["error"]
        assert error["code"] == "batch_refused"
        assert "amount is '-5'; it must be at least 0.0" in error["message"]
        assert error["details"] | {"examples": 0} == {
            "source": "Payments", "rule": "ge", "column": "amount", "received": 2, "broken": 1, "examples": 0,
        }  # fmt: skip
        assert 'flyball_ingest_batches_refused_total{source="Payments",rule="ge"} 1' in call("GET", "/metrics")[1]


def test_a_source_is_pulled_on_demand(call: Caller) -> None:
    status, body = call("POST", "/v1/sources/Payments/pull")
    assert (status, body["error"]["code"]) == (400, "no_origin")
    assert call("POST", "/v1/sources/Nothing/pull")[0] == 404
    assert call("POST", "/v1/sources/Payments/pull", token="reader")[0] == 403


def test_health_and_metrics_are_answered(ingest: Ingest, tmp_path: Path) -> None:
    problem = [""]
    with serving(ingest, tmp_path, problem=lambda: problem[0]) as call:
        call("POST", "/v1/events/Payments", [payment(1), payment(2, amount="x")])
        assert call("GET", "/healthz", token="") == (200, {"status": "ok"})
        problem[0] = "disk_full"
        assert call("GET", "/readyz", token="") == (200, {"ready": True, "problem": "disk_full"})
        text = call("GET", "/metrics")[1]
    assert 'flyball_ingest_events_total{source="Payments"} 1\n' in text
    assert 'flyball_ingest_quarantined_total{source="Payments",rule="wrong_type"} 1\n' in text
    assert "flyball_ingest_commits_total 1\n" in text
    assert Caller(call.app)("GET", "/readyz", token="")[0] == 503, "after it was closed"


def test_every_route_asks_for_its_permission(call: Caller) -> None:
    for route in routes_of("ingest"):
        path = route.path.replace("{source}", "Payments")
        anonymous, _ = call(route.method, path, token="")
        if route.permission == "public":
            assert anonymous == 200
            continue
        assert anonymous == 401
        other = "reader" if route.permission == "ingest" else "writer"
        status, answer = call(route.method, path, token=other)
        assert (status, answer["error"]["code"]) == (403, "permission_missing")
        assert call(route.method, path)[0] in (200, 400), "with the right token a handler answers"


def test_new_tokens_replace_the_old(call: Caller) -> None:
    call.app.use_tokens({token_digest("new"): ["admin"]})
    assert call("GET", "/v1/sources")[0] == 401
    assert call("GET", "/v1/sources", token="new")[0] == 200


class Slow:
    """A core whose log is slow; everything else is the real one's."""

    def __init__(self, core: Ingest) -> None:
        self._core = core
        self.entered, self.go = threading.Event(), threading.Event()

    def append_many(self, pushes: Sequence[Push]) -> list[Answer]:
        self.entered.set()
        assert self.go.wait(DEADLINE)
        return self._core.append_many(pushes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


def test_a_full_queue_answers_429_with_retry_after_and_loses_nothing(ingest: Ingest, tmp_path: Path) -> None:
    slow = Slow(ingest)
    app = IngestApp(slow, TOKENS, spool=tmp_path / "spool", limits=GroupLimits(queue_pushes=3))
    caller = Caller(app)

    async def flood() -> list[Response]:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Response]] = []
        for number in range(8):
            futures.append(loop.create_future())
            request = caller._request("POST", "/v1/events/Payments", [payment(number)], "both", None, {})
            app(request, futures[-1].set_result)
            if number == 0:
                await asyncio.to_thread(slow.entered.wait, DEADLINE)
        slow.go.set()
        return await asyncio.wait_for(asyncio.gather(*futures), DEADLINE)

    responses = asyncio.run(flood())
    app.close()
    assert [r.status for r in responses] == [200] * 4 + [429] * 4
    assert ("retry-after", "1") in responses[-1].headers
    ingest.apply()
    assert ingest.events("Payments")["id"].to_list() == ["p0", "p1", "p2", "p3"]


def test_a_real_client_over_a_real_socket(ingest: Ingest, tmp_path: Path) -> None:
    pump = Pump(ingest)
    app = IngestApp(ingest, TOKENS, spool=tmp_path / "spool", on_stored=pump.notify, problem=lambda: pump.error)
    pump.start()

    async def talk() -> None:
        server = await start(app)
        headers = {"authorization": "Bearer both"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=headers) as client:
            posts = [client.post("/v1/events/Payments", json=[payment(i)]) for i in range(20)]
            assert [r.status_code for r in await asyncio.gather(*posts)] == [200] * 20
            assert (await client.post("/v1/flush", json={})).json()["horizons"]["Payments"]["rows"] == 20
        await server.stop()

    asyncio.run(talk())
    app.close()
    pump.stop()
    assert ingest.events("Payments").height == 20


def test_pushes_of_several_forms_at_one_moment_keep_their_order_and_their_own_errors(
    ingest: Ingest, tmp_path: Path
) -> None:
    buffers = []
    for number in (3, 4):
        buffers.append(io.BytesIO())
        pl.DataFrame({"page": [f"t{number}"], "at": [AT]}).write_ipc_stream(buffers[-1])
    bodies: list[tuple[Any, dict[str, str]]] = [
        ([{"page": "a", "at": AT}], {}),
        ({"rows": [{"page": "b", "at": AT}, {"page": 5, "at": AT}]}, {}),
        (b"[{", {}),
        ([{"page": "c", "at": AT, "more": 1}, {"page": "d", "at": AT}], {}),
        (buffers[0].getvalue(), {"content_type": ARROW}),
        (buffers[1].getvalue(), {"content_type": ARROW}),
        (b"ARROW1", {"content_type": ARROW}),
        ([{"page": "e", "at": AT}], {}),
    ]
    slow = Slow(ingest)
    app = IngestApp(slow, TOKENS, spool=tmp_path / "spool")
    caller = Caller(app)
    slow.go.set()
    answers = caller.many([("POST", "/v1/events/Clicks", body, "both", None, more) for body, more in bodies])
    app.close()
    assert [status for status, _ in answers] == [200, 200, 400, 200, 200, 200, 400, 200]
    assert [a.get("accepted") for _, a in answers] == [1, 1, None, 1, 1, 1, None, 1]
    assert answers[1][1]["examples"][0]["position"] == 2
    assert answers[1][1]["examples"][0]["row"] == {"page": 5, "at": AT}
    ingest.apply()
    assert ingest.events("Clicks")["page"].to_list() == ["a", "b", "d", "t3", "t4", "e"]


def test_a_flood_is_refused_with_a_time_to_come_back_holds_no_more_than_its_bounds_and_ends(tmp_path: Path) -> None:
    config = IngestConfig(backlog=BacklogLimits(unapplied=40, unflushed=1_000))
    ingest = make_ingest(tmp_path, config=config)
    limits = GroupLimits(queue_pushes=4, queue_bytes=2_000)
    app = IngestApp(ingest, TOKENS, spool=tmp_path / "spool", limits=limits)
    caller = Caller(app)
    peak = [0, 0]

    async def flood() -> list[Response]:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Response]] = []
        for number in range(400):
            futures.append(loop.create_future())
            app(
                caller._request("POST", "/v1/events/Payments", [payment(number)], "both", None, {}),
                futures[-1].set_result,
            )
            peak[0] = max(peak[0], app._group.counters.waiting)
            peak[1] = max(peak[1], app._group.counters.waiting_bytes)
            if number % 4 == 3:
                await asyncio.wait_for(asyncio.gather(*futures[-4:]), DEADLINE)
        return await asyncio.wait_for(asyncio.gather(*futures), DEADLINE)

    responses = asyncio.run(flood())
    taken = [r for r in responses if r.status == 200]
    refused = [r for r in responses if r.status == 429]
    assert len(taken) + len(refused) == 400
    assert 40 <= len(taken) <= 44, "the backlog, and what was in the queue when it was full"
    assert all(1 <= int(dict(r.headers)["retry-after"]) <= 60 for r in refused)
    assert {msgspec.json.decode(r.body)["error"]["code"] for r in refused} == {"backlog_full"}
    assert peak[0] <= 4
    assert peak[1] <= 2_000
    text = caller("GET", "/metrics")[1]
    assert f"flyball_ingest_pushes_refused_behind_total {len(refused)}\n" in text
    assert f"flyball_ingest_unapplied_events {len(taken)}\n" in text
    assert "flyball_ingest_unapplied_events_limit 40\n" in text
    assert "flyball_ingest_queue_pushes_limit 4\n" in text
    ingest.apply()
    assert caller("POST", "/v1/events/Payments", [payment(1_000)])[0] == 200
    assert caller("GET", "/v1/sources")[1]["sources"][0]["backlog"]["unapplied"] == 1
    app.close()


def test_what_waits_for_the_pool_is_bounded_in_bytes() -> None:
    room = Room(3, 100)
    room.enter(500)  # one alone may be larger
    with pytest.raises(ExhaustedError) as caught:
        room.enter(1)
    assert caught.value.details["retry_after"] >= 1
    room.leave(500)
    for size in (60, 40, 0):
        room.enter(size)
    with pytest.raises(ExhaustedError, match="3 requests of 100 bytes"):
        room.enter(0)
