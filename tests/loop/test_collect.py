"""Each prediction reaches the lake once, whatever crashes where."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flyball.define.spec import RolloutSpec
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import InternalError, UnavailableError
from flyball.loop.collect import Collector
from flyball.loop.records import SCHEMA, failed, frame
from flyball.rollout.decide import begin
from flyball.rollout.evidence import ArmCounts
from flyball.storage.metadata.unit import SqlMetadata
from tests.loop.fakes import FakeLake, FakeLog, record


class Crash(Exception):
    """The process died."""


def crash_at(step: str) -> Callable[[str], None]:
    def at(reached: str) -> None:
        if reached == step:
            raise Crash(step)

    return at


def collected(lake: FakeLake) -> list[str]:
    return lake.tables["predictions"]["id"].to_list() if "predictions" in lake.tables else []


def test_records_become_rows_with_one_schema() -> None:
    rows = frame([record(1), record(2, features=[1, None], output=[0.1, 0.9], error={"code": "late"})])
    assert dict(rows.schema) == SCHEMA
    assert rows["output"].to_list() == ["0.25", "[0.1, 0.9]"]
    assert rows["error"].to_list() == [None, '{"code": "late"}']


def test_a_reply_from_a_lower_rung_is_a_failure_of_the_model() -> None:
    assert [failed(record(1)), failed(record(1, rung="default")), failed(record(1, error="boom"))] == [
        False,
        True,
        True,
    ]


def test_collecting_goes_on_where_it_stopped(metadata: SqlMetadata) -> None:
    log, lake = FakeLog(), FakeLake()
    collector = Collector(metadata, log, lake, ManualClock(1))
    assert collector.tick().rows == 0
    log.write("0", "00000001.log", record(1), record(2))
    log.write("1", "00000001.log", record(3))
    assert collector.tick().rows == 3
    assert collector.tick().rows == 0
    log.write("0", "00000001.log", record(4))
    assert collector.tick().rows == 1
    assert sorted(collected(lake)) == ["pred_1", "pred_2", "pred_3", "pred_4"]


def test_a_lake_that_takes_no_rows_is_a_failure_and_no_waiting(
    metadata: SqlMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, lake = FakeLog(), FakeLake()
    log.write("0", "00000001.log", record(1), record(2))

    def broken(*args: object, **more: object) -> bool:
        raise UnavailableError("table predictions of the lake cannot be used", code="lake_unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(lake, "append", broken)
        for _ in range(2):
            with pytest.raises(InternalError, match=r"2 of them wait .* table predictions of the lake") as caught:
                Collector(metadata, log, lake, ManualClock(1)).tick()
            assert caught.value.code == "collection_stopped"
    assert Collector(metadata, log, lake, ManualClock(1)).tick().rows == 2
    assert sorted(collected(lake)) == ["pred_1", "pred_2"]


def test_a_finished_segment_goes_and_the_last_one_stays(metadata: SqlMetadata) -> None:
    log, lake = FakeLog(), FakeLake()
    log.write("0", "00000001.log", record(1))
    log.write("0", "00000002.log", record(2))
    log.torn = {("0", "00000001.log"), ("0", "00000002.log")}
    done = Collector(metadata, log, lake, ManualClock(1)).tick()
    assert (done.rows, done.torn, done.removed) == (2, 1, 1)
    assert log.segments("0") == ["00000002.log"]
    with metadata.read() as unit:
        assert set(unit.loop.collected()) == {("0", "00000002.log")}


def test_a_large_backlog_is_taken_in_several_manifests(metadata: SqlMetadata) -> None:
    log, lake = FakeLog(), FakeLake()
    for n in range(6):
        log.write("0", f"{n:08}.log", record(2 * n), record(2 * n + 1))
    assert Collector(metadata, log, lake, ManualClock(1), max_records=4).tick().rows == 12
    assert lake.versions["predictions", "flyball.collector"] == 3


@pytest.mark.parametrize("step", ["open", "append", "close", "commit", "remove", "forget"])
def test_a_crash_at_any_step_loses_and_doubles_nothing(metadata: SqlMetadata, step: str) -> None:
    log, lake, clock = FakeLog(), FakeLake(), ManualClock(1_000_000)
    state = begin(
        id="ro_1",
        service="tip",
        version="tip/2",
        previous="tip/1",
        spec=RolloutSpec(kind="canary", steps=(50,)),
        now=0,
    )
    with metadata.write() as unit:
        unit.rollouts.put(state)
    split = {"propensity": 0.5}
    log.write("0", "00000001.log", record(1, **split), record(2, version="tip/2", arm="canary", error="x", **split))
    log.write("0", "00000002.log", record(3, **split))
    with pytest.raises(Crash):
        Collector(metadata, log, lake, clock, at=crash_at(step)).tick()
    log.write("0", "00000002.log", record(4, **split))  # traffic goes on before the restart
    Collector(metadata, log, lake, clock).tick()
    Collector(metadata, log, lake, clock).tick()
    assert sorted(collected(lake)) == ["pred_1", "pred_2", "pred_3", "pred_4"]
    with metadata.read() as unit:
        assert unit.rollouts.counts("ro_1") == (
            ArmCounts(arm="canary", weight=5_000, requests=1, errors=1),
            ArmCounts(arm="stable", weight=5_000, requests=3, errors=0),
        )
        assert unit.loop.pending() is None
        assert unit.loop.collected_rows() == 4


def test_records_from_outside_a_rollout_are_no_evidence(metadata: SqlMetadata) -> None:
    log, lake = FakeLog(), FakeLake()
    spec = RolloutSpec(kind="canary", steps=(5,))
    with metadata.write() as unit:
        unit.rollouts.put(begin(id="ro_1", service="tip", version="tip/2", previous="tip/1", spec=spec, now=10_000_000))
    log.write("0", "00000001.log", record(1, propensity=0.95), record(2), record(3, service="other", propensity=0.5))
    Collector(metadata, log, lake, ManualClock(10_000_001)).tick()
    with metadata.read() as unit:
        assert unit.rollouts.counts("ro_1") == ()
