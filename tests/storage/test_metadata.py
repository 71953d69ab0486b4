"""The metadata database: one schema, one transaction over all rooms."""

from __future__ import annotations

import importlib
import json
import pkgutil
from contextlib import suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text

import flyball.storage.metadata
from flyball.define.spec import ProjectSpec, RolloutSpec, SourceSpec
from flyball.governance.facts import Recorder
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import ConflictError
from flyball.kernel.facts import Actor
from flyball.loop.ports import Awaiting, Intent, Piece, PlanEpoch, RetrainState, Schedule
from flyball.monitoring.ports import Alert, DriftPeriod, QualityPeriod
from flyball.rollout.decide import begin
from flyball.rollout.evidence import ArmCounts
from flyball.rollout.ports import Served
from flyball.rollout.state import Phase
from flyball.storage.metadata.database import METADATA, open_database
from flyball.storage.metadata.migrations import migrate
from flyball.storage.metadata.unit import SqlMetadata


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = open_database(tmp_path / "metadata.sqlite")
    migrate(engine)
    return engine


def test_the_migrated_schema_is_the_declared_one(engine: Engine) -> None:
    for module in pkgutil.iter_modules(flyball.storage.metadata.__path__):
        importlib.import_module(f"flyball.storage.metadata.{module.name}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_migrating_twice_changes_nothing(engine: Engine) -> None:
    migrate(engine)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConflictError, match="9999") as caught:
        migrate(engine)
    assert caught.value.code == "newer_database"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"


def test_what_sources_were_declared_as_is_remembered_also_of_projects_from_before(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "earlier.sqlite")
    migrate(engine, revision="0003")
    first, second = (SourceSpec(name=name, columns=(), event_time="at") for name in ("First", "Second"))
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO projects VALUES ('p', 'd', :spec, 5, 'ann')"),
            {"spec": json.dumps(ProjectSpec(name="p", sources=(first,)).to_data())},
        )
    migrate(engine)
    metadata = SqlMetadata(engine)
    for _ in range(2):
        with metadata.write() as unit:
            unit.projects.put(ProjectSpec(name="p", sources=(second,)), at=7, actor="ann")
    with metadata.read() as unit:
        assert unit.projects.declarations() == [first, second]


def test_a_fact_and_its_change_are_committed_together_or_not_at_all(engine: Engine) -> None:
    metadata = SqlMetadata(engine)
    recorder = Recorder(ManualClock(7))
    with suppress(RuntimeError), metadata.write() as unit:
        unit.projects.put(ProjectSpec(name="taxi"), at=7, actor="ann")
        recorder.record(unit.facts, Actor(name="ann"), "project.apply", "project:taxi", after={"name": "taxi"})
        raise RuntimeError
    with metadata.read() as unit:
        assert unit.projects.get("taxi") is None
        assert unit.facts.list() == []
    with metadata.write() as unit:
        unit.projects.put(ProjectSpec(name="taxi"), at=7, actor="ann")
        fact = recorder.record(unit.facts, Actor(name="ann", request_id="r1"), "project.apply", "project:taxi")
    with metadata.read() as unit:
        assert unit.projects.get("taxi") == ProjectSpec(name="taxi")
        assert unit.projects.all() == [ProjectSpec(name="taxi")]
        assert unit.facts.list(subject="project:taxi", kind="project.apply") == [fact]
        assert unit.facts.list(subject="project:other") == []


def test_versions_are_registered_in_the_transaction_of_their_fact(engine: Engine) -> None:
    metadata = SqlMetadata(engine)
    with suppress(RuntimeError), metadata.write() as unit:
        assert unit.versions.register("tip", digest="d" * 64, run="run_1", at=1).number == 1
        raise RuntimeError
    with metadata.write() as unit:
        assert unit.versions.list("tip") == []
        first = unit.versions.register("tip", digest="d" * 64, run="run_1", at=1)
        assert unit.versions.register("tip", digest="d" * 64, run="run_1", at=1) == first
        unit.versions.set_alias("tip", "champion", 1, expected=None, at=1)
        with pytest.raises(ConflictError):
            unit.versions.set_alias("tip", "champion", 1, expected=None, at=1)
    with metadata.read() as unit:
        assert unit.versions.aliases("tip") == {"champion": 1}


def test_rollouts_are_read_as_they_were_written(engine: Engine) -> None:
    metadata = SqlMetadata(engine)
    spec = RolloutSpec(kind="canary", steps=(5, 100))
    state = begin(id="ro_1", service="tip", version="tip/2", previous="tip/1", spec=spec, now=5)
    with metadata.write() as unit:
        unit.rollouts.put(state)
        unit.rollouts.put_served(Served(service="tip", current="tip/1"))
        for _ in range(2):
            unit.rollouts.add_counts("ro_1", [ArmCounts(arm="canary", weight=500, requests=3, errors=1)])
    with metadata.read() as unit:
        assert unit.rollouts.open("tip") == unit.rollouts.get("ro_1") == state
        assert unit.rollouts.history("tip") == [state]
        assert unit.rollouts.served("tip").current == "tip/1"
        assert unit.rollouts.served("other") == Served(service="other")
        assert unit.rollouts.counts("ro_1") == (ArmCounts(arm="canary", weight=500, requests=6, errors=2),)
        assert state.phase is Phase.STEPPING


def test_monitoring_adds_counts_and_replaces_scores(engine: Engine) -> None:
    metadata = SqlMetadata(engine)
    drift = DriftPeriod(service="tip", version="tip/1", start=0, rows=2, counts={"fare": [1, 1]})
    score = QualityPeriod(
        service="tip", version="tip/1", start=0, rows=9, matured=3, labelled=2, metric="auc", value=None
    )
    alert = Alert(id="alert_1", service="tip", version="tip/1", kind="drift", opened_at=4)
    with metadata.write() as unit:
        for _ in range(2):
            unit.monitoring.add_drift(drift)
            unit.monitoring.put_quality(score)
            unit.monitoring.put_alert(alert)
    with metadata.read() as unit:
        assert unit.monitoring.drift("tip")[0].counts == {"fare": [2, 2]}
        assert unit.monitoring.drift("tip", version="tip/2") == []
        assert unit.monitoring.quality("tip") == [score]
        assert unit.monitoring.alerts("tip", open_only=True) == [alert]


def test_the_loops_remember(engine: Engine) -> None:
    metadata = SqlMetadata(engine)
    piece = Piece(slot="0", segment="00000001.log", start=16, end=90)
    with metadata.write() as unit:
        loop = unit.loop
        assert loop.pending() is None
        manifest = loop.open_manifest((piece,), at=1)
        assert loop.pending() == manifest
        loop.close_manifest(manifest, rows=4)
        assert loop.collected() == {("0", "00000001.log"): 90}
        assert loop.pending() is None
        assert loop.collected_rows() == 4
        loop.forget_segment("0", "00000001.log")
        assert loop.collected() == {}
        assert loop.open_manifest((piece,), at=1).n == 2
        intent = Intent(run="run_1", cause="apply", service="tip")
        loop.put_intent(intent)
        assert loop.intent("run_1") == intent
        retrain = RetrainState(service="tip", run="run_1", started_at=3, decision="train")
        loop.put_retrain(retrain)
        assert loop.retrain("tip") == retrain
        awaiting = Awaiting(service="tip", version="tip/2", since=3)
        loop.put_awaiting(awaiting)
        assert loop.awaiting("tip") == awaiting
        loop.clear_awaiting("tip")
        assert loop.awaiting("tip") is None
        schedule = Schedule(batch="nightly", last_at=3, after=9, run="run_2")
        loop.put_schedule(schedule)
        assert loop.schedule("nightly") == schedule
        loop.put_plan(PlanEpoch(kind="serving", epoch=4, digest="d"))
        assert loop.plan("serving") == PlanEpoch(kind="serving", epoch=4, digest="d")
