"""Queues, batches and deadlines on a simulated clock: one answer a job, in time, and nothing is computed in vain."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.kernel.errors import ExhaustedError, FlyballError, UnavailableError
from flyball.serving.breaker import BreakerState
from flyball.serving.dispatcher import Dispatcher
from flyball.serving.lane import Lane
from flyball.serving.request import Ask, Job
from flyball.serving.scoring import Result
from tests.serving.simulation import Simulation

RESERVE = 0.001


class Sender:
    gone = False


class Desk:
    """A dispatcher, and versions whose batches take `base + rows * each` seconds."""

    def __init__(self, **lane: Any) -> None:
        self.loop = Simulation()
        self.base, self.each = 0.0, 0.001
        self.broken = False
        self.hang = 0.0
        self.batches: list[list[Job]] = []
        self.answers: dict[Job, Any] = {}
        self.answered_at: dict[Job, float] = {}
        self.blocked = False  # an inline batch hung, and the loop with it
        self.desk = Dispatcher(
            self.loop,
            score=self._score,
            finish=self._finish,
            give_up=self._give_up,
            reserve=RESERVE,
            monotonic=self.loop.time,
            meter=self.loop.meter,
            start_thread=self.loop.thread,
        )
        self.served = SimpleNamespace(lane=Lane(**lane), ref="tip/1")

    def learn(self, *, up_to: int = 64) -> None:
        for rows in (1, 2, 4, 8, 16, 32, 64):
            if rows <= up_to:
                for _ in range(3):
                    self.served.lane.learn(rows, self.base + rows * self.each, self.base + rows * self.each)

    def job(self, rows: int = 1, *, allow: float = 1.0, priority: int = 2, sender: Sender | None = None) -> Job:
        ask = Ask("tip", sender=sender)
        ask.priority = priority
        now = self.loop.now
        served: Any = self.served
        nothing: Any = None
        ids = [f"p{i}" for i in range(rows)]
        return Job(ask, nothing, served, nothing, ids, (), None, 0, now, now + allow, None, rows)

    def add(self, rows: int = 1, **asked: Any) -> Job:
        job = self.job(rows, **asked)
        refused = self.desk.add(job)
        if refused is not None:
            self._answer(job, refused)
        return job

    def breaker(self) -> BreakerState:
        state: BreakerState = self.served.lane.breaker.state
        return state

    def answer(self, job: Job) -> Any:
        return self.answers.get(job)

    def _score(self, jobs: Sequence[Job]) -> Result:
        self.batches.append(list(jobs))
        self.blocked |= self.hang > 0 and jobs[0] not in self.served.lane.running
        rows = sum(job.count for job in jobs)
        self.loop.now += self.base + rows * self.each + self.hang
        errors: dict[int, FlyballError] = {}
        if self.broken:
            errors = {row: UnavailableError("broken", code="broken") for row in range(rows)}
        return Result([None] * rows, [None if self.broken else {} for _ in range(rows)], errors)

    def _finish(self, jobs: Sequence[Job], result: Result, began: float, took: float, expected: float) -> None:
        for job in jobs:
            if not job.done:
                self._answer(job, "broken" if result.errors else "answered")

    def _give_up(self, job: Job, error: FlyballError) -> None:
        self._answer(job, error)

    def _answer(self, job: Job, answer: Any) -> None:
        assert job not in self.answers, "a job was answered twice"
        job.done = True
        self.answers[job] = answer
        self.answered_at[job] = self.loop.now


def code(answer: Any) -> str:
    return answer.code if isinstance(answer, FlyballError) else str(answer)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_each_job_is_answered_once_and_nothing_waits_past_its_deadline(data: st.DataObject) -> None:
    desk = Desk(max_rows=data.draw(st.sampled_from([1, 4, 16, 1024])), queue_rows=40)
    desk.base = data.draw(st.sampled_from([0.0, 0.0001, 0.002, 0.02]))
    desk.each = data.draw(st.sampled_from([0.00001, 0.0004, 0.001, 0.005]))
    if data.draw(st.booleans()):
        desk.learn()
    jobs: list[Job] = []
    for _ in range(data.draw(st.integers(1, 40))):
        desk.loop.run(desk.loop.now + data.draw(st.sampled_from([0.0, 0.0, 0.0005, 0.004, 0.05])))
        desk.hang = data.draw(st.sampled_from([0.0, 0.0, 0.0, 0.03]))
        rows = data.draw(st.integers(1, 20))
        allow = data.draw(st.sampled_from([0.003, 0.02, 0.1, 1.0]))
        jobs.append(desk.add(rows, allow=allow, priority=data.draw(st.integers(1, 3))))
    desk.loop.run()
    assert set(desk.answers) == set(jobs)
    for job in jobs:
        longest_inline = desk.base + desk.each * 64 + 0.03 + 20 * desk.each
        late = desk.answered_at[job] - job.deadline
        allowed = longest_inline if desk.blocked or not job.accepted else 0.0
        assert late <= allowed + 1e-9 or code(desk.answers[job]) == "answered"
    for batch in desk.batches:
        rows = sum(job.count for job in batch)
        assert rows <= desk.served.lane.max_rows or len(batch) == 1
    assert desk.served.lane.waiting_rows == 0
    assert not desk.served.lane.running


def test_a_ticks_jobs_of_a_fast_version_are_one_batch() -> None:
    desk = Desk()
    desk.each = 0.00001
    desk.learn()
    jobs = [desk.add() for _ in range(20)]
    desk.loop.run()
    assert desk.batches == [jobs]
    assert desk.served.lane.inline


def test_a_burst_of_a_fast_version_lets_others_in_between() -> None:
    desk = Desk()
    desk.each = 0.0001
    desk.learn()
    jobs = [desk.add() for _ in range(12)]
    desk.loop.run()
    assert [len(batch) for batch in desk.batches] == [4, 4, 4]
    assert [job for batch in desk.batches for job in batch] == jobs


def test_what_was_never_measured_does_not_run_on_the_event_loop() -> None:
    desk = Desk()
    job = desk.add()
    desk.loop.run()
    assert desk.answer(job) == "answered"
    assert not desk.served.lane.inline


def test_a_busy_version_gathers_what_fits_the_slack_of_its_first_job() -> None:
    desk = Desk(max_rows=64)
    desk.learn()
    first = desk.add(allow=1.0)
    desk.loop.run(desk.loop.now + 0.0001)
    waiting = [desk.add(allow=0.0110) for _ in range(4)] + [desk.add(allow=1.0) for _ in range(40)]
    desk.loop.run()
    assert desk.batches[0] == [first]
    assert set(waiting[:4]) <= set(desk.batches[1])
    assert 4 <= len(desk.batches[1]) <= 9
    assert [code(desk.answer(job)) for job in waiting] == ["answered"] * 44


def test_a_request_that_cannot_be_answered_in_time_is_refused_at_arrival() -> None:
    desk = Desk(max_rows=8)
    desk.learn(up_to=8)
    taken = [desk.add(allow=0.0300) for _ in range(60)]
    refused = [job for job in taken if code(desk.answer(job)) == "deadline_infeasible"]
    assert refused
    assert desk.batches == []
    error = desk.answer(refused[0])
    assert isinstance(error, ExhaustedError)
    assert error.details["retry_after"] >= 1
    desk.loop.run()
    assert {code(desk.answer(job)) for job in taken} == {"answered", "deadline_infeasible"}
    assert len(taken) - len(refused) >= 20


def test_a_full_queue_takes_a_more_important_job_for_its_last_one() -> None:
    desk = Desk(max_rows=4, queue_rows=6)
    desk.learn(up_to=4)
    desk.add()
    desk.loop.run(desk.loop.now)
    low = [desk.add(priority=3) for _ in range(6)]
    assert code(desk.answer(desk.add(priority=3))) == "queue_full"
    high = desk.add(priority=1)
    assert [code(desk.answer(job)) for job in low].count("queue_full") == 1
    desk.loop.run()
    assert desk.answer(high) == "answered"
    assert desk.batches[1][0] is high


def test_what_a_client_left_behind_is_not_computed() -> None:
    desk = Desk(max_rows=4)
    desk.learn(up_to=4)
    desk.add()
    desk.loop.run(desk.loop.now)
    sender = Sender()
    left, stays = desk.add(sender=sender), desk.add()
    sender.gone = True
    desk.loop.run()
    assert desk.batches[1] == [stays]
    assert left in desk.answers


def test_a_job_that_a_hanging_batch_holds_up_is_given_up_at_its_deadline_and_others_are_refused() -> None:
    desk = Desk(max_rows=4)
    desk.learn(up_to=4)
    desk.hang = 5.0
    stuck = desk.add(allow=0.2)
    desk.loop.run(desk.loop.now + 0.001)
    desk.hang = 0.0
    behind = desk.add(allow=0.5)
    desk.loop.run(desk.loop.now + 1.0)
    for job in (stuck, behind):
        assert code(desk.answer(job)) == "deadline_passed"
        assert job.deadline - RESERVE - 1e-9 <= desk.answered_at[job] <= job.deadline
    assert code(desk.answer(desk.add(allow=0.5))) == "deadline_infeasible"
    desk.loop.run()
    later = desk.add(allow=0.5)
    desk.loop.run()
    assert desk.answer(later) == "answered"


def test_a_version_that_keeps_failing_is_left_alone_then_asked_once() -> None:
    desk = Desk(max_rows=4)
    desk.learn(up_to=4)
    desk.broken = True
    for _ in range(5):
        desk.add()
        desk.loop.run()
    assert desk.breaker() is BreakerState.OPEN
    refused = desk.answer(desk.add())
    assert code(refused) == "version_failing"
    desk.loop.run(desk.loop.now + refused.details["retry_after"])
    probe, other = desk.add(), desk.add()
    assert code(desk.answer(other)) == "version_failing"
    desk.loop.run()
    assert desk.answer(probe) == "broken"
    assert code(desk.answer(desk.add())) == "version_failing"
    desk.broken = False
    desk.loop.run(desk.loop.now + 2.0)
    healed = desk.add()
    desk.loop.run()
    assert desk.answer(healed) == "answered"
    assert desk.breaker() is BreakerState.CLOSED


@pytest.mark.parametrize("rows", [1, 3])
def test_a_blocking_version_never_runs_on_the_event_loop(rows: int) -> None:
    desk = Desk(max_rows=8, blocking=True)
    desk.each = 0.00001
    desk.learn(up_to=8)
    job = desk.add(rows)
    desk.loop.run()
    assert desk.answer(job) == "answered"
    assert not desk.served.lane.inline


@settings(max_examples=20, deadline=None)
@given(
    over=st.floats(1.2, 4.0),
    base=st.sampled_from([0.0, 0.0003, 0.002, 0.006]),
    most=st.sampled_from([8, 64]),
    seed=st.integers(0, 1_000),
)
def test_a_version_that_is_asked_too_much_goes_on_at_its_full_rate(
    over: float, base: float, most: int, seed: int
) -> None:
    random = Random(seed)
    desk = Desk(max_rows=most)
    desk.base, desk.each, allow = base, 0.0005, 0.05
    desk.learn(up_to=most)
    fitting = min(most, int((allow / 2 - base) / desk.each))
    capacity = fitting / (base + fitting * desk.each)
    end = desk.loop.now + 2.0
    jobs = []
    while desk.loop.now < end:
        desk.loop.run(desk.loop.now + random.expovariate(over * capacity))
        jobs.append(desk.add(allow=allow))
    desk.loop.run()
    answered = [job for job in jobs if desk.answer(job) == "answered"]
    assert len(answered) >= 0.93 * capacity * 2.0
    assert all(desk.answered_at[job] <= job.deadline for job in answered)
    late = [job for job in jobs if code(desk.answer(job)) == "deadline_passed"]
    assert len(late) <= 0.02 * len(jobs)


def test_a_version_that_is_served_no_longer_gives_its_thread_up_when_it_owes_nothing() -> None:
    desk = Desk(max_rows=4)
    desk.learn(up_to=4)
    jobs = [desk.add() for _ in range(6)]
    desk.loop.run(desk.loop.now)
    desk.desk.retire(desk.served.lane)
    assert desk.served.lane.thread is not None
    desk.loop.run()
    assert desk.served.lane.thread is None
    assert [desk.answer(job) for job in jobs] == ["answered"] * 6
