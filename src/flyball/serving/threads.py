"""A thread for one slow version. The event loop goes before it, where the system allows that."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

NICE = 5  # above the process's own: enough for the event loop to be run at once when it wakes

SLICE_NANOSECONDS = 100_000  # of the event loop's thread; Linux gives others some milliseconds
_SCHED_SETATTR = 314  # of x86-64; other machines do without
_ATTRIBUTES = struct.Struct("<IIQiIQQQ")

Work = Callable[[], None]


def answer_quickly() -> None:
    """Have the calling thread, the event loop's, run at once when it wakes, also where another one of this process
    computes: it asks for a short slice (Linux 6.12 and later: the runtime of `sched_setattr(2)`, for all schedules)."""
    if platform.machine() != "x86_64":
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, SLICE_NANOSECONDS, 0, 0)
    with contextlib.suppress(OSError, AttributeError):  # a system that cannot runs us as any other
        ctypes.CDLL(None).syscall(_SCHED_SETATTR, 0, attributes, 0)


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
            del work  # it holds its batch, and so its version, which may be served no longer
