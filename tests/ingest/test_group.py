"""Group commit, and the pump."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from flyball.ingest.group import Answer, GroupCommit, GroupLimits
from flyball.ingest.pump import Pump, PumpConfig
from flyball.ingest.receipts import Push, Receipt
from flyball.kernel.errors import ExhaustedError, FlyballError, UnavailableError
from tests.ingest.sources import make_ingest, payment

DEADLINE = 20.0


class Recorder:
    """An `append_many` that waits until it may go on, and remembers its groups."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, pushes: Sequence[Push]) -> list[Answer]:
        self.groups.append([push.source for push in pushes])
        self.entered.release()
        assert self.go.wait(DEADLINE)
        if any(push.source == "defect" for push in pushes):
            raise ZeroDivisionError
        if any(push.source == "panic" for push in pushes):
            raise pl.exceptions.PanicException("panic")
        if any(push.source == "full" for push in pushes):
            raise ExhaustedError("full", code="disk_full")
        return [Receipt(source=push.source) for push in pushes]


def test_what_arrives_during_a_commit_is_committed_together() -> None:
    recorder, answers = Recorder(), list[Answer]()
    group = GroupCommit(recorder)
    group.start()
    group.submit(Push(source="a", rows=[]), 1, answers.append)
    assert recorder.entered.acquire(timeout=DEADLINE)
    for name in "bcd":
        group.submit(Push(source=name, rows=[]), 1, answers.append)
    recorder.go.set()
    group.stop()
    assert recorder.groups == [["a"], ["b", "c", "d"]]
    assert [answer.source for answer in answers if isinstance(answer, Receipt)] == ["a", "b", "c", "d"]
    assert (group.counters.commits, group.counters.pushes, group.counters.waiting) == (2, 4, 0)


def test_a_full_queue_refuses_at_once_and_a_stopped_one_too() -> None:
    recorder = Recorder()
    group = GroupCommit(recorder, limits=GroupLimits(queue_pushes=2, queue_bytes=100))
    group.start()
    group.submit(Push(source="a", rows=[]), 1, lambda answer: None)
    assert recorder.entered.acquire(timeout=DEADLINE)
    group.submit(Push(source="b", rows=[]), 60, lambda answer: None)
    with pytest.raises(ExhaustedError) as caught:
        group.submit(Push(source="c", rows=[]), 60, lambda answer: None)
    assert caught.value.code == "queue_full"
    group.submit(Push(source="d", rows=[]), 1, lambda answer: None)
    with pytest.raises(ExhaustedError):
        group.submit(Push(source="e", rows=[]), 1, lambda answer: None)
    recorder.go.set()
    group.stop()
    assert (group.counters.refused, recorder.groups) == (2, [["a"], ["b", "d"]])
    with pytest.raises(UnavailableError):
        group.submit(Push(source="f", rows=[]), 1, lambda answer: None)


def test_a_group_is_bounded_in_bytes() -> None:
    recorder = Recorder()
    group = GroupCommit(recorder, limits=GroupLimits(group_bytes=10))
    for size in (8, 8, 2, 50):
        group.submit(Push(source=str(size), rows=[]), size, lambda answer: None)
    recorder.go.set()
    group.start()
    group.stop()
    assert recorder.groups == [["8"], ["8", "2"], ["50"]]


def test_a_push_that_trips_over_a_defect_fails_alone_and_a_full_disk_fails_all() -> None:
    recorder, answers = Recorder(), list[Answer]()
    recorder.go.set()
    group = GroupCommit(recorder)
    for name in ("a", "defect", "panic", "b"):
        group.submit(Push(source=name, rows=[]), 1, answers.append)
    group.start()
    group.stop()
    assert [a.code if isinstance(a, FlyballError) else a.source for a in answers] == ["a", "internal", "internal", "b"]
    answers.clear()
    group = GroupCommit(recorder)
    for name in ("a", "full"):
        group.submit(Push(source=name, rows=[]), 1, answers.append)
    group.start()
    group.stop()
    assert [a.code if isinstance(a, FlyballError) else "" for a in answers] == ["disk_full"] * 2


def test_the_pump_applies_at_once_and_flushes_when_it_is_due(tmp_path: Path) -> None:
    now = [0.0]
    ingest = make_ingest(tmp_path)
    pump = Pump(ingest, config=PumpConfig(flush_seconds=60, flush_events=3), monotonic=lambda: now[0])

    def lake_lsn() -> int:
        return next(int(s["lake_lsn"]) for s in ingest.status()["sources"] if s["name"] == "Payments")

    ingest.append("Payments", [payment(1)])
    pump.step()
    assert ingest.events("Payments").height == 1
    assert lake_lsn() == 0
    now[0] = 60.0
    pump.step()
    assert lake_lsn() == 1
    ingest.append("Payments", [payment(2), payment(3), payment(4)])
    pump.step()
    assert lake_lsn() == 4, "many events make it due earlier"


def test_a_pump_that_is_stopped_leaves_nothing_to_do(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    pump = Pump(ingest)
    pump.start()
    ingest.append("Payments", [payment(1)])
    pump.notify()
    pump.stop()
    assert pump.error == ""
    assert next(s["lake_lag"] for s in ingest.status()["sources"] if s["name"] == "Payments") == 0
