"""`init`, `check`, `plan` and `apply`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flyball.client import Client, transport
from flyball.define.plan import make_plan
from flyball.define.spec import ProjectSpec, project_from_data
from flyball.kernel.errors import ConflictError
from tests.cli.run_cli import Ran, flyball


class Platform:
    """The three routes that plan and apply need, over a project in memory."""

    def __init__(self) -> None:
        self.project: ProjectSpec | None = None
        self.artifacts: dict[str, bytes] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            self.artifacts[request.url.path.rpartition("/")[2]] = request.content
            return httpx.Response(200, json={})
        body = json.loads(request.content)
        spec = project_from_data(body["spec"])
        if request.url.path.endswith("/plan"):
            return httpx.Response(200, json=make_plan(self.project, spec).to_data())
        if body["base"] != (self.project.hash if self.project else ""):
            stale = ConflictError("the project changed since the plan was made", code="stale_plan")
            return httpx.Response(409, json={"error": stale.to_data()})
        self.project = spec
        return httpx.Response(200, json={})


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    platform = Platform()
    original = transport.Transport.__init__

    def carried(self: transport.Transport, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "transport": httpx.MockTransport(platform)})

    monkeypatch.setattr(transport.Transport, "__init__", carried)
    assert Client is not None
    return platform


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    path, modules = sys.path[:], set(sys.modules)
    assert flyball("init").status == 0
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name == "project":
            del sys.modules[name]


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "project.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_what_init_writes_is_a_valid_project(folder: Path) -> None:
    ran = flyball("check")
    assert (ran.status, ran.err) == (0, "")
    assert "taxi is valid: 1 sources, 1 views, 1 models, 1 services" in ran.out
    assert flyball("check", "--json").json["problems"] == []


def test_init_overwrites_nothing(folder: Path) -> None:
    (folder / "project.py").write_text("mine")
    ran = flyball("init")
    assert (ran.status, (folder / "project.py").read_text()) == (4, "mine")
    assert "is there already" in ran.err


def test_a_plan_with_changes_ends_with_2_and_one_without_with_0(folder: Path, platform: Platform) -> None:
    ran = flyball("plan")
    assert (ran.status, ran.err) == (2, "")
    assert "+ model tip\n    → trains the first version of tip" in ran.out
    assert "5 to add, 0 to change, 0 to remove" in ran.out or "4 to add" in ran.out
    assert flyball("apply").status == 0
    ran = flyball("plan", "--json")
    assert (ran.status, ran.json["changes"]) == (0, [])
    assert "as it should be" in flyball("apply").out


def test_an_invalid_project_is_told_from_a_plan_with_changes_by_its_output(folder: Path, platform: Platform) -> None:
    edit(folder, "Trips.fare, Trips.payment_type]", "Trips.tips]")
    ran = flyball("plan")
    assert (ran.status, ran.out) == (2, "")
    assert "error: " in ran.err
    assert flyball("plan", "--json").json["error"]["code"] == "project_invalid"
    assert platform.artifacts == {}


def test_a_change_shows_its_fields_and_what_it_causes(folder: Path, platform: Platform) -> None:
    flyball("apply")
    edit(folder, 'fb.mean(Trips.fare, "7d")', 'fb.mean(Trips.fare, "3d")')
    ran = flyball("plan")
    assert "~ view Company" in ran.out
    assert "backfills view Company" in ran.out
    assert "trains a new version of tip" in ran.out


def test_a_saved_plan_is_applied_exactly_even_when_the_code_changed_meanwhile(folder: Path, platform: Platform) -> None:
    assert flyball("plan", "--out", "change.plan").status == 2
    assert platform.artifacts == {}
    edit(folder, "num_boost_round=50", "num_boost_round=60")
    assert flyball("apply", "change.plan").status == 0
    assert platform.project is not None
    assert list(platform.artifacts) == [platform.project.bundle]
    assert b"num_boost_round=50" in platform.artifacts[platform.project.bundle]


def test_a_stale_plan_is_refused(folder: Path, platform: Platform) -> None:
    flyball("plan", "--out", "change.plan")
    flyball("apply")
    ran = flyball("apply", "change.plan")
    assert ran.status == 4
    assert "changed since the plan was made" in ran.err


def test_a_plan_that_was_tampered_with_is_refused(folder: Path, platform: Platform) -> None:
    flyball("plan", "--out", "change.plan")
    document = json.loads((folder / "change.plan").read_text())
    document["body"]["artifacts"] = dict.fromkeys(document["body"]["artifacts"], "AAAA")
    (folder / "change.plan").write_text(json.dumps(document))
    assert flyball("apply", "change.plan").status == 2
    assert platform.project is None


def test_a_project_that_does_not_import_shows_the_users_lines_and_none_of_ours(folder: Path) -> None:
    edit(
        folder,
        "SMALL" if "SMALL" in (folder / "project.py").read_text() else "import flyball as fb",
        "import fleyball as fb",
    )
    ran = flyball("check")
    assert ran.status == 2
    assert "project.py" in ran.err
    assert "src/flyball" not in ran.err


def check_json(ran: Ran) -> None:
    assert ran.json
