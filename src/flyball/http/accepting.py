"""Takes connections from a socket that several workers share, one a turn, so that each gets its part."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from flyball.http.listening import refuse_new

logger = logging.getLogger(__name__)

PATIENCE = 0.001  # seconds for which a connection is left to the workers that have fewer
SETTLE = 0.02  # seconds in which a handshake under way ends
FULL_PAUSE = 0.1  # seconds without accepting where the process has no file descriptor left


class Acceptor:
    """Accepts one connection a turn of the event loop and hands it to a protocol.

    Workers that idle all wake up for a connection, and those that have more than others leave it to them (`may_take`);
    where nobody took it, they do after a millisecond.

    Args:
        listener: non-blocking, listening, shared by fork.
        connect: makes the protocol of a connection.
        may_take: whether this worker is not one of those with the most connections.
    """

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[], asyncio.Protocol],
        *,
        may_take: Callable[[], bool] = lambda: True,
    ) -> None:
        self._listener = listener
        self._connect = connect
        self._may_take = may_take
        self._loop = asyncio.get_running_loop()
        self._handing: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._resume()

    def stop(self) -> None:
        """Accept no more; what is queued is for the other workers. Idempotent."""
        if self._listener.fileno() < 0:
            return
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    async def finish(self) -> None:
        """For the end of all workers: take what is queued, whoever's turn it is, and then accept no more."""
        if self._listener.fileno() < 0:
            return
        refuse_new(self._listener)
        self._pause(None)
        while True:
            while self._take():
                pass
            await asyncio.sleep(SETTLE)
            if not self._take():
                break
        self.stop()
        await asyncio.gather(*self._handing, return_exceptions=True)
        await asyncio.sleep(SETTLE)  # what the connections brought along is read

    def _resume(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._turn)

    def _pause(self, seconds: float | None) -> None:
        self._loop.remove_reader(self._listener.fileno())
        if self._later is not None:
            self._later.cancel()
        self._later = None if seconds is None else self._loop.call_later(seconds, self._insist)

    def _turn(self) -> None:
        if self._may_take():
            self._take()
        else:
            self._pause(PATIENCE)

    def _insist(self) -> None:
        self._later = None
        self._resume()
        self._take()

    def _take(self) -> bool:
        """Accept one connection; False where there is none."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                logger.error("no connection can be accepted", extra={"error": str(error)})
                self._pause(FULL_PAUSE)
                return False
            return True  # it was gone before it was accepted
        task = self._loop.create_task(self._hand(connection))
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)
        return True

    async def _hand(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._connect, connection)
        except OSError:
            connection.close()  # it is gone already
