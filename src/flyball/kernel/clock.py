"""Domain time, and the two clocks that tell it.

Domain time is what `known_at`, maturity, holds, cool-downs and schedules are measured in. It is the wall clock, or a
replay clock that only a replay driver advances. Deadlines, leases and latency use the monotonic clock instead, and
take it as an argument where they need one.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Protocol

from flyball.kernel.errors import ConflictError, InvalidError
from flyball.kernel.times import show_time


class Clock(Protocol):
    """Tells domain time in microseconds since 1970-01-01 UTC. Monotone: never less than an earlier answer."""

    def now(self) -> int: ...


class WallClock:
    """Domain time is real time; steps back of the machine's clock are held, not followed."""

    def __init__(self) -> None:
        self._last = 0

    def now(self) -> int:
        self._last = max(self._last, time.time_ns() // 1_000)
        return self._last


class ManualClock:
    """A clock for tests and for the in-memory platform; it moves when it is told to."""

    def __init__(self, at: int) -> None:
        self._now = at

    def now(self) -> int:
        return self._now

    def advance_to(self, at: int) -> None:
        if at < self._now:
            raise InvalidError(
                f"domain time is {show_time(self._now)} and cannot go back to {show_time(at)}", code="clock_backwards"
            )
        self._now = at


class ReplayClock:
    """Domain time as a number in a file: one driver advances it, every process of the platform reads it.

    The file is 8 bytes, little-endian, memory-mapped; a read is an aligned 8-byte load.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        fd = os.open(path, os.O_RDWR)
        try:
            self._map = mmap.mmap(fd, 8)
        finally:
            os.close(fd)

    @classmethod
    def create(cls, path: Path, at: int) -> ReplayClock:
        if path.exists():
            raise ConflictError(f"a replay clock exists at {path.name}", code="clock_exists")
        beside = path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(struct.pack("<q", at))
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        return cls(path)

    def now(self) -> int:
        value: int = struct.unpack_from("<q", self._map, 0)[0]
        return value

    def advance_to(self, at: int) -> None:
        """Move forward to `at`. Durable across SIGKILL at once; across power loss after the next flush."""
        now = self.now()
        if at < now:
            raise InvalidError(
                f"domain time is {show_time(now)} and cannot go back to {show_time(at)}", code="clock_backwards"
            )
        struct.pack_into("<q", self._map, 0, at)
