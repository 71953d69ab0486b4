"""One version's queue: what waits for it, in which order, and how much of it makes the next batch."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flyball.serving.breaker import Breaker
from flyball.serving.latency import Latency

if TYPE_CHECKING:
    from flyball.kernel.errors import FlyballError
    from flyball.serving.ports import Timer
    from flyball.serving.request import Job
    from flyball.serving.threads import Runner

INLINE_SECONDS = 0.0005  # a batch that takes longer holds up the event loop: it belongs on a thread
SAFETY = 1.1  # what is promised to fit must fit with this much to spare

_order = itertools.count()


@dataclass(slots=True)
class Lane:
    """The state of one version of one service on one worker. It is touched by the event loop alone.

    Args:
        max_rows: rows of a batch at most.
        queue_rows: rows that may wait.
        blocking: the version waits for something else, such as another process: it never runs inline.
        latency, cost: what its batches take, and what they cost the thread that runs them.
        inline_rows: the most rows that may be scored on the event loop at once; 0 where none may.
        inline: whether its last batch ran on the event loop.
        running: the batch on its thread, and until when it is expected to run.
        retired: no plan serves its version any more; what it was given is still answered.
    """

    max_rows: int = 1024
    queue_rows: int = 10_000
    blocking: bool = False
    latency: Latency = field(default_factory=Latency)
    cost: Latency = field(default_factory=Latency)
    breaker: Breaker = field(default_factory=Breaker)
    inline_rows: int = 0
    inline: bool = True
    arrived: list[Job] = field(default_factory=list)  # in this tick, for the event loop
    running: list[Job] = field(default_factory=list)
    until: float = 0.0
    retired: bool = False
    thread: Runner | None = None
    timer: Timer | None = None
    timer_at: float = 0.0
    shown: object = None  # what was last shown of it in the metrics
    turned_away: int = 0  # requests that were refused by their head, not counted yet
    refusal: tuple[float, FlyballError] | None = None  # what they are told, and until when
    waiting_rows: int = 0
    expiring: list[tuple[float, int, Job]] = field(default_factory=list)
    _waiting: list[tuple[int, float, int, Job]] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Whether it owes nothing."""
        return not (self.arrived or self.running or self.waiting_rows)

    def learn(self, rows: int, seconds: float, cost: float) -> None:
        """A batch took so many seconds, and cost the thread that ran it so many.

        What was never measured does not run inline: it could be a model that takes seconds.
        """
        self.latency.observe(rows, seconds)
        self.cost.observe(rows, cost)
        self.inline_rows = 0 if self.blocking else self.cost.largest(INLINE_SECONDS, most=self.max_rows)

    def batch_for(self, rows: int, allowed: float) -> int:
        """The rows of a batch that such rows are likely to be part of where there is a queue: two such batches, the one
        that runs and their own, take no longer than is allowed (Nexus, SOSP 2019)."""
        return max(rows, self.latency.largest(allowed / 2, most=self.max_rows))

    def fits(self, now: float, rows: int, allowed: float, deadline: float) -> bool:
        """Whether rows that arrive now, and may take so many seconds, can be answered in time.

        Their own batch will be a full one by the time it begins. A batch that is overdue is expected to take as long
        again as it is overdue.
        """
        begin, most = now, rows
        if self.running:
            begin = self.until if self.until > now else now + (now - self.until)
        if self.running or self.waiting_rows:
            most = self.batch_for(rows, allowed)
            begin += (self.waiting_rows + rows - 1) // most * self.latency.expect(most)
        return now + SAFETY * (begin + self.latency.expect(most) - now) <= deadline

    def push(self, job: Job) -> None:
        heapq.heappush(self._waiting, (job.ask.priority, job.deadline, next(_order), job))
        heapq.heappush(self.expiring, (job.deadline, next(_order), job))
        self.waiting_rows += job.count

    def lowest(self) -> Job | None:
        """What would be served last."""
        live = [entry for entry in self._waiting if not entry[3].done]
        return max(live)[3] if live else None

    def leave(self, job: Job) -> None:
        """A job that waited is done otherwise; its entry goes when its turn comes."""
        self.waiting_rows -= job.count

    def take(self, now: float) -> tuple[list[Job], list[Job]]:
        """The next batch, and what is dropped because it cannot be answered in time any more.

        By priority, then by deadline; as many rows as its first job's slack allows, and no more than were counted on
        when jobs were taken. A job whose slack would make the batch less than half of what it could be is dropped:
        serving it would make more of those behind it late.
        """
        batch: list[Job] = []
        dropped: list[Job] = []
        rows, most = 0, self.max_rows
        while self._waiting:
            job = self._waiting[0][3]
            if job.done:
                heapq.heappop(self._waiting)
                continue
            if batch and rows + job.count > most:
                break
            heapq.heappop(self._waiting)
            self.waiting_rows -= job.count
            if job.ask.left:
                dropped.append(job)
                continue
            if not batch:
                slack = (job.deadline - now) / SAFETY
                usual = self.batch_for(job.count, job.deadline - job.arrived)
                full = min(usual, self.waiting_rows + job.count)
                if self.latency.expect(max(job.count, full // 2)) > slack:
                    dropped.append(job)
                    continue
                most = max(job.count, self.latency.largest(slack, most=usual))
            batch.append(job)
            rows += job.count
        return batch, dropped

    def next_deadline(self) -> float | None:
        """The earliest deadline of what waits or runs."""
        while self.expiring and self.expiring[0][2].done:
            heapq.heappop(self.expiring)
        return self.expiring[0][0] if self.expiring else None

    def expired(self, until: float) -> list[Job]:
        """What must be answered by `until`, and is not; it no longer expires."""
        found = []
        while self.expiring and (self.expiring[0][2].done or self.expiring[0][0] <= until):
            job = heapq.heappop(self.expiring)[2]
            if not job.done:
                found.append(job)
        return found
