"""`flyball quarantine`, against the routes of a real ingest core."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from flyball.client import transport
from flyball.http.access import token_digest
from flyball.http.ingest import IngestApp
from flyball.http.server import Request
from flyball.ingest.service import Ingest
from tests.cli.run_cli import flyball
from tests.ingest.sources import PAYMENTS, make_ingest, payment

WIDER = msgspec.structs.replace(PAYMENTS, columns=tuple(msgspec.structs.replace(c, ge=None) for c in PAYMENTS.columns))


@pytest.fixture
def ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    """A core whose HTTP application answers the command line, without a socket."""
    core = make_ingest(tmp_path)
    app = IngestApp(core, {token_digest("t"): ["admin"]}, spool=tmp_path / "spool")
    original = transport.Transport.__init__

    async def answer(request: Request) -> Any:
        done = asyncio.get_running_loop().create_future()
        app(request, done.set_result)
        return await asyncio.wait_for(done, 20)

    def route(asked: httpx.Request) -> httpx.Response:
        if asked.url.path == "/v1/endpoints":
            return httpx.Response(200, json=dict.fromkeys(("control", "ingest", "inference"), "http://127.0.0.1:7700"))
        headers = {"host": "127.0.0.1:7701", "authorization": "Bearer t"}
        given = Request(asked.method, asked.url.path, dict(asked.url.params), headers, asked.content)
        response = asyncio.run(answer(given))
        return httpx.Response(response.status, content=response.body, headers={"content-type": response.content_type})

    def carried(self: transport.Transport, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "transport": httpx.MockTransport(route)})

    monkeypatch.setattr(transport.Transport, "__init__", carried)
    monkeypatch.setenv("FLYBALL_STATE", str(tmp_path / "none"))
    yield core
    app.close()


def test_rows_are_listed_shown_retried_and_dropped(ingest: Ingest) -> None:
    assert flyball("quarantine", "list").out.strip() == "nothing is in quarantine"
    ingest.append("Payments", [payment(1, amount=-1), payment(2, amount=-2), payment(3, card="secret-marker")])
    listed = flyball("quarantine", "list")
    assert listed.out.startswith("Payments: 3 rows open of 3 that were ever quarantined\n")
    assert "Payments:1.1" in listed.out
    assert "amount is '-1'; it must be at least 0.0" in listed.out
    assert flyball("quarantine", "list", "Payments", "--rule", "pattern").out.count("Payments:1.") == 1
    shown = flyball("quarantine", "show", "Payments:1.3").out
    assert shown.startswith("Payments:1.3 is open; it came at 2023-11-14T22:13:20Z as live, in row 3 of its push or")
    assert "secret-marker" not in shown + listed.out
    ingest.load_plan({"sources": [WIDER], "views": []})
    retried = flyball("quarantine", "retry", "Payments", "--id", "Payments:1.1")
    assert retried.out == "Payments: 1 of 1 rows accepted, 0 still in quarantine\n"
    assert "accepted" in flyball("quarantine", "retry", "Payments", "--rule", "ge").out
    nothing = flyball("quarantine", "drop", "Payments")
    assert nothing.status == 2
    assert "--rule, --id, or --all" in nothing.err
    assert flyball("quarantine", "drop", "Payments", "--all").out == "Payments: 1 rows dropped\n"
    assert "Payments:1.1" not in flyball("quarantine", "list").out
    everything = json.loads(flyball("quarantine", "list", "Payments", "--all", "--json").out)
    assert [row["state"] for row in everything["sources"][0]["rows"]] == ["dropped", "retried", "retried"]
    assert "as event 1" in flyball("quarantine", "show", "Payments:1.1").out


def test_a_row_that_is_not_there_is_said(ingest: Ingest) -> None:
    ran = flyball("quarantine", "show", "Payments:5.1")
    assert ran.status == 3
    assert "flyball quarantine list Payments" in ran.err


def test_a_retry_says_that_a_later_version_was_there(ingest: Ingest) -> None:
    tight, wide = (msgspec.structs.replace(spec, corrections=True) for spec in (PAYMENTS, WIDER))
    ingest.load_plan({"sources": [tight], "views": []})
    ingest.append("Payments", [payment(1, amount=-1), payment(2, amount=-1)])
    ingest.append("Payments", [{"id": "p1", "_deleted": True}])
    ingest.load_plan({"sources": [wide], "views": []})
    assert flyball("quarantine", "retry", "Payments").out == (
        "Payments: 1 of 2 rows accepted, 0 still in quarantine, "
        "1 superseded by a later version or deletion of the same key\n"
    )
    assert flyball("quarantine", "show", "Payments:1.1").out.startswith("Payments:1.1 is superseded; ")
