"""Where replies leave: once for each connection and callback of the event loop, with no further turn of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Flushable(Protocol):
    def flush(self) -> None: ...


class Outlet:
    """An event loop (`serving.ports.Loop`): the replies that a callback gives are written at its end.

    A reply that is given outside of such a callback is written in the loop's next turn.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dirty: list[Flushable] = []
        self.held = False

    def add(self, connection: Flushable) -> None:
        """A connection has something to write."""
        if not self._dirty and not self.held:
            self._loop.call_soon(self.flush)
        self._dirty.append(connection)

    def release(self) -> None:
        """A callback that held its replies back has ended."""
        self.held = False
        self.flush()

    def flush(self) -> None:
        """Write what was given so far."""
        if self._dirty:
            dirty, self._dirty = self._dirty, []
            for connection in dirty:
                connection.flush()

    def call_soon(self, callback: Callable[..., object], *args: object) -> object:
        return self._loop.call_soon(self._run, callback, *args)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return self._loop.call_later(delay, self._run, callback, *args)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        return self._loop.call_soon_threadsafe(self._run, callback, *args)

    def _run(self, callback: Callable[..., object], *args: object) -> None:
        self.held = True
        try:
            callback(*args)
        finally:
            self.release()
