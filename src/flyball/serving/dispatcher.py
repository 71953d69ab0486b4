"""Brings rows to versions: the tick's rows of fast versions at once, those of slow ones by deadline, on a thread each.

Event-driven: nothing polls, and nothing waits for a batch to fill. It is called by the event loop alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from flyball.kernel.errors import ExhaustedError, FlyballError, LateError, UnavailableError
from flyball.serving.lane import Lane
from flyball.serving.meter import Meter
from flyball.serving.ports import Loop
from flyball.serving.request import Job, place
from flyball.serving.scoring import Result
from flyball.serving.threads import LaneThread, Runner

logger = logging.getLogger(__name__)

SAME_REFUSAL_SECONDS = 0.1


class Measured(Protocol):
    def stop(self) -> tuple[float, float]:
        """The seconds that passed, and those that the batch cost."""
        ...


Score = Callable[[Sequence[Job]], Result]
Finish = Callable[[Sequence[Job], Result, float, float, float], None]
GiveUp = Callable[[Job, FlyballError], None]


class Dispatcher:
    """Queues and runs the jobs of all versions.

    Args:
        score: scores the jobs of one version; must not raise.
        finish: takes the jobs of a batch, some of which may be answered already, the result, when it began, and the
            seconds that it took and was expected to take.
        give_up: answers a job that was dropped, with why.
        threads: False: everything runs at once on the caller, whatever it takes.
        reserve: seconds before a job's deadline that its fallback is left.
        meter, start_thread: how a batch is measured, and where a slow one runs.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        score: Score,
        finish: Finish,
        give_up: GiveUp,
        threads: bool = True,
        reserve: float = 0.001,
        monotonic: Callable[[], float] = time.monotonic,
        meter: Callable[[], Measured] | None = None,
        start_thread: Callable[[str], Runner] = LaneThread,
    ) -> None:
        self._loop = loop
        self._score = score
        self._finish = finish
        self._give_up = give_up
        self._threads = threads
        self._reserve = reserve
        self._monotonic = monotonic
        self._meter = meter or (lambda: Meter(monotonic))
        self._start_thread = start_thread
        self._dirty: dict[int, Lane] = {}

    def add(self, job: Job) -> FlyballError | None:
        """Take a job, for the end of this tick or for its lane's queue; or say why it is not taken.

        The error is given, not raised: a traceback would hold frames that hold the job, thousands of times a second
        where there is too much to do.

        Returns:
            None where it was taken; ExhaustedError (`queue_full`, or `deadline_infeasible` where it could not be
            answered in time); UnavailableError (`version_failing`) while the version's breaker is open.
        """
        lane, now = job.served.lane, job.arrived
        if lane.breaker.troubled and not lane.breaker.allows(now):
            return _failing(job, lane.breaker.retry_after(now))
        if not self._threads or job.count <= lane.inline_rows:
            lane.arrived.append(job)
        else:
            refused = self._queue(lane, job, now)
            if refused is not None:
                return refused
        if id(lane) not in self._dirty:
            self._soon(lane)
        return None

    def turn_away(self, lane: Lane, ref: str, allowed: float) -> FlyballError | None:
        """Why not even one row that arrives now, and may take so many seconds, would be taken; None: it may be.

        For requests that nobody has read yet: where there is too much to do, reading what will be refused is what
        there is too much of. The error is the same one for a while.
        """
        if not self._threads or lane.inline_rows or not lane.running:
            return None
        now = self._monotonic()
        if lane.fits(now, 1, allowed, now + allowed - self._reserve):
            return None
        lane.turned_away += 1
        if lane.refusal is None or lane.refusal[0] < now:
            lane.refusal = (now + SAME_REFUSAL_SECONDS, _infeasible(ref, allowed, lane))
        return lane.refusal[1]

    def _soon(self, lane: Lane) -> None:
        if not self._dirty:
            self._loop.call_soon(self._turn)
        self._dirty[id(lane)] = lane

    def _queue(self, lane: Lane, job: Job, now: float) -> FlyballError | None:
        if lane.waiting_rows + job.count > lane.queue_rows and lane.waiting_rows:
            last = lane.lowest()
            if last is None or last.ask.priority <= job.ask.priority:
                return _full(job, lane.latency.expect(lane.max_rows))
            lane.leave(last)
            self._give_up(last, _full(last, lane.latency.expect(lane.max_rows)))
        if not lane.fits(now, job.count, job.deadline - job.arrived, job.deadline - self._reserve):
            return _infeasible(job.served.ref, job.deadline - job.arrived, lane)
        job.accepted = True
        lane.push(job)
        return None

    def _turn(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for lane in dirty.values():
            self.pump(lane)

    def pump(self, lane: Lane) -> None:
        """Run what a lane may run now."""
        if lane.arrived:
            self._inline(lane)
        if not lane.running and lane.waiting_rows:
            self._start(lane)
        if lane.expiring:
            self._arm(lane)
        if lane.retired:
            self.retire(lane)

    def retire(self, lane: Lane) -> None:
        """End a lane's thread once it owes nothing: no plan serves its version any more."""
        lane.retired = True
        if lane.idle and lane.thread is not None:
            lane.thread.stop()
            lane.thread = None

    def _inline(self, lane: Lane) -> None:
        """Score this tick's jobs here: together, or, where they are many, a part now and the others a turn later."""
        jobs, lane.arrived = lane.arrived, []
        if self._threads and len(jobs) > 1:
            rows = 0
            for i, job in enumerate(jobs):
                rows += job.count
                if rows > lane.inline_rows and i:
                    jobs, lane.arrived = jobs[:i], jobs[i:]
                    self._soon(lane)
                    break
        began = self._monotonic()
        rows = place(jobs, began)
        meter = self._meter()
        result = self._score(jobs)
        took, cost = meter.stop()
        lane.inline = True
        self._done(lane, jobs, result, rows, began, took, cost)

    def _start(self, lane: Lane) -> None:
        now = self._monotonic()
        jobs, dropped = lane.take(now)
        for job in dropped:
            self._give_up(job, late(job))
        if not jobs:
            return
        rows = place(jobs, now)
        lane.running, lane.until, lane.inline = jobs, now + lane.latency.expect(rows), False
        if lane.thread is None:
            lane.thread = self._start_thread(f"lane-{jobs[0].served.ref}")

        def work() -> None:
            began = self._monotonic()
            meter = self._meter()
            result = self._score(jobs)
            try:
                self._loop.call_soon_threadsafe(self._returned, lane, jobs, result, rows, began, *meter.stop())
            except RuntimeError:
                logger.warning("a batch ended after its worker", extra={"rows": rows})

        lane.thread.do(work)

    def _returned(
        self, lane: Lane, jobs: list[Job], result: Result, rows: int, began: float, took: float, cost: float
    ) -> None:
        lane.running = []
        self._done(lane, jobs, result, rows, began, took, cost)
        self.pump(lane)

    def _done(
        self, lane: Lane, jobs: Sequence[Job], result: Result, rows: int, began: float, took: float, cost: float
    ) -> None:
        if result.failed_by_version():
            lane.breaker.failed(self._monotonic())
        elif lane.breaker.troubled:
            lane.breaker.succeeded()
        self._finish(jobs, result, began, took, lane.latency.expect(rows))
        lane.learn(rows, took, cost)  # after the answers: nobody waits for it

    def _arm(self, lane: Lane) -> None:
        """Wake before the earliest deadline of what waits or runs."""
        at = lane.next_deadline()
        if at is None:
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
            return
        at -= self._reserve
        if lane.timer is not None:
            if lane.timer_at <= at:
                return
            lane.timer.cancel()
        lane.timer_at = at
        lane.timer = self._loop.call_later(max(0.0, at - self._monotonic()), self._expire, lane)

    def _expire(self, lane: Lane) -> None:
        lane.timer = None
        for job in lane.expired(self._monotonic() + self._reserve):
            if not job.started:
                lane.leave(job)
            self._give_up(job, late(job))
        self._arm(lane)


def late(job: Job) -> LateError:
    return LateError(
        f"the request was not answered within its deadline of {(job.deadline - job.arrived) * 1e3:.1f} ms",
        code="deadline_passed",
        hint="allow more time, send fewer requests at once, or serve with more workers",
    )


def _full(job: Job, seconds: float) -> ExhaustedError:
    return ExhaustedError(
        f"as many rows wait for {job.served.ref} as may",
        code="queue_full",
        hint="send fewer requests at once, or serve with more workers",
        details={"retry_after": math.ceil(seconds)},
    )


def _infeasible(ref: str, allowed: float, lane: Lane) -> ExhaustedError:
    return ExhaustedError(
        f"{ref} cannot answer within {allowed * 1e3:.1f} ms now",
        code="deadline_infeasible",
        hint="try again later, allow more time, or serve with more workers",
        details={"retry_after": math.ceil(lane.latency.expect(lane.waiting_rows + 1))},
    )


def _failing(job: Job, seconds: float) -> UnavailableError:
    return UnavailableError(
        f"{job.served.ref} failed too often and is left alone for a while",
        code="version_failing",
        hint="`flyball status` shows it; a rollback takes it out, default= of the service answers meanwhile",
        details={"retry_after": math.ceil(seconds)},
    )
