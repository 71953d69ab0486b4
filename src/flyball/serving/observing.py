"""What a worker does, counted a batch at a time: the observer of the core on the worker's counters."""

from __future__ import annotations

from collections.abc import Sequence

from flyball.kernel.errors import InvalidError
from flyball.serving.breaker import BreakerState
from flyball.serving.counting import BreakerState as Shown
from flyball.serving.counting import Counters
from flyball.serving.request import Job
from flyball.serving.scoring import Result

_BREAKERS: dict[BreakerState, Shown] = {
    BreakerState.CLOSED: "closed",
    BreakerState.OPEN: "open",
    BreakerState.PROBING: "half_open",
}


class Counting:
    """`serving.ports.Observer` on one worker's counters."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def batch(self, jobs: Sequence[Job], result: Result, began: float, took: float, expected: float) -> None:
        counters = self._counters.version(jobs[0].service.name, jobs[0].served.ref)
        rows = len(result) - result.hits - result.coalesced
        if result.errors:
            rows -= sum(isinstance(error, InvalidError) for error in result.errors.values())
        if rows:
            counters.scored(rows, took, expected)
        counters.waited([began - job.arrived for job in jobs for _ in job.ids])
        if result.looks:
            misses = result.looks - result.hits - result.coalesced
            counters.looked_up(hits=result.hits, misses=misses, coalesced=result.coalesced)
        states = result.states
        if result.batch is None:
            return
        if isinstance(states, str):
            counters.featured(states, len(result))
            return
        for state in set(states):
            counters.featured(state, states.count(state))

    def concluded(self, jobs: Sequence[Job], result: Result, now: float) -> None:
        job = jobs[0]
        counters = self._counters.version(job.service.name, job.route.version)
        if not (result.errors or result.rungs):
            latencies = [now - job.arrived for job in jobs for _ in job.ids]
            counters.answered("model", latencies, within=sum(len(job.ids) for job in jobs if now <= job.deadline))
        else:
            by_rung: dict[str, list[tuple[float, bool]]] = {}
            by_code: dict[str, list[float]] = {}
            for job in jobs:
                for row in range(job.start, job.start + len(job.ids)):
                    if result.answers[row] is None:
                        by_code.setdefault(result.errors[row].code, []).append(now - job.arrived)
                    else:
                        rung = result.rungs.get(row, "model")
                        by_rung.setdefault(rung, []).append((now - job.arrived, now <= job.deadline))
            for rung, found in by_rung.items():
                counters.answered(rung, [latency for latency, _ in found], within=sum(good for _, good in found))
            for code, latencies in by_code.items():
                counters.failed(code, latencies)
        lane = job.served.lane
        shown = (lane.inline, lane.breaker.state)
        if shown != lane.shown:
            lane.shown = shown
            counters.lane("inline" if lane.inline else "thread")
            counters.breaker(_BREAKERS[lane.breaker.state])

    def answered(self, service: str, outcome: str, requests: int) -> None:
        self._counters.requested(service, outcome, requests)

    def refused(self, code: str) -> None:
        self._counters.refused(code)

    def failed(self, service: str, version: str, code: str, rows: int) -> None:
        self._counters.version(service, version).failed(code, [0.0] * rows)

    def dropped(self, service: str, version: str, reason: str, rows: int) -> None:
        self._counters.version(service, version).dropped(reason, rows)


def outcome_of(jobs: Sequence[Job]) -> str:
    """`answered`, `partial` where some rows failed, or the code of what failed as a whole."""
    failed = answered = 0
    code = ""
    for job in jobs:
        result = job.result
        if result is None:
            failed += len(job.ids)
            code = code or (job.error.code if job.error is not None else "not_answered")
            continue
        for row in range(job.start, job.start + len(job.ids)):
            if result.answers[row] is None:
                failed += 1
                code = code or result.errors[row].code
            else:
                answered += 1
    if not failed:
        return "answered"
    return "partial" if answered else code
