"""Between an event loop and the threads that work for it: how much may wait for them, and their replies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque

from flyball.http.messages import Respond, Response
from flyball.kernel.errors import ExhaustedError

logger = logging.getLogger(__name__)
WAIT = 5  # seconds after which to try again: what waits for threads is large


class Outbox:
    """Replies from other threads for one event loop, which is woken once for as many as have gathered."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[tuple[Respond, Response]] = deque()
        self._woken = False

    def put(self, respond: Respond, response: Response) -> None:
        self._waiting.append((respond, response))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, so is the connection
                self.loop.call_soon_threadsafe(self._send)

    def _send(self) -> None:
        self._woken = False  # before: what comes while these are sent wakes the loop again
        while self._waiting:
            respond, response = self._waiting.popleft()
            try:
                respond(response)
            except Exception:
                logger.exception("a reply could not be sent")


class Room:
    """How many requests, of how many bytes together, may wait for threads."""

    def __init__(self, tasks: int, size: int) -> None:
        self._lock = threading.Lock()
        self._tasks, self._size = tasks, size
        self.waiting = self.waiting_bytes = 0

    def enter(self, size: int) -> None:
        """Raises `ExhaustedError` (`queue_full`)."""
        with self._lock:
            if self.waiting >= self._tasks or (self.waiting_bytes and self.waiting_bytes + size > self._size):
                raise ExhaustedError(
                    f"{self.waiting} requests of {self.waiting_bytes} bytes wait already, which is as many as may",
                    code="queue_full",
                    hint="try again later",
                    details={"retry_after": WAIT},
                )
            self.waiting += 1
            self.waiting_bytes += size

    def leave(self, size: int) -> None:
        with self._lock:
            self.waiting -= 1
            self.waiting_bytes -= size
