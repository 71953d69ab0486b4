"""A real platform in processes of its own, on the project that `flyball init` writes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from flyball.client import Client
from flyball.client.project import apply, pack
from flyball.kernel.errors import FlyballError
from flyball.kernel.settings import ClientSettings, Settings
from flyball.platform.notebook import open_platform
from flyball.platform.supervisor import Supervisor
from tests.cli.run_cli import flyball

pytestmark = pytest.mark.slow
PATIENCE = 180.0  # seconds; the first start compiles the kernels


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except FlyballError:
            pass  # not yet
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("taxi")
    path = sys.path[:]
    sys.modules.pop("project", None)
    assert flyball("init", folder).status == 0
    yield folder
    sys.path[:] = path
    sys.modules.pop("project", None)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Iterator[tuple[Supervisor, Client]]:
    state = tmp_path_factory.mktemp("platform") / "state"
    with Supervisor(Settings(state=state, port=0)) as supervisor, Client(supervisor.client_settings) as client:
        supervisor.watch()
        apply(client, pack(project / "project.py"))
        eventually(lambda: any(source["name"] == "Trips" for source in client.sources()))
        assert client.upload("Trips", project / "trips.csv")["accepted"] == 900
        client.train("tip")
        eventually(lambda: client.service("tip")["version"] == "tip/1")
        eventually(lambda: client.predict("tip", company="Sun", payment_type="Cash", fare="12.5"))
        yield supervisor, client


def test_a_trained_version_answers_over_http(running: tuple[Supervisor, Client]) -> None:
    _, client = running
    cash, card = client.predict(
        "tip",
        [{"company": "Sun", "payment_type": kind, "fare": "12.5"} for kind in ("Cash", "Credit Card")],
    )
    assert (cash["version"], cash["rung"]) == ("tip/1", "model")
    assert cash["score"] < card["score"]
    eventually(lambda: client.prediction(cash["prediction_id"])["version"]["version"] == "tip/1")


def test_status_tells_of_all_processes_and_a_killed_one_comes_back(running: tuple[Supervisor, Client]) -> None:
    _, client = running
    pids = {process["name"]: process["pid"] for process in client.status()["processes"]}
    assert {"control", "ingest", "inference", "worker-0"} <= set(pids)
    os.kill(pids["control"], signal.SIGKILL)
    assert client.predict("tip", company="Sun", payment_type="Cash", fare="1")[0]["rung"] == "model"
    eventually(lambda: client.status()["at"])
    again = {process["name"]: process["pid"] for process in client.status()["processes"]}
    assert again["control"] != pids["control"]
    assert again["ingest"] == pids["ingest"]


def test_a_notebook_reads_training_set_and_features_beside_it(
    running: tuple[Supervisor, Client], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, _ = running
    monkeypatch.setenv("FLYBALL_URL", supervisor.url("control"))
    with open_platform(project / "project.py", state=supervisor.settings.state) as notebook:
        table = notebook.training_set("tip")
        assert len(table) == len(table.to_pandas()) == 900
        columns = table.to_polars().columns
        features = notebook.features("tip", company="Sun")
        everything = notebook.features("tip", company="Sun", payment_type="Cash", fare="12.5")
    assert "label" in columns
    assert set(features) < set(everything) <= set(columns)
    assert any("trips_7d" in name for name in features)
    assert "payment_type" not in features
    assert everything["payment_type"] == "Cash"
    with open_platform(supervisor.url("control"), state=supervisor.settings.state) as same:
        assert same.project.name == "taxi"


def test_the_console_opens_by_its_one_time_address(running: tuple[Supervisor, Client]) -> None:
    _, client = running
    with httpx.Client(follow_redirects=True) as browser:
        page = browser.get(client.status()["console"])
        assert page.status_code == 200
        assert "tip/1" in page.text
        assert browser.get(str(page.url.join("/console/loop"))).status_code == 200
    assert httpx.get(str(page.url)).status_code == 401


def test_each_process_refuses_a_wrong_token_and_answers_its_health_without_one(
    running: tuple[Supervisor, Client],
) -> None:
    supervisor, _ = running
    for name in supervisor.ports:
        assert httpx.get(f"{supervisor.url(name)}/healthz").status_code == 200
        assert httpx.get(f"{supervisor.url(name)}/readyz").status_code == 200
        assert httpx.get(f"{supervisor.url(name)}/metrics").status_code == 401
    settings = ClientSettings(url=supervisor.url("control"), token="wrong")
    with Client(settings) as wrong, pytest.raises(FlyballError, match="not known"):
        wrong.status()


def test_the_command_line_speaks_to_it(
    running: tuple[Supervisor, Client], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, client = running
    state = supervisor.settings.state
    told = flyball("status", "--state", state)
    assert told.status == 0
    assert "nothing is wrong" in told.out
    assert flyball("predict", "tip", "company=Sun", "payment_type=Cash", "fare=12.5", "--state", state).status == 0
    wrong = flyball("predict", "tip", "company=Sun", "payment_type=Crash", "fare=12.5", "--state", state)
    assert (wrong.status, "did you mean 'Cash'" in wrong.err) == (2, True)
    assert flyball("train", "tpi", "--state", state).status == 3
    inline = flyball("train", "tip", "--inline", "--project", project / "project.py", "--state", state)
    assert (inline.status, "nothing registered" in inline.out) == (0, True)
    assert len(client.versions("tip")) == 1
    rolled = flyball("rollback", "tip", "--state", state)
    assert rolled.status == 4, rolled
