import time
from pathlib import Path

import pytest

from flyball.kernel.clock import ManualClock, ReplayClock, WallClock
from flyball.kernel.errors import ConflictError, InvalidError


def test_the_wall_clock_holds_when_the_machines_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([5_000_000, 3_000_000, 6_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(readings))
    clock = WallClock()
    assert [clock.now(), clock.now(), clock.now()] == [5_000, 5_000, 6_000]


def test_a_manual_clock_moves_forward_only() -> None:
    clock = ManualClock(10)
    clock.advance_to(20)
    assert clock.now() == 20
    with pytest.raises(InvalidError, match="cannot go back") as caught:
        clock.advance_to(19)
    assert caught.value.code == "clock_backwards"
    assert clock.now() == 20


def test_a_replay_clock_is_read_by_everyone_who_opens_its_file(tmp_path: Path) -> None:
    driver = ReplayClock.create(tmp_path / "clock", 100)
    reader = ReplayClock(tmp_path / "clock")
    driver.advance_to(250)
    assert reader.now() == 250
    assert ReplayClock(tmp_path / "clock").now() == 250
    with pytest.raises(InvalidError):
        driver.advance_to(249)


def test_a_replay_clock_holds_times_before_1970(tmp_path: Path) -> None:
    assert ReplayClock.create(tmp_path / "clock", -5).now() == -5


def test_a_second_replay_clock_in_one_place_is_refused(tmp_path: Path) -> None:
    ReplayClock.create(tmp_path / "clock", 1)
    with pytest.raises(ConflictError) as caught:
        ReplayClock.create(tmp_path / "clock", 2)
    assert caught.value.code == "clock_exists"
