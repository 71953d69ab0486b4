"""The whole loop in one process, on the project that `flyball init` writes."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyball.define.load import load_project
from flyball.define.project import Project
from flyball.kernel.errors import InvalidError, NotFoundError
from flyball.kernel.times import HOUR, MINUTE, parse_time, show_time
from flyball.testing import TestPlatform, platform
from tests.cli.run_cli import flyball

NOW = parse_time("2026-02-01T00:00:00Z")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("taxi")
    path, modules = sys.path[:], set(sys.modules)
    assert flyball("init", folder).status == 0
    yield folder
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name == "project":
            del sys.modules[name]


@pytest.fixture(scope="module")
def project(written: Path) -> Project:
    return load_project(written / "project.py")


@pytest.fixture(scope="module")
def trained(project: Project, written: Path) -> Iterator[TestPlatform]:
    with platform(project, at=NOW) as running:
        running.load("Trips", written / "trips.csv")
        running.train("tip")
        yield running


def trip(number: int, at: int, **fields: Any) -> dict[str, Any]:
    row = {"id": f"live-{number}", "started": show_time(at), "company": "Sun", "payment_type": "Cash"}
    return {**row, "fare": "12.50", "tips": "0.00", **fields}


def test_training_registers_a_version_that_is_released_and_answers(trained: TestPlatform) -> None:
    (version,) = trained.versions("tip")
    assert version["version"] == "tip/1"
    assert version["metrics"]["auc"] > 0.7
    asked: dict[str, Any] = {"company": "Sun", "fare": "12.50"}
    cash = trained.predict("tip", payment_type="Cash", **asked)
    card = trained.predict("tip", payment_type="Credit Card", **asked)
    assert (cash["version"], cash["rung"]) == ("tip/1", "model")
    assert cash["score"] < card["score"]


def test_rows_get_a_reply_each_and_a_wrong_one_fails_alone(trained: TestPlatform) -> None:
    good: dict[str, Any] = {"company": "Sun", "payment_type": "Cash", "fare": 10}
    replies = trained.predict("tip", [good, {**good, "fare": "much"}, good])
    assert ["error" in reply for reply in replies] == [False, True, False]
    with pytest.raises(InvalidError):
        trained.predict("tip", **{**good, "fare": "much"})


def test_a_prediction_has_a_receipt_that_leads_to_its_run(trained: TestPlatform) -> None:
    reply = trained.predict("tip", company="Blue", payment_type="Mobile", fare="8.00")
    receipt = trained.prediction(reply["prediction_id"])
    assert receipt["version"]["version"] == "tip/1"
    assert receipt["run"]["actor"] == "test"
    assert receipt["prediction"]["inputs"]["company"] == "Blue"


def test_live_events_change_the_features_of_the_next_prediction(project: Project, written: Path) -> None:
    with platform(project, at=NOW) as running:
        running.load("Trips", written / "trips.csv")
        before = running.train("tip")
        assert before["version"] == "tip/1"
        asked: dict[str, Any] = {"company": "New", "payment_type": "Credit Card", "fare": "12.50"}
        unknown = running.predict("tip", **asked)
        for number in range(30):
            running.advance("1m")
            at = running.clock.now() - MINUTE // 2
            running.push("Trips", [trip(number, at, company="New", payment_type="Credit Card", tips="6.00")])
        running.advance("1m")
        assert running.predict("tip", **asked)["score"] != unknown["score"]


def test_bad_rows_are_quarantined_with_their_reason_and_duplicates_count_once(trained: TestPlatform) -> None:
    row = trip(900, NOW - HOUR)
    receipt = trained.push("Trips", [row, row, {**row, "id": "x", "fare": "-1"}])
    assert (receipt["accepted"], receipt["quarantined"]) in ((1, 1), (2, 1))
    (bad,) = [one for one in trained.quarantine("Trips") if one["row"]["id"] == "x"]
    assert "fare" in str(bad)
    assert trained.quarantine("Trips")


def test_what_the_users_function_raises_comes_through_as_it_is(written: Path, project: Project) -> None:
    class Broke(Exception):
        pass

    def broken(data: Any, run: Any) -> Any:
        raise Broke("in the user's code")

    with platform(project, at=NOW) as running:
        running.load("Trips", written / "trips.csv")
        running._engine._functions = {"tip": broken}
        with pytest.raises(Broke):
            running.train("tip")
        assert running.status()["runs"][0]["state"] == "failed"


def test_time_moves_only_forward_and_only_when_it_is_told_to(project: Project) -> None:
    with platform(project, at=NOW) as running:
        assert running.clock.now() == NOW
        running.advance("90m")
        assert running.clock.now() == NOW + 90 * MINUTE
        with pytest.raises(InvalidError):
            running.advance(-1)


def test_names_that_are_not_there_are_answered_with_those_that_are(trained: TestPlatform) -> None:
    with pytest.raises(NotFoundError, match="tip"):
        trained.predict("tpi", fare=1)
    with pytest.raises(NotFoundError, match="tip"):
        trained.train("tpi")


def test_a_changed_project_is_applied_and_its_facts_say_so(project: Project, written: Path) -> None:
    with platform(project, at=NOW) as running:
        kinds = [fact["kind"] for fact in running.facts(kind="project.apply")]
        assert kinds == ["project.apply"]
        assert running.apply(project).get("changes", []) == []


def test_feedback_is_taken_for_a_prediction(trained: TestPlatform) -> None:
    random.seed(1)
    reply = trained.predict("tip", company="Sun", payment_type="Cash", fare="9.00")
    receipt = trained.feedback({"prediction_id": reply["prediction_id"], "label": True})
    assert receipt["accepted"] == 1
