"""A circuit breaker: a version that keeps failing is left alone for a while, then asked once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"  # asked as usual
    OPEN = "open"  # left alone
    PROBING = "probing"  # half open: one batch is being tried


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerConfig:
    """Open after `failures` batches in a row in which no row was answered; try again after `rest_seconds`, which
    doubles with each failed probe up to `longest_seconds`."""

    failures: int = 5
    rest_seconds: float = 1.0
    longest_seconds: float = 30.0


class Breaker:
    """Counts a version's failures in a row. Times are monotonic seconds.

    A batch in which one row was answered is no failure of the version: the bad rows stand alone. So one sender's bad
    rows open the breaker only where nobody else is served between them.
    """

    __slots__ = ("_again_at", "_config", "_failed", "_rest", "state", "troubled")

    def __init__(self, config: BreakerConfig | None = None) -> None:
        self._config = config or BreakerConfig()
        self.state = BreakerState.CLOSED
        self.troubled = False  # the last batch failed
        self._failed = 0
        self._rest = self._config.rest_seconds
        self._again_at = 0.0

    def allows(self, now: float) -> bool:
        """Whether a batch may be tried; where the rest is over, the batch that asks is the probe."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN and now >= self._again_at:
            self.state = BreakerState.PROBING
            self._again_at = now + self._config.longest_seconds  # a probe that never returns does not close it forever
            return True
        if self.state is BreakerState.PROBING and now >= self._again_at:
            self._again_at = now + self._config.longest_seconds
            return True
        return False

    def retry_after(self, now: float) -> float:
        """Seconds until the next try."""
        return max(0.0, self._again_at - now)

    def succeeded(self) -> None:
        self.state = BreakerState.CLOSED
        self.troubled = False
        self._failed = 0
        self._rest = self._config.rest_seconds

    def failed(self, now: float) -> None:
        """No row of a batch was answered, by the version's own fault."""
        self.troubled = True
        if self.state is BreakerState.PROBING:
            self._rest = min(self._config.longest_seconds, self._rest * 2)
        else:
            self._failed += 1
            if self._failed < self._config.failures:
                return
        self.state = BreakerState.OPEN
        self._again_at = now + self._rest
