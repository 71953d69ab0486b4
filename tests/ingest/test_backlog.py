"""What waits after a push was stored, and when no more is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyball.ingest.backlog import LONGEST_WAIT, Backlog, BacklogLimits, Drain
from flyball.ingest.receipts import Push
from flyball.ingest.service import IngestConfig
from flyball.kernel.errors import ExhaustedError, FlyballError
from tests.ingest.sources import MemoryApplier, make_ingest, payment

SMALL = BacklogLimits(unapplied=10, unflushed=20)


def code(backlog: Backlog) -> str:
    try:
        backlog.check()
    except ExhaustedError as error:
        return error.code
    return ""


def test_each_limit_has_its_code_and_ends_when_it_was_worked_off() -> None:
    backlog = Backlog(SMALL)
    backlog.stored("S", 1, 6, live=True)
    backlog.stored("T", 1, 3, live=True)
    assert code(backlog) == ""
    backlog.stored("S", 7, 7, live=True)
    assert code(backlog) == "backlog_full"
    backlog.applied("S", 7)
    assert code(backlog) == ""
    backlog.applied("T", 3)
    backlog.stored("S", 8, 17, live=True)
    backlog.applied("S", 17)
    assert code(backlog) == "lake_backlog_full"
    backlog.flushed("S", 7)
    assert (code(backlog), backlog.status()["unflushed"], backlog.status()["unapplied"]) == ("", 13, 0)


def test_loads_of_history_do_not_refuse_pushes_and_hide_none() -> None:
    backlog = Backlog(SMALL)
    backlog.stored("S", 1, 4, live=True)
    backlog.stored("S", 5, 1_000, live=False)
    backlog.stored("S", 1_001, 1_003, live=True)
    assert backlog.status()["unapplied"] == 7
    backlog.applied("S", 500)
    assert backlog.status()["unapplied"] == 3
    backlog.applied("S", 1_001)
    assert backlog.status()["unapplied"] == 2
    backlog.applied("S", 1_003)
    assert backlog.status()["unapplied"] == 0
    backlog.stored("S", 1_004, 1_003, live=True)  # nothing
    assert backlog.status()["unapplied"] == 0


def test_the_wait_is_what_the_pace_says() -> None:
    now = [0.0]
    drain = Drain(lambda: now[0])
    assert drain.wait(1_000) == 1, "nothing is known yet"
    now[0] = 5.0
    drain.gone(100)
    assert drain.wait(100) == 5
    now[0] = 10.0
    drain.gone(900)
    assert drain.wait(1_000) == 10
    assert drain.wait(10**9) == LONGEST_WAIT
    now[0] = 30.0
    assert drain.wait(1) == LONGEST_WAIT, "nothing has moved for long"


def test_what_an_earlier_process_left_counts(tmp_path: Path) -> None:
    config = IngestConfig(backlog=SMALL)
    ingest = make_ingest(tmp_path, config=config)
    ingest.append("Payments", [payment(n) for n in range(4)], live=False)
    ingest.append("Payments", [payment(n) for n in range(10, 20)])
    again = make_ingest(tmp_path, config=config)
    with pytest.raises(ExhaustedError) as caught:
        again.check_backlog()
    assert caught.value.code == "backlog_full"
    assert again.status()["backlog"] == {
        "unapplied": 10, "unapplied_limit": 10, "unflushed": 10, "unflushed_limit": 20,
    }  # fmt: skip
    again.flush()
    again.check_backlog()
    assert again.status()["backlog"]["unflushed"] == 0
    assert make_ingest(tmp_path, config=config, applier=MemoryApplier()).status()["backlog"]["unapplied"] == 0, (
        "an online state that was lost is fed from the lake, which refuses nobody"
    )


def test_a_lake_that_fails_stops_pushes_at_the_larger_limit_and_lets_them_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = make_ingest(tmp_path, config=IngestConfig(backlog=SMALL))

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("flyball.storage.lake.write_deltalake", full)
        for number in range(20):
            ingest.check_backlog()
            ingest.append_many([Push(source="Payments", rows=[payment(number)])])
            with pytest.raises(FlyballError, match="is full"):
                ingest.flush()
        with pytest.raises(ExhaustedError, match="20 events wait for the lake") as caught:
            ingest.check_backlog()
    assert caught.value.code == "lake_backlog_full"
    assert 1 <= caught.value.details["retry_after"] <= LONGEST_WAIT
    ingest.flush()
    ingest.check_backlog()
