"""The loop from a declaration to a retrained version, in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyball.define.spec import RetrainSpec, TriggerSpec
from flyball.kernel.times import DAY, HOUR, MINUTE
from flyball.storage.metadata.unit import SqlMetadata
from tests.loop.platform import ANN, Platform, project


@pytest.fixture
def platform(metadata: SqlMetadata, tmp_path: Path) -> Platform:
    return Platform(metadata, tmp_path)


def second_version(platform: Platform) -> None:
    """Train another version and start its canary."""
    platform.control.train("tip", actor=ANN)
    platform.train(auc=0.91, champion=0.9)
    platform.control.release("tip", version=2, actor=ANN)
    platform.settle()


def test_a_project_is_applied_trained_registered_and_released(platform: Platform) -> None:
    started = platform.apply(project())
    assert [change["kind"] for change in started["changes"]] == ["source", "model", "service"]
    assert len(started["runs"]) == 1
    assert "services" in platform.plans.published["serving"]
    run = platform.train()
    platform.settle()
    service = platform.control.service("tip")
    assert service["version"] == "tip/1"
    assert service["routes"] == [{"version": "tip/1", "weight": 10_000, "arm": "stable"}]
    assert platform.control.versions("tip")["aliases"] == {"champion": 1, "latest": 1}
    assert platform.control.run(run)["state"] == "succeeded"
    assert platform.kinds() == ["rollout.start", "rollout.finish"]
    plan = platform.plans.published["serving"]
    assert plan["services"]["tip"]["key"] == ["id"]
    assert plan["versions"]["tip/1"]["path"].endswith(plan["versions"]["tip/1"]["digest"])


def test_a_run_that_apply_queued_gives_way_to_one_that_was_asked_for(platform: Platform) -> None:
    (queued,) = platform.apply(project())["runs"]
    asked = platform.control.train("tip", actor=ANN, params={"baseline": "without_windows"})
    assert platform.control.run(queued)["state"] == "stopped"
    assert platform.control.run(asked["run"])["state"] == "queued"
    assert platform.control.train("tip", actor=ANN, params={"baseline": "without_windows"})["run"] == asked["run"]


def test_a_good_canary_goes_step_by_step_to_all_traffic(platform: Platform) -> None:
    platform.first_version()
    second_version(platform)
    weights = []
    for _ in range(12):
        platform.traffic(400)
        platform.advance(5 * MINUTE)
        weights.append(max(r["weight"] for r in platform.control.service("tip")["routes"] if r["version"] == "tip/2"))
    assert sorted(set(weights)) == [500, 5_000, 10_000]
    assert weights == sorted(weights)
    assert platform.control.service("tip")["version"] == "tip/2"
    assert platform.control.versions("tip")["aliases"]["champion"] == 2
    assert platform.kinds()[-4:] == ["rollout.start", "rollout.advance", "rollout.promote", "rollout.finish"]
    assert set(platform.plans.published["serving"]["versions"]) == {"tip/1", "tip/2"}  # kept for a rollback
    platform.control.rollback("tip", actor=ANN)
    platform.settle()
    assert platform.control.service("tip")["version"] == "tip/1"


def test_a_canary_that_always_fails_is_aborted_after_a_handful_of_requests(platform: Platform) -> None:
    platform.first_version()
    second_version(platform)
    platform.traffic(80, failing="tip/2")  # four of them reach the canary
    platform.advance(1 * MINUTE)
    platform.settle()
    service = platform.control.service("tip")
    assert service["version"] == "tip/1"
    assert service["rollout"] is None
    assert service["history"][0]["phase"] == "aborted"
    assert service["history"][0]["arms"][0]["errors"] == 4
    assert service["routes"] == [{"version": "tip/1", "weight": 10_000, "arm": "stable"}]
    assert "rollout.abort" in platform.kinds()


def test_a_plan_that_workers_refuse_aborts_the_rollout_with_their_reason(platform: Platform) -> None:
    platform.first_version()
    platform.control.train("tip", actor=ANN)
    platform.train(champion=0.9)
    platform.control.release("tip", version=2, actor=ANN)
    platform.plans.refusal = "the samples of tip/2 differ"
    platform.control.tick()
    platform.plans.refusal = ""
    platform.settle()
    history = platform.control.service("tip")["history"][0]
    assert history["phase"] == "aborted"
    assert "the samples of tip/2 differ" in history["reason"]
    assert platform.control.service("tip")["version"] == "tip/1"


def test_drift_retrains_once_and_then_cools_down(platform: Platform) -> None:
    platform.first_version()
    platform.traffic(600)
    platform.advance(7 * HOUR)
    assert platform.control.status()["alerts"] == []
    platform.advance(DAY)
    platform.traffic(600, fare=9.9)
    platform.advance(MINUTE)
    drift = platform.control.drift("tip")
    assert drift["periods"][0]["features"][0]["drifted"]
    assert [alert["kind"] for alert in drift["alerts"]] == ["drift"]
    queued = platform.control.runs()[0]
    assert (queued["cause"], queued["state"]) == ("retrain", "queued")
    platform.advance(MINUTE)
    platform.train(auc=0.8, champion=0.9)  # worse than what serves: the gate refuses it
    assert "version.refuse" in platform.kinds()
    for _ in range(5):
        platform.advance(MINUTE)
    assert platform.kinds().count("retrain.start") == 1
    assert platform.kinds().count("alert.open") == 1
    assert "cooling down" in platform.control.service("tip")["retrain"]
    platform.advance(7 * HOUR)
    assert platform.kinds().count("retrain.start") == 2
    platform.train(auc=0.91, champion=0.8)
    assert platform.control.service("tip")["rollout"]["version"] == "tip/3"


def test_a_quality_drop_is_found_from_late_labels_and_retrains(platform: Platform) -> None:
    platform.first_version(auc=1.0)
    platform.traffic(600)
    platform.advance(8 * HOUR)
    quality = platform.control.quality("tip")
    assert quality["periods"][0]["value"] == 1.0
    assert quality["periods"][0]["labelled"] == 600
    platform.advance(DAY)
    platform.traffic(600, good=False)
    platform.advance(MINUTE)
    assert platform.control.quality("tip")["alerts"] == []  # its labels are not mature yet
    platform.advance(8 * HOUR)
    assert [alert["kind"] for alert in platform.control.quality("tip")["alerts"]] == ["quality_drop"]
    assert platform.control.runs()[0]["cause"] == "retrain"
    platform.train(auc=0.9, champion=0.5)
    assert platform.control.service("tip")["rollout"]["version"] == "tip/2"
    for _ in range(8):
        platform.advance(5 * MINUTE)
        platform.traffic(200)
    assert platform.control.service("tip")["version"] == "tip/2"
    assert platform.control.status()["alerts"] == []  # it was on the version that was replaced
    assert len(platform.control.runs()) == 2


def test_a_version_under_review_waits_for_approval(platform: Platform) -> None:
    manual = RetrainSpec(on=(TriggerSpec(kind="every", every=DAY),), review="manual")
    platform.apply(project(retrain=manual))
    platform.train()
    platform.settle()
    platform.advance(DAY)
    platform.train(champion=0.9)
    assert platform.control.service("tip")["awaiting"]["version"] == "tip/2"
    platform.advance(2 * DAY)
    assert len(platform.control.runs()) == 2  # nothing is trained while one waits
    platform.control.approve("tip", version=2, actor=ANN)
    platform.settle()
    assert platform.control.service("tip")["rollout"]["version"] == "tip/2"
    assert "release.approve" in platform.kinds()


def test_a_prediction_leads_to_everything_that_made_it(platform: Platform) -> None:
    platform.first_version()
    platform.traffic(10)
    platform.control.tick()
    receipt = platform.control.prediction("pred_7")
    assert receipt["version"]["version"] == "tip/1"
    assert receipt["run"]["actor"] == "ann"
    assert receipt["snapshot"]["Trips"]["rows"] == 5_000
    assert receipt["features"][0]["name"] == "fare"
    assert receipt["approvals"][-1]["kind"] == "rollout.start"
    assert receipt["prediction"]["key"] == {"id": "7"}
