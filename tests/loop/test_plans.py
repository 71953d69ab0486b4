"""Plans as files, and what live processes say about them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyball.define.spec import RolloutSpec
from flyball.governance.facts import wall_now
from flyball.kernel.files import write_document
from flyball.kernel.layout import Layout
from flyball.kernel.times import DAY
from flyball.loop.plans import ACKNOWLEDGEMENT_FORMAT, PlanFiles, process_alive
from flyball.loop.ports import Acknowledgement
from flyball.loop.publish import observe_rollout
from flyball.rollout.decide import begin
from flyball.serving.plan import decode
from flyball.storage.metadata.unit import SqlMetadata
from tests.loop.platform import ANN, Platform, project


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "state")
    layout.create()
    return layout


def acknowledge(layout: Layout, process: str, *, epoch: int, pid: int, error: str | None = None) -> None:
    body = {"epoch": epoch, "digest": "d", "error": error, "pid": pid, "at": 0}
    write_document(layout.acknowledgements / f"{process}.json", ACKNOWLEDGEMENT_FORMAT, body)


def test_a_plan_is_read_back_as_it_was_published(layout: Layout) -> None:
    plans = PlanFiles(layout)
    assert plans.current("serving") is None
    plans.publish("serving", {"epoch": 3, "digest": "d"})
    assert plans.current("serving") == {"epoch": 3, "digest": "d"}
    layout.serving_plan.write_text("half a pl")
    assert plans.current("serving") is None  # and so it is published again


def test_only_live_processes_are_heard(layout: Layout) -> None:
    acknowledge(layout, "worker-0", epoch=4, pid=1)
    acknowledge(layout, "worker-1", epoch=3, pid=2, error="no memory")
    (layout.acknowledgements / "torn.json").write_text("{")
    plans = PlanFiles(layout, alive=lambda pid, at: pid == 1)
    assert plans.acknowledgements() == [Acknowledgement(process="worker-0", epoch=4, digest="d")]
    assert len(PlanFiles(layout, alive=lambda pid, at: True).acknowledgements()) == 2


def test_a_process_that_only_has_the_number_of_another_is_not_heard() -> None:
    assert process_alive(os.getpid(), wall_now())
    assert not process_alive(os.getpid(), wall_now() - 365 * DAY)  # someone else had this number then
    assert not process_alive(2**22 + 1, wall_now())


def test_a_rollout_is_acknowledged_by_all_workers_and_refused_by_any(metadata: SqlMetadata) -> None:
    state = begin(id="ro_1", service="tip", version="tip/1", previous="", spec=RolloutSpec(), now=0)
    published = type(state)(**{name: getattr(state, name) for name in state.__dataclass_fields__} | {"epoch": 7})

    def ack(epoch: int, error: str = "") -> Acknowledgement:
        return Acknowledgement(process=f"worker-{epoch}", epoch=epoch, digest="d", error=error)

    with metadata.read() as unit:
        assert observe_rollout(unit, published, [ack(7), ack(8)]).acknowledged
        assert not observe_rollout(unit, published, [ack(7), ack(6)]).acknowledged
        assert not observe_rollout(unit, published, []).acknowledged
        assert not observe_rollout(unit, state, [ack(7)]).acknowledged  # not published yet
        assert observe_rollout(unit, published, [ack(7), ack(7, "corrupt")]).refused == "corrupt"
        assert observe_rollout(unit, published, [ack(6, "corrupt")]).refused == ""  # of an older plan


def test_what_is_published_is_what_workers_accept(metadata: SqlMetadata, tmp_path: Path) -> None:
    platform = Platform(metadata, tmp_path)
    platform.first_version()
    platform.control.train("tip", actor=ANN)
    platform.train(champion=0.9)
    platform.control.release("tip", version=2, actor=ANN)
    plan = decode(platform.plans.published["serving"])
    assert [(route.version, route.weight) for route in plan.service("tip").routes] == [("tip/1", 9_500), ("tip/2", 500)]


def test_the_epoch_rises_with_each_change_and_only_then(metadata: SqlMetadata, tmp_path: Path) -> None:
    platform = Platform(metadata, tmp_path)
    platform.first_version()
    before = platform.plans.published["serving"]["epoch"]
    platform.settle()
    assert platform.plans.published["serving"]["epoch"] == before
    platform.apply(project(default=0.5))
    assert platform.plans.published["serving"]["epoch"] == before + 1
    assert platform.plans.published["serving"]["services"]["tip"]["default"] == 0.5
