"""The pump: the thread of an ingest process that applies what was logged, and flushes it to the lake now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from flyball.ingest.service import Ingest
from flyball.kernel.errors import FlyballError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PumpConfig:
    """Seconds between looks at the log, from a push until it is applied with what came meanwhile, between flushes,
    between looks for rows to delete, and after a failure; and how many events that the lake does not have make a flush
    due earlier."""

    poll_seconds: float = 0.05
    gather_seconds: float = 0.01
    retain_seconds: float = 600.0
    flush_seconds: float = 60.0
    flush_events: int = 250_000
    retry_seconds: float = 1.0


class Pump:
    """Applies and flushes until it is stopped. A failure is logged, shown in `error`, and tried again."""

    def __init__(
        self, ingest: Ingest, *, config: PumpConfig | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._ingest = ingest
        self._config = config or PumpConfig()
        self._monotonic = monotonic
        self._wake = threading.Event()
        self._stopping = False
        self._flushed_at = monotonic()
        self._retained_at = monotonic() - self._config.retain_seconds
        self._unflushed = 0
        self.error = ""
        self._thread = threading.Thread(target=self._run, name="ingest-pump", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def notify(self) -> None:
        """There is something to apply. Any thread may call."""
        self._wake.set()

    def stop(self, timeout: float = 30.0) -> None:
        """End the thread, then flush once more, so that a clean stop leaves nothing to do."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        self._ingest.flush()

    def step(self) -> None:
        """One round: apply, flush where it is due, and delete a piece of what is too old now and then."""
        self._unflushed += self._ingest.apply()
        now = self._monotonic()
        due = now - self._flushed_at >= self._config.flush_seconds
        if due or self._unflushed >= self._config.flush_events:
            self._flushed_at = now  # before: a flush that fails is not tried again at once
            self._ingest.flush()
            self._unflushed = 0
        elif now - self._retained_at >= self._config.retain_seconds and not self._ingest.retain():
            self._retained_at = now  # else there is more: the next round goes on

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.step()
                self.error = ""
            except Exception as error:
                self.error = error.code if isinstance(error, FlyballError) else "internal"
                logger.exception("events could not be applied or flushed; they are in the log and will be")
                self._wake.wait(self._config.retry_seconds)
            if self._wake.wait(self._config.poll_seconds) and not self._stopping:
                time.sleep(self._config.gather_seconds)  # a busy log is applied in larger pieces
            self._wake.clear()
