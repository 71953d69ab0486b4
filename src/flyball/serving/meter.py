"""What a batch costs the thread that runs it, told apart from what others on the machine cost it."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

BLOCKED_SECONDS = 0.001  # waits below this are other threads' turns, not the batch's own


class Meter:
    """Measures one batch, from its making on, on the thread that runs it.

    A thread that is pushed aside by another process computes no longer for that: its cost is its own time on the
    processor. One that waits by its own doing (for a disk, a socket) holds up whoever waits for it: its cost is the
    time that passed.
    """

    __slots__ = ("_began", "_monotonic", "_usage")

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._usage = resource.getrusage(resource.RUSAGE_THREAD)
        self._began = monotonic()

    def stop(self) -> tuple[float, float]:
        """The seconds that passed, and those that the batch cost."""
        passed = self._monotonic() - self._began
        before, after = self._usage, resource.getrusage(resource.RUSAGE_THREAD)
        computed = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        blocked = after.ru_nvcsw > before.ru_nvcsw and passed - computed > BLOCKED_SECONDS
        return passed, passed if blocked else min(computed, passed)
