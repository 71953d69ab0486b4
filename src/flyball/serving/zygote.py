"""The process that forks the workers and keeps as many as are wanted. It stays single-threaded, so that a fork is safe.

Each look: reap who ended, observe the board, decide (`scaling.wanted`), fork or drain. A worker that died is forked
again in its slot; one that was asked to leave is not.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from flyball.serving.board import Board
from flyball.serving.scaling import Observation, ScalingConfig, ScalingState, wanted

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
GRACE_SECONDS = 12.0
FORCED_SECONDS = 1.0  # that workers have after a second signal
BRIEF_SECONDS = 5.0  # a worker that ends sooner is started again with a growing pause
LONGEST_PAUSE = 5.0
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


@dataclass(slots=True)
class Child:
    """A worker that runs. `leave_by`: it was asked to leave, because it is one too many; None: it stays."""

    slot: int
    started: float
    leave_by: float | None = None


class Zygote:
    """Forks one worker a slot, as many as the load needs, and forks again where one died.

    Args:
        child: what a worker does: called in the fork with its slot and the read end of a pipe that closes when the
            zygote is gone. It returns when the worker has ended.
        config: how many workers, and by what.
        board: with a slot for each of `config.maximum` workers.
        grace: seconds that workers have to end; longer than they take to drain.
        leaving: called when the workers begin to drain: the zygote's own hold on the port ends there.
    """

    def __init__(
        self,
        child: Callable[[int, int], None],
        config: ScalingConfig,
        board: Board,
        *,
        grace: float = GRACE_SECONDS,
        leaving: Callable[[], None] = lambda: None,
    ) -> None:
        self._child = child
        self._config = config
        self._board = board
        self._grace = grace
        self._leaving = leaving
        self._children: dict[int, Child] = {}  # by pid
        self._due: dict[int, float] = {}  # slot → when to fork it again
        self._failures: dict[int, int] = {}
        self._scaling = ScalingState()
        self._wanted = config.minimum
        self._look_at = 0.0

    def run(self) -> None:
        """Until SIGTERM or SIGINT; returns when all workers have ended."""
        self._parent, self._alive = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while True:
            self._reap()
            self._scale()
            self._reconcile()
            received = signal.sigtimedwait(SIGNALS, self._pause())
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                break
        self._drain()
        os.close(self._parent)
        os.close(self._alive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _pause(self) -> float:
        now = time.monotonic()
        return max(0.01, min([self._look_at, *self._due.values()]) - now)

    def _scale(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        staying = sum(child.leave_by is None for child in self._children.values())
        decision = wanted(observe(self._board, staying or self._wanted), self._scaling, self._config, now)
        self._scaling = decision.state
        if decision.wanted != self._wanted:
            extra = {"workers": decision.wanted, "before": self._wanted, "demand": decision.demand}
            logger.info("the number of workers changes", extra=extra)
        self._wanted = decision.wanted
        desk = self._board.desk
        desk.wanted, desk.demand = decision.wanted, decision.demand
        desk.minimum, desk.maximum = self._config.minimum, self._config.maximum

    def _reconcile(self) -> None:
        """Fork what is missing, now or when its pause ends; ask what is too much to leave, the highest slots first."""
        now = time.monotonic()
        staying = {child.slot: pid for pid, child in self._children.items() if child.leave_by is None}
        taken = {child.slot for child in self._children.values()}
        for slot in sorted(staying, reverse=True)[: max(0, len(staying) - self._wanted)]:
            self._children[staying[slot]].leave_by = now + self._grace
            os.kill(staying[slot], signal.SIGTERM)
        for pid, child in self._children.items():
            if child.leave_by is not None and now > child.leave_by:
                logger.error("a worker did not leave in time and is killed", extra={"slot": child.slot})
                os.kill(pid, signal.SIGKILL)
        missing = self._wanted - len(staying)
        for slot in [slot for slot in range(self._config.maximum) if slot not in taken][: max(0, missing)]:
            if self._due.get(slot, 0.0) <= now:
                self._due.pop(slot, None)
                self._fork(slot)

    def _fork(self, slot: int) -> None:
        self._board.slots[slot].forked(time.monotonic_ns())
        pid = os.fork()
        if pid:
            self._children[pid] = Child(slot, time.monotonic())
            return
        code = 1
        try:
            os.close(self._alive)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; workers hear of it from the zygote
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._child(slot, self._parent)
            code = 0
        except BaseException as error:
            logger.exception("the worker ended", extra={"slot": slot, "error": str(error)})
        finally:
            os._exit(code)  # the zygote's own clean-up is not a worker's

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is None:
                continue
            self._board.slots[child.slot].vacate()
            if child.leave_by is not None:
                continue
            slot = child.slot
            self._board.slots[slot].restarts += 1
            brief = time.monotonic() - child.started < BRIEF_SECONDS
            self._failures[slot] = self._failures.get(slot, 0) + 1 if brief else 0
            pause = min(LONGEST_PAUSE, 0.05 * 2 ** self._failures[slot]) if brief else 0.0
            self._due[slot] = time.monotonic() + pause
            extra = {"slot": slot, "status": os.waitstatus_to_exitcode(status), "pause": pause}
            logger.error("a worker died and is started again", extra=extra)

    def _drain(self) -> None:
        """Ask the workers to finish; at a second signal to end at once. What is left after the grace is killed."""
        self._board.desk.draining = 1
        self._board.desk.wanted = 0
        self._ask_all(signal.SIGTERM)
        self._leaving()
        deadline = time.monotonic() + self._grace
        while self._children and (left := deadline - time.monotonic()) > 0:
            received = signal.sigtimedwait(SIGNALS, left)
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._ask_all(signal.SIGTERM)
                deadline = min(deadline, time.monotonic() + FORCED_SECONDS)
            self._gather()
        self._ask_all(signal.SIGKILL)
        for pid in list(self._children):
            os.waitpid(pid, 0)

    def _gather(self) -> None:
        while self._children:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                self._board.slots[child.slot].vacate()

    def _ask_all(self, number: signal.Signals) -> None:
        for pid in self._children:
            os.kill(pid, number)


def observe(board: Board, workers: int) -> Observation:
    """What the board shows of all workers. Rows of a slot that is draining count: somebody has to answer the next."""
    live = [slot for _, slot in board.live()]
    return Observation(
        in_flight=sum(max(0, slot.in_flight) for slot in live),
        busy_seconds=sum(slot.busy_ns for slot in board.slots) / 1e9,
        workers=workers,
        load_seconds=max((slot.load_ns for slot in live), default=0) / 1e9,
    )
