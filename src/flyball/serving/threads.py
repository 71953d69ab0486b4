"""A thread for one slow version. The event loop goes before it: its priority is lower, where the system allows that."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

NICE = 5  # above the process's own: enough for the event loop to be run at once when it wakes

Work = Callable[[], None]


class Runner(Protocol):
    """Does one piece of work after another, beside the event loop."""

    def do(self, work: Work) -> None: ...

    def stop(self) -> None: ...


class LaneThread:
    """Does one piece of work after another. The work must not raise."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Work) -> None:
        self._work.put(work)

    def stop(self) -> None:
        """After what it was given; does not wait for it, since it may hang."""
        self._work.put(None)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # it is already at the end of the scale
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        while (work := self._work.get()) is not None:
            work()
