"""Group commit: pushes that wait together are committed together, by one writer thread.

While one transaction is on its way to the disk, what arrives queues up and becomes the next one; so the cost of an
fsync is shared under load, and nobody waits on purpose when there is none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flyball.ingest.backlog import Drain
from flyball.ingest.receipts import Push, Receipt
from flyball.kernel.errors import ExhaustedError, FlyballError, InternalError, UnavailableError

logger = logging.getLogger(__name__)

Answer = Receipt | FlyballError
Done = Callable[[Answer], None]
AppendMany = Callable[[Sequence[Push]], list[Answer]]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupLimits:
    """What may wait (pushes, and bytes of their bodies), and how many bytes one transaction takes."""

    queue_pushes: int = 4096
    queue_bytes: int = 256 * 2**20
    group_bytes: int = 16 * 2**20


@dataclass(slots=True)
class GroupCounters:
    """What the writer did; `waiting` and `waiting_bytes` are of now. `refused` is for a full queue, `refused_behind`
    for too much that was stored and not applied or flushed."""

    commits: int = 0
    pushes: int = 0
    refused: int = 0
    refused_behind: int = 0
    failed: int = 0
    waiting: int = 0
    waiting_bytes: int = 0


class GroupCommit:
    """The writer thread. `submit` never blocks; `done` is called on the writer thread.

    `behind` raises where what was written before is too far from being used to write more.
    """

    def __init__(
        self,
        append_many: AppendMany,
        *,
        limits: GroupLimits | None = None,
        behind: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._append_many = append_many
        self._behind = behind
        self._drain = Drain(monotonic)
        self.limits = limits or GroupLimits()
        self._queue: deque[tuple[Push, int, Done]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self.counters = GroupCounters()
        self._thread = threading.Thread(target=self._run, name="ingest-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    def submit(self, push: Push, size: int, done: Done) -> None:
        """Queue a push of `size` bytes; `done` gets its receipt or error.

        Raises `ExhaustedError` (`queue_full`, and what `behind` raises), `UnavailableError` (`stopping`).
        """
        limits, counters = self.limits, self.counters
        with self._changed:
            if self._stopping:
                raise UnavailableError("ingest is stopping; nothing was stored, send it again", code="stopping")
            if counters.waiting >= limits.queue_pushes or (
                counters.waiting and counters.waiting_bytes + size > limits.queue_bytes
            ):
                counters.refused += 1
                wait = self._drain.wait(max(1, counters.waiting // 2))
                raise ExhaustedError(
                    f"{counters.waiting} pushes wait to be written, which is as many as may; nothing of this one was "
                    "stored",
                    code="queue_full",
                    hint=f"send it again after {wait} s, with the same Idempotency-Key; larger batches go faster",
                    details={"retry_after": wait},
                )
            try:
                self._behind()
            except ExhaustedError:
                counters.refused_behind += 1
                raise
            counters.waiting += 1
            counters.waiting_bytes += size
            self._queue.append((push, size, done))
            self._changed.notify()

    def stop(self, timeout: float = 30.0) -> None:
        """Refuse what comes, write what waits, end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while group := self._next():
            answers = self._write([push for push, _, _ in group])
            with self._changed:
                self._drain.gone(len(group))
            for (_, _, done), answer in zip(group, answers, strict=True):
                try:
                    done(answer)
                except Exception:
                    logger.exception("an answer could not be delivered")

    def _next(self) -> list[tuple[Push, int, Done]]:
        """What waits, up to the bytes of one transaction; empty at the end."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            group: list[tuple[Push, int, Done]] = []
            size = 0
            while self._queue and (not group or size + self._queue[0][1] <= self.limits.group_bytes):
                group.append(self._queue.popleft())
                size += group[-1][1]
            self.counters.waiting -= len(group)
            self.counters.waiting_bytes -= size
            return group

    def _write(self, pushes: list[Push]) -> list[Answer]:
        self.counters.commits += 1
        self.counters.pushes += len(pushes)
        try:
            return self._append_many(pushes)
        except FlyballError as error:
            self.counters.failed += len(pushes)
            return [error] * len(pushes)
        except BaseException:  # a panic of Polars is no Exception, and this thread must outlive it
            if len(pushes) > 1:  # one that trips over a defect of ours must not take the others with it
                return [answer for push in pushes for answer in self._write([push])]
            logger.exception("a push was not stored", extra={"source": pushes[0].source})
            self.counters.failed += 1
            return [InternalError("the push was not stored because of a defect of ours; the log has the details")]
