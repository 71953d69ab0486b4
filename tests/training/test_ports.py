"""Conformance of run ledgers; runs on the SQLite adapter."""

from __future__ import annotations

import json

import msgspec
import pytest

from flyball.define.spec import ModelSpec, ProjectSpec
from flyball.kernel.errors import ConflictError, NotFoundError
from flyball.training.ports import Handle, Horizon, RunSpec, RunState, RunStore, run_spec_from_data

MODEL = ModelSpec(name="tip")
SPEC = RunSpec(
    run="run_1",
    model=MODEL,
    project=ProjectSpec(name="taxi", models=(MODEL,)),
    horizon={"Trips": Horizon(lsn=9, version=2, rows=8)},
    at=1_000,
    params={"leaves": 7},
)
HANDLE = Handle(boot="b", pid=7, started=11)


def test_a_spec_survives_json_and_keeps_its_hash() -> None:
    again = run_spec_from_data(json.loads(json.dumps(SPEC.to_data())))
    assert again == SPEC
    assert again.hash == SPEC.hash
    assert msgspec.structs.replace(SPEC, seed=1).hash != SPEC.hash


def test_a_created_run_is_queued_and_creating_it_again_changes_nothing(run_store: RunStore) -> None:
    record = run_store.create(SPEC, actor="ann", reason="by hand", at=5)
    assert (record.state, record.attempt, record.created, record.spec) == (RunState.QUEUED, 0, 5, SPEC)
    assert run_store.create(SPEC, actor="bob", reason="again", at=6) == record
    with pytest.raises(ConflictError) as caught:
        run_store.create(msgspec.structs.replace(SPEC, seed=1), actor="ann", reason="", at=6)
    assert caught.value.code == "run_exists"


def test_a_run_is_started_given_a_handle_and_finished(run_store: RunStore) -> None:
    run_store.create(SPEC, actor="ann", reason="", at=5)
    started = run_store.update("run_1", expected=RunState.QUEUED, state=RunState.RUNNING, at=6)
    assert (started.attempt, started.started, started.handle) == (1, 6, None)
    running = run_store.update("run_1", expected=RunState.RUNNING, state=RunState.RUNNING, at=7, handle=HANDLE)
    assert running.handle == HANDLE
    done = run_store.update(
        "run_1", expected=RunState.RUNNING, state=RunState.SUCCEEDED, at=8, attempt=1, result={"digest": "d"}
    )
    assert (done.finished, done.result) == (8, {"digest": "d"})
    assert done.state.final


def test_only_one_of_two_updates_from_the_same_state_wins(run_store: RunStore) -> None:
    run_store.create(SPEC, actor="ann", reason="", at=5)
    run_store.update("run_1", expected=RunState.QUEUED, state=RunState.RUNNING, at=6)
    with pytest.raises(ConflictError) as caught:
        run_store.update("run_1", expected=RunState.QUEUED, state=RunState.STOPPED, at=6)
    assert caught.value.code == "run_state_changed"


def test_a_stale_attempt_cannot_finish_a_run(run_store: RunStore) -> None:
    run_store.create(SPEC, actor="ann", reason="", at=5)
    run_store.update("run_1", expected=RunState.QUEUED, state=RunState.RUNNING, at=6)
    run_store.update("run_1", expected=RunState.RUNNING, state=RunState.QUEUED, at=7)
    again = run_store.update("run_1", expected=RunState.QUEUED, state=RunState.RUNNING, at=8)
    assert again.attempt == 2
    with pytest.raises(ConflictError):
        run_store.update("run_1", expected=RunState.RUNNING, state=RunState.SUCCEEDED, at=9, attempt=1)


def test_a_finished_run_stays_finished(run_store: RunStore) -> None:
    run_store.create(SPEC, actor="ann", reason="", at=5)
    run_store.update("run_1", expected=RunState.QUEUED, state=RunState.FAILED, at=6, error={"code": "x"})
    with pytest.raises(ConflictError):
        run_store.update("run_1", expected=RunState.FAILED, state=RunState.RUNNING, at=7)


def test_runs_are_listed_newest_first_by_model_and_state(run_store: RunStore) -> None:
    for number in (1, 2, 3):
        spec = msgspec.structs.replace(SPEC, run=f"run_{number}")
        run_store.create(spec, actor="ann", reason="", at=number)
    run_store.update("run_2", expected=RunState.QUEUED, state=RunState.RUNNING, at=9)
    assert [r.id for r in run_store.list(model="tip")] == ["run_3", "run_2", "run_1"]
    assert [r.id for r in run_store.list(states=(RunState.RUNNING,))] == ["run_2"]
    assert [r.id for r in run_store.list(limit=1)] == ["run_3"]
    assert run_store.list(model="other") == []
    assert run_store.list(kind="batch") == []


def test_an_unknown_run_is_named(run_store: RunStore) -> None:
    with pytest.raises(NotFoundError) as caught:
        run_store.get("run_9")
    assert caught.value.code == "run_not_found"
    with pytest.raises(NotFoundError):
        run_store.update("run_9", expected=RunState.QUEUED, state=RunState.RUNNING, at=1)
