"""Applying, refusing, recovering: what `Control` promises at its edges."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from flyball.define.spec import BatchSpec, ModelSpec, ProjectSpec, RetrainSpec, RolloutSpec, ServiceSpec, TriggerSpec
from flyball.kernel.clock import WallClock
from flyball.kernel.errors import ConflictError, FlyballError, InvalidError, NotFoundError
from flyball.kernel.facts import Actor
from flyball.kernel.ids import digest
from flyball.kernel.times import DAY, MINUTE
from flyball.storage.metadata.unit import SqlMetadata
from flyball.training.ports import SPOOL
from tests.loop.fakes import record
from tests.loop.platform import ANN, NIGHTLY, TIP, TRIPS, Platform, project

FEATURES = ModelSpec(name="lookup", rows="Trips", features=TIP.features)


@pytest.fixture
def platform(metadata: SqlMetadata, tmp_path: Path) -> Platform:
    return Platform(metadata, tmp_path)


def test_a_stale_plan_is_refused_and_changes_nothing(platform: Platform) -> None:
    platform.apply(project())
    facts = platform.control.facts()
    with pytest.raises(ConflictError) as caught:
        platform.control.apply(project(description="new"), base="", actor=ANN)
    assert caught.value.code == "stale_plan"
    assert "flyball plan" in caught.value.hint
    assert platform.control.facts() == facts
    assert platform.control.project("taxi") == project()


def test_applying_the_same_again_changes_nothing(platform: Platform) -> None:
    platform.apply(project())
    epoch = platform.plans.published["serving"]["epoch"]
    again = platform.apply(project())
    assert (again["changes"], again["runs"]) == ([], [])
    assert platform.plans.published["serving"]["epoch"] == epoch


def test_a_name_of_another_project_is_refused(platform: Platform) -> None:
    platform.apply(project())
    other = ProjectSpec(name="other", sources=(TRIPS,))
    with pytest.raises(ConflictError) as caught:
        platform.apply(other)
    assert caught.value.code == "name_taken"
    assert "project taxi" in caught.value.message


@pytest.mark.parametrize("name", ["predictions", "flyball_feedback"])
def test_a_table_of_the_platform_cannot_be_a_source(platform: Platform, name: str) -> None:
    with pytest.raises(InvalidError) as caught:
        platform.apply(ProjectSpec(name="other", sources=(msgspec.structs.replace(TRIPS, name=name),)))
    assert caught.value.code == "reserved_name"


def test_a_batch_cannot_write_to_a_table_of_quarantine(platform: Platform) -> None:
    batch = BatchSpec(name="nightly", model="tip", rows="Trips", every=DAY, output="Trips__quarantine")
    with pytest.raises(InvalidError) as caught:
        platform.apply(msgspec.structs.replace(project(), batches=(batch,)))
    assert caught.value.code == "reserved_name"


def test_a_bundle_that_was_not_uploaded_is_refused(platform: Platform) -> None:
    spec = msgspec.structs.replace(project(), bundle=digest(b"code"))
    with pytest.raises(InvalidError) as caught:
        platform.apply(spec)
    assert caught.value.code == "artifact_missing"
    assert platform.control.put_artifact(b"code") == spec.bundle
    platform.apply(spec)


def test_another_project_is_not_touched(platform: Platform) -> None:
    platform.first_version()
    source = msgspec.structs.replace(TRIPS, name="Rides")
    platform.apply(ProjectSpec(name="other", sources=(source,)))
    assert platform.control.service("tip")["version"] == "tip/1"
    assert [s["name"] for s in platform.plans.published["ingest"]["sources"]] == ["Rides", "Trips"]


def test_a_model_that_nothing_trains_is_released_by_its_apply(platform: Platform) -> None:
    spec = ProjectSpec(
        name="features", sources=(TRIPS,), models=(FEATURES,), services=(ServiceSpec(name="look", model="lookup"),)
    )
    done = platform.apply(spec)
    assert (done["versions"], done["released"], done["runs"]) == (["lookup/1"], ["look"], [])
    platform.settle()
    assert platform.control.service("look")["version"] == "lookup/1"
    again = platform.apply(msgspec.structs.replace(spec, owner="ann"))
    assert (again["versions"], again["released"]) == ([], [])


def test_a_removed_service_leaves_the_plan_and_its_past_stays(platform: Platform) -> None:
    platform.first_version()
    bare = msgspec.structs.replace(project(), services=())
    platform.apply(bare)
    assert platform.plans.published["serving"]["services"] == {}
    assert platform.control.versions("tip")["aliases"]["champion"] == 1
    with pytest.raises(NotFoundError):
        platform.control.service("tip")
    back = platform.apply(project())
    assert back["released"] == ["tip"]  # it has a version already


def test_a_version_that_its_gate_refused_is_not_released_by_the_next_apply(platform: Platform) -> None:
    platform.apply(project())
    platform.train(rows=10)
    platform.settle()
    assert platform.control.service("tip")["version"] == ""
    assert platform.apply(project(description="new"))["released"] == []
    platform.settle()
    assert platform.control.service("tip")["version"] == ""


def test_releasing_what_serves_during_a_canary_keeps_the_way_back(platform: Platform) -> None:
    platform.first_version()
    for number in (2, 3):
        platform.control.train("tip", actor=ANN)
        platform.train()
        strategy = RolloutSpec(kind="full") if number == 2 else None
        platform.control.release("tip", version=number, strategy=strategy, actor=ANN)
        platform.settle()
    platform.control.release("tip", version=2, actor=ANN)
    platform.settle()
    assert platform.control.service("tip")["version"] == "tip/2"
    assert platform.control.rollback("tip", actor=ANN)["version"] == "tip/1"


def test_a_service_that_is_given_another_model_starts_the_canary_that_its_plan_tells(platform: Platform) -> None:
    both = msgspec.structs.replace(project(), models=(TIP, msgspec.structs.replace(TIP, name="other")))
    platform.apply(both)
    for _ in range(2):
        platform.train()
        platform.settle()
    given = msgspec.structs.replace(both, services=project(model="other").services)
    assert "canary" in platform.control.plan(given)["changes"][0]["causes"][0]
    assert platform.apply(given)["released"] == ["tip"]
    rollout = platform.control.service("tip")["rollout"]
    assert (rollout["version"], rollout["previous"]) == ("other/1", "tip/1")
    platform.settle()
    assert platform.apply(given)["released"] == []


def test_a_run_waits_for_its_data_and_says_so_once(platform: Platform) -> None:
    platform.ingest.rows["Trips"] = 0
    run = platform.apply(project())["runs"][0]
    platform.ingest.down = True
    platform.control.tick()
    platform.control.tick()
    platform.ingest.down = False
    platform.control.tick()
    platform.control.tick()
    assert platform.engine.launched == []
    assert "of 1000 rows" in platform.control.run(run)["not_yet"]
    assert platform.kinds(f"run:{run}") == ["run.queue", "run.wait", "run.wait"]
    platform.ingest.rows["Trips"] = 20
    asked = platform.control.train("tip", actor=ANN)
    assert asked["run"] == run  # the one that waits is taken, and starts with any row
    platform.control.tick()
    assert platform.engine.launched == [run]


def test_one_run_at_a_time_and_a_failed_one_is_kept_with_its_error(platform: Platform) -> None:
    platform.apply(project())
    platform.control.tick()
    first = platform.engine.launched[0]
    second = platform.control.train("tip", actor=ANN, params={"leaves": 7})["run"]
    platform.control.tick()
    assert platform.engine.launched == [first]
    platform.engine.fail(platform.folder / "runs" / first, "12 rows are too few")
    platform.control.tick()
    platform.control.tick()
    failed = platform.control.run(first)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "too_few_rows")
    assert platform.engine.launched == [first, second]
    assert platform.control.versions("tip")["versions"] == []


def test_a_run_whose_process_is_lost_is_tried_again_and_then_failed(platform: Platform) -> None:
    platform.apply(project())
    platform.control.tick()
    run = platform.engine.launched[0]
    for _ in range(2):
        spool = platform.folder / "runs" / run / SPOOL
        (spool / "flyball-1").mkdir(parents=True)
        platform.engine.end(run)
        platform.settle()
        assert not spool.exists(), "raw events outlive no run"
    assert platform.engine.launched == [run, run]
    assert platform.control.run(run)["error"]["code"] == "run_lost"


def test_a_restart_finds_the_running_run_and_republishes_a_lost_plan(platform: Platform) -> None:
    platform.apply(project())
    platform.control.tick()
    run = platform.engine.launched[0]
    lost = platform.plans.published.pop("serving")
    platform.restart()
    assert platform.plans.published["serving"] == lost
    platform.engine.finish(platform.folder / "runs" / run)
    platform.settle()
    assert platform.control.service("tip")["version"] == "tip/1"
    assert platform.engine.launched == [run]


def test_a_bad_version_of_a_run_fails_the_run_and_not_the_loop(platform: Platform) -> None:
    platform.apply(project())
    platform.control.tick()
    folder = platform.folder / "runs" / platform.engine.launched[0]
    platform.engine.finish(folder)
    (folder / "version" / "model.txt").unlink()
    platform.control.tick()
    assert platform.control.run(folder.name)["error"]["code"] == "version_corrupt"
    assert platform.control.status()["loops"]["runs"]["ok"]


def test_a_failing_loop_is_shown_and_the_others_go_on(platform: Platform) -> None:
    platform.apply(project())
    platform.log.write("0", "00000001.log", record(1))
    platform.lake.full = True
    done = platform.control.tick()
    assert done["collect"].startswith("failed")
    assert len(platform.engine.launched) == 1
    loops = platform.control.status()["loops"]
    assert loops["collect"]["error"]["code"] == "disk_full"
    assert loops["runs"]["ok"]
    platform.lake.full = False
    assert platform.control.tick()["collect"]["rows"] == 1


def test_a_record_that_cannot_be_binned_still_reaches_the_lake(platform: Platform) -> None:
    platform.first_version()
    platform.log.write("0", "00000001.log", record(1, version="tip/99"), record(2, features={"fare": "pii:1"}))
    assert platform.control.tick()["collect"]["rows"] == 2
    assert platform.control.drift("tip")["periods"][0]["features"] == []


def test_a_batch_scores_new_rows_once_a_period(platform: Platform) -> None:
    spec = msgspec.structs.replace(project(), batches=(NIGHTLY,))
    platform.apply(spec)
    platform.control.tick()
    assert "no version" in platform.control.batch("nightly")["note"]
    platform.train()
    platform.settle()
    run = platform.engine.launched[-1]
    assert platform.control.run(run)["kind"] == "batch"
    platform.engine.finish(platform.folder / "runs" / run)
    platform.settle()
    batch = platform.control.batch("nightly")
    assert (batch["scored_through"], len(batch["runs"])) == (5_000, 1)
    platform.advance(DAY)
    platform.settle()
    batch = platform.control.batch("nightly")
    assert batch["runs"][0]["state"] == "stopped"  # there were no new rows
    assert batch["scored_through"] == 5_000
    platform.ingest.rows["Trips"] = 6_000
    platform.advance(DAY)
    platform.settle()
    assert platform.control.batch("nightly")["runs"][0]["state"] == "running"


def test_a_batch_that_is_tried_again_scores_to_the_same_horizon(platform: Platform) -> None:
    platform.first_version()
    platform.apply(msgspec.structs.replace(project(), batches=(NIGHTLY,)))
    platform.settle()
    run = platform.engine.launched[-1]
    platform.ingest.rows["Trips"] = 6_000
    platform.engine.end(run)  # it may have added its rows before it was lost
    platform.settle()
    assert platform.engine.launched[-2:] == [run, run]
    platform.engine.finish(platform.folder / "runs" / run)
    platform.settle()
    assert platform.control.batch("nightly")["scored_through"] == 5_000


def test_asking_for_a_run_that_a_trigger_queued_leaves_it_the_triggers(platform: Platform) -> None:
    every = RetrainSpec(on=(TriggerSpec(kind="every", every=DAY),), cooldown=MINUTE)
    platform.apply(project(retrain=every))
    platform.train()
    platform.settle()
    platform.advance(DAY)
    waiting = platform.control.status()["runs"][0]["run"]
    assert platform.control.train("tip", actor=ANN)["run"] == waiting
    platform.train(champion=0.9)
    platform.settle()
    assert platform.control.service("tip")["rollout"]["version"] == "tip/2"


def test_an_actor_and_the_request_stand_on_every_change(platform: Platform) -> None:
    platform.first_version()
    by_ann = [fact for fact in platform.control.facts() if fact["actor"] == "ann"]
    assert {fact["kind"] for fact in by_ann} == {"project.apply", "run.queue"}
    assert {fact["request_id"] for fact in by_ann} == {"req_1"}
    assert all(fact["at"] == platform.clock.now() for fact in by_ann)


@pytest.mark.parametrize(
    ("question", "code"),
    [
        (lambda c: c.service("tpi"), "service_not_found"),
        (lambda c: c.versions("tpi"), "model_not_found"),
        (lambda c: c.train("tpi", actor=ANN), "model_not_found"),
        (lambda c: c.run("run_0"), "run_not_found"),
        (lambda c: c.batch("nightly"), "batch_not_found"),
        (lambda c: c.project("other"), "project_not_found"),
        (lambda c: c.prediction("p_0"), "prediction_not_found"),
        (lambda c: c.release("tip", version=9, actor=ANN), "version_not_found"),
        (lambda c: c.release("tip", version="fare/1", actor=ANN), "bad_version"),
        (lambda c: c.release("tip", version="²", actor=ANN), "bad_version"),
        (lambda c: c.release("tip", version=10**30, actor=ANN), "bad_version"),
        (lambda c: c.release("tip", version=1, actor=ANN), "already_served"),
        (lambda c: c.rollback("tip", actor=ANN), "no_previous"),
        (lambda c: c.approve("tip", version=1, actor=ANN), "not_awaiting"),
    ],
)
def test_what_cannot_be_done_says_why(platform: Platform, question: object, code: str) -> None:
    platform.first_version()
    assert callable(question)
    with pytest.raises(FlyballError) as caught:
        question(platform.control)
    assert caught.value.code == code


def test_a_model_without_a_function_cannot_be_trained(platform: Platform) -> None:
    platform.apply(ProjectSpec(name="features", sources=(TRIPS,), models=(FEATURES,)))
    with pytest.raises(InvalidError) as caught:
        platform.control.train("lookup", actor=ANN)
    assert caught.value.code == "not_trainable"


def test_only_a_replay_clock_is_advanced(platform: Platform) -> None:
    assert platform.control.advance_clock(platform.clock.now() + MINUTE, Actor(name="demo"))["at"] > 0
    platform.clock = WallClock()  # type: ignore[assignment]
    with pytest.raises(ConflictError) as caught:
        platform.restart().advance_clock(1, ANN)
    assert caught.value.code == "clock_is_wall"


def test_status_says_what_is_wrong(platform: Platform) -> None:
    platform.first_version()
    status = platform.control.status()
    assert status["services"][0]["version"] == "tip/1"
    assert status["plans"]["serving"]["taken"]
    platform.plans.refusal = "out of memory"
    assert platform.control.status()["plans"]["refused"] == ["worker-0: out of memory"]
