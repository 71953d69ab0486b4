"""A pii value and a secret are nowhere but where the data itself is.

Every file of the state directory is read but those that hold the data itself: the lake (which has quarantine beside
it), the event log (which has rejected rows), and online state. So are the platform's own output, and every answer,
error and listing that the tests of this folder got.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball.client.project import pack, save_plan
from tests.scenarios.desk.conftest import PII, PROJECT, SECRET, Desk, now, ticket
from tests.scenarios.live import eventually

pytestmark = pytest.mark.slow
THE_DATA = ("lake", "log", "online")  # event log: folder `log`; logs of processes: folder `logs`
MARKERS = (PII.encode(), SECRET.encode(), b"secret9marker1d")


def provoke(desk: Desk, folder: Path) -> None:
    """Have pii and the secret pass by everything that speaks: acceptance, refusal, prediction, failure, plans."""
    good = {"team": "red", "channel": "mail", "hours": "2.50", "email": f"{PII}-1@example.com"}
    at = now()
    bad: list[dict[str, Any]] = [
        ticket(9_001, at, email=f"{PII}-" + "x" * 100),
        ticket(9_002, at, hours="many"),
        ticket(9_003, at, channel="fax"),
        ticket(9_004, at, e_mail=f"{PII}@misspelt"),
        ticket(9_005, at, email=[f"{PII}@list"]),
        {key: value for key, value in ticket(9_006, at).items() if key != "channel"},
    ]
    assert desk.http("ingest", "POST", "/v1/events/Tickets", json={"rows": bad}).json()["quarantined"] >= 5
    for path in ("/v1/events/Tickets", "/v1/feedback", "/v1/events/Nothing"):
        assert desk.http("ingest", "POST", path, content=f'{{"rows": [{{"email": "{PII}"').is_client_error
    desk.http("ingest", "GET", "/v1/sources/Tickets/quarantine")
    lines = folder / "tickets.csv"
    lines.write_text(
        "id,team,channel,hours,email,escalated,time\n"
        f"a-1,red,mail,1.00,{PII}-1@example.com,true,{at}\n"
        f"a-2,red,mail,much,{PII}-2@example.com,true,{at}\n"
        f"a-3,red,mail,1.00,{PII}-3@example.com,true\n"
    )
    assert desk.cli("ingest", "Tickets", lines).status == 0
    for fields in (
        good,
        {**good, "hours": "many"},
        {**good, "email": [f"{PII}@list"]},
        {**good, "email": f"{PII}" + "x" * 100},
        {**good, "mail": f"{PII}@misspelt"},
        {**good, "channel": "fax"},
    ):
        desk.http("inference", "POST", "/v1/services/escalation:predict", json={"rows": [fields]})
    desk.http("inference", "POST", "/v1/services/escalation:predict", content=f'{{"rows": [{{"email": "{PII}"')
    tensors = [{"name": "email", "shape": [1], "datatype": "BYTES", "data": [f"{PII}@tensor"]}]
    desk.http("inference", "POST", "/v2/models/escalation/infer", json={"inputs": tensors})
    desk.cli("predict", "escalation", "team=red", "channel=mail", "hours=x", f"email={PII}@cli")
    desk.cli("predict", "escalation", "team=red", "channel=mail", "hours=3", f"email={PII}@cli")
    save_plan(folder / "saved.plan", pack(PROJECT), {"changes": [], "base": ""})
    desk.said.append((folder / "saved.plan").read_text())


def careless_run(desk: Desk) -> dict[str, Any]:
    with desk.platform.client() as client:
        run = eventually(
            lambda: next((r for r in client.runs(model="careless") if r["state"] == "failed"), None), "its failure"
        )
        return client.run(run["run"])


def listings(desk: Desk, run: str, prediction: str) -> None:
    paths = ["/v1/status", "/v1/facts", "/v1/runs", f"/v1/runs/{run}", f"/v1/runs/{run}/logs", "/", "/metrics"]
    paths += ["/v1/projects/desk", "/v1/services/escalation", "/v1/services/escalation/drift"]
    paths += ["/v1/services/escalation/quality", "/v1/models/escalation/versions", f"/v1/predictions/{prediction}"]
    for path in paths:
        assert desk.http("control", "GET", path).status_code == 200, path
    assert desk.cli("plan", PROJECT, "--json").status in (0, 2)
    for process in ("control", "ingest", "workers"):
        desk.cli("logs", process)


def test_no_file_and_no_answer_holds_a_pii_value_or_a_secret(desk: Desk, tmp_path: Path) -> None:
    provoke(desk, tmp_path)
    run = careless_run(desk)
    assert run["error"]["code"] == "user_code"
    answer = desk.http(
        "inference",
        "POST",
        "/v1/services/escalation:predict",
        json={"rows": [{"team": "blue", "channel": "chat", "hours": 1, "email": f"{PII}@receipt"}]},
    ).json()["predictions"][0]
    with desk.platform.client() as client:
        eventually(lambda: client.prediction(answer["prediction_id"]), "the prediction's collection")
        client.flush()
    listings(desk, run["run"], answer["prediction_id"])

    found = [text[:300] for text in desk.said if any(marker.decode() in text for marker in MARKERS)]
    assert found == [], "in what was answered"
    read, holding = 0, []
    for path in sorted(desk.state.rglob("*")):
        if path.is_file() and path.relative_to(desk.state).parts[0] not in THE_DATA:
            read += 1
            if any(marker in path.read_bytes() for marker in MARKERS):
                holding.append(str(path.relative_to(desk.state)))
    assert holding == []
    assert read > 20, "the walk read nothing"
    lake = {path.relative_to(desk.state).parts[1] for path in desk.state.glob("lake/**/*.parquet") if marked(path)}
    assert lake == {"Tickets", "Tickets__quarantine"}, "the lake's table of predictions has none either"


def marked(path: Path) -> bool:
    return PII in json.dumps(pl.read_parquet(path).to_dicts(), default=str)


def test_the_log_has_one_digest_for_equal_pii_values(desk: Desk) -> None:
    fields = {"team": "blue", "channel": "chat", "hours": 1}
    rows = [{**fields, "email": f"{PII}@{who}"} for who in ("ann", "ann", "bob")]
    body = desk.http("inference", "POST", "/v1/services/escalation:predict", json={"rows": rows}).json()
    with desk.platform.client() as client:
        ids = [reply["prediction_id"] for reply in body["predictions"]]
        receipts = [eventually(partial(client.prediction, id), "its collection") for id in ids]
    ann, again, bob = (receipt["prediction"]["inputs"]["email"] for receipt in receipts)
    assert ann == again != bob
    assert ann.startswith("pii:")
