"""A process of the platform: a core, the loops that drive it, and the HTTP shell in front of it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from flyball.kernel.errors import FlyballError

logger = logging.getLogger(__name__)
LONGEST_PAUSE = 10.0


class Loop:
    """Calls `work` again and again from a thread of its own; a failure is logged, and the next call put off."""

    def __init__(self, name: str, work: Callable[[], object], *, every: float) -> None:
        self._name = name
        self._work = work
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.error = ""  # of the last call; '' where it went well

    def start(self) -> Loop:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Let the call that runs end, and make no further one."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._stop.wait(min(LONGEST_PAUSE, self._every * 2**failures)):
            try:
                self._work()
                failures, self.error = 0, ""
            except Exception as error:
                failures = min(failures + 1, 10)
                self.error = error.message if isinstance(error, FlyballError) else type(error).__name__
                logger.exception("a turn of a loop failed", extra={"loop": self._name, "failures": failures})


def stop_with_parent() -> None:
    """Stop as on SIGTERM once the supervisor, which holds the other end of standard input, is gone."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
