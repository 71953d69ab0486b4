"""The process that forks the workers and keeps them. It stays single-threaded, so that a fork is safe."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

GRACE_SECONDS = 12.0
BRIEF_SECONDS = 5.0  # a worker that ends sooner is started again with a growing pause
LONGEST_PAUSE = 5.0
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


class Zygote:
    """Forks one worker a slot, and forks again where one died.

    Args:
        child: what a worker does: called in the fork with its slot and the read end of a pipe that closes when the
            zygote is gone. It returns when the worker has ended.
        workers: how many slots.
    """

    def __init__(self, child: Callable[[int, int], None], workers: int) -> None:
        self._child = child
        self._workers = workers
        self._children: dict[int, tuple[int, float]] = {}  # pid → slot, start (monotonic)
        self._due: dict[int, float] = {}  # slot → when to fork it again
        self._failures: dict[int, int] = {}

    def run(self) -> None:
        """Until SIGTERM or SIGINT; returns when all workers have ended."""
        self._parent, self._alive = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for slot in range(self._workers):
            self._fork(slot)
        while True:
            received = signal.sigtimedwait(SIGNALS, self._pause())
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                break
            self._reap()
            for slot in [slot for slot, at in self._due.items() if at <= time.monotonic()]:
                del self._due[slot]
                self._fork(slot)
        self._drain()
        os.close(self._parent)
        os.close(self._alive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _pause(self) -> float:
        return min([1.0, *(max(0.01, at - time.monotonic()) for at in self._due.values())])

    def _fork(self, slot: int) -> None:
        pid = os.fork()
        if pid:
            self._children[pid] = (slot, time.monotonic())
            return
        code = 1
        try:
            os.close(self._alive)
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
            if pid not in self._children:
                continue
            slot, started = self._children.pop(pid)
            brief = time.monotonic() - started < BRIEF_SECONDS
            self._failures[slot] = self._failures.get(slot, 0) + 1 if brief else 0
            pause = min(LONGEST_PAUSE, 0.05 * 2 ** self._failures[slot]) if brief else 0.0
            self._due[slot] = time.monotonic() + pause
            extra = {"slot": slot, "status": os.waitstatus_to_exitcode(status), "pause": pause}
            logger.error("a worker died and is started again", extra=extra)

    def _drain(self) -> None:
        """Ask the workers to finish; what is left after the grace is killed."""
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._children and time.monotonic() < deadline:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid:
                self._children.pop(pid, None)
            else:
                signal.sigtimedwait({signal.SIGCHLD}, 0.1)
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
