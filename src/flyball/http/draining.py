"""How a worker ends without losing a request.

1. *Window* (where the whole pool ends): readiness answers 503, and all else goes on, so that whoever sends requests has
   the time to look and to send them elsewhere.
2. *Closing*, the window's last part: replies carry `Connection: close`, so that connections in use end between two
   requests.
3. No more connections: those that the port had taken are served, then the port is closed. Connections that idle are
   closed.
4. *Grace:* what was received is answered; what is not answered after it is cut.

A worker that is one too many has no window: its port goes on with the others. It begins with 2. `forced` ends all of
it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass

from flyball.http.accepting import Acceptor
from flyball.http.server import Server
from flyball.kernel.errors import InvalidError
from flyball.serving.board import Board

CLOSING = 0.5
MARGIN = 2.0  # by which whoever waits for a worker is more patient than the worker


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainConfig:
    """Seconds: `window` from SIGTERM to the port's closing, `grace` for what was received by then."""

    window: float = 0.0
    grace: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.window <= 600 or not 0 <= self.grace <= 600:
            raise InvalidError(
                f"a drain takes 0 to 600 seconds, not a window of {self.window:g} and a grace of {self.grace:g}",
                code="bad_drain",
            )

    @property
    def longest(self) -> float:
        """How long a worker may take to end, at the most."""
        return self.window + CLOSING + self.grace + MARGIN


class Ending:
    """How a worker is asked to end: by a signal to drain, by a second one to end at once; or its zygote is gone.

    Args:
        parent: the read end of a pipe that closes when the zygote is gone.
    """

    def __init__(self, board: Board, parent: int) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()
        self._board = board
        self._orphan = False
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._signal)
        self._parent = parent
        loop.add_reader(parent, self._lost)

    @property
    def whole_pool(self) -> bool:
        """Whether no worker stays: all were asked, or nobody is there who would start others."""
        return self.asked.is_set() and bool(self._board.desk.draining or self._orphan)

    def _signal(self) -> None:
        (self.forced if self.asked.is_set() else self.asked).set()

    def _lost(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent)
        self._orphan = True
        self.asked.set()


async def drain(
    server: Server, acceptor: Acceptor, config: DrainConfig, *, whole_pool: bool, forced: asyncio.Event
) -> None:
    """End a server; see above. Returns when its connections are closed."""
    closing = min(CLOSING, config.window / 2) if whole_pool else CLOSING
    if whole_pool:
        await _first(forced, config.window - closing)
    else:
        acceptor.stop()
    server.leaving = True
    await _first(forced, closing if server.connections or whole_pool else 0.0)
    if forced.is_set():
        acceptor.stop()
        await server.stop(0.0)
        return
    await acceptor.finish()
    stopping = asyncio.ensure_future(server.stop(config.grace))
    waiting = asyncio.ensure_future(forced.wait())
    await asyncio.wait((stopping, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not stopping.done():
        server.cut()
    await stopping


async def _first(forced: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(forced.wait(), seconds)
