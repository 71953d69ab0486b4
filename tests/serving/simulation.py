"""Time that passes when a test says so: an event loop, a thread and a meter on one simulated clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Simulation:
    """`serving.ports.Loop`; `now` is what its clock shows."""

    def __init__(self) -> None:
        self.now = 100.0
        self._soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._later: list[tuple[float, int, Handle, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self._soon.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Handle:
        handle = Handle()
        heapq.heappush(self._later, (self.now + delay, next(self._order), handle, callback, args))
        return handle

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        self.call_later(0.0, callback, *args)  # of a thread: at the time that it has reached

    def run(self, until: float = float("inf")) -> None:
        """Do what is due, in order, up to a time."""
        while True:
            while self._soon:
                soon, self._soon = self._soon, []
                for callback, args in soon:
                    callback(*args)
            if not self._later or self._later[0][0] > until:
                break
            at, _, handle, callback, args = heapq.heappop(self._later)
            if not handle.cancelled:
                self.now = max(self.now, at)
                callback(*args)
        if until < float("inf"):
            self.now = max(self.now, until)

    def meter(self) -> Meter:
        return Meter(self)

    def thread(self, name: str) -> Thread:
        return Thread(self)


class Meter:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._began = simulation.now

    def stop(self) -> tuple[float, float]:
        passed = self._simulation.now - self._began
        return passed, passed


class Thread:
    """Its work moves the clock while it is done, and is then taken back: the loop goes on meanwhile."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def do(self, work: Callable[[], None]) -> None:
        began = self._simulation.now
        work()
        self._simulation.now = began

    def stop(self) -> None: ...
