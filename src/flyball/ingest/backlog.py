"""How far applying and flushing are behind what was acknowledged, and when that is too far to take more.

Counted as it happens, so that asking costs nothing. Loads of history do not count: they are as large as they are, and
the log holds them in files; a push is refused for what pushes have left behind, not for a load beside them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flyball.kernel.errors import ExhaustedError

LONGEST_WAIT = 60  # seconds that a refused client is asked to wait, at most
_REMEMBERED = 10.0  # seconds over which a rate is taken


@dataclass(frozen=True, kw_only=True, slots=True)
class BacklogLimits:
    """Pushed events that may wait to be applied, and to be in the lake; beyond, pushes are refused."""

    unapplied: int = 1_000_000
    unflushed: int = 10_000_000


class Drain:
    """The pace at which something goes down, and so how long until there is room again."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._count = 0
        self._rate = 0.0

    def gone(self, count: int) -> None:
        self._count += count
        now = self._monotonic()
        if now - self._since >= _REMEMBERED:
            self._rate = self._count / (now - self._since)
            self._since, self._count = now, 0

    def wait(self, count: int) -> int:
        """Whole seconds until `count` more have gone, 1 to 60; 1 before anything is known, 60 where nothing moves."""
        elapsed = self._monotonic() - self._since
        rate = max(self._rate if elapsed < _REMEMBERED else 0.0, self._count / elapsed if elapsed > 0 else 0.0)
        if rate <= 0:
            return 1 if elapsed < _REMEMBERED else LONGEST_WAIT
        return max(1, min(LONGEST_WAIT, math.ceil(count / rate)))


@dataclass(slots=True)
class _Reach:
    """Where one source stands. `loads`: the LSNs of loads of history that are not reached yet."""

    stored: int = 0
    reached: int = 0
    loads: list[tuple[int, int]] = field(default_factory=list)

    def waiting(self) -> int:
        return self.stored - self.reached - sum(last - max(first - 1, self.reached) for first, last in self.loads)

    def move(self, lsn: int) -> None:
        self.reached = max(self.reached, lsn)
        self.stored = max(self.stored, lsn)
        self.loads = [load for load in self.loads if load[1] > self.reached]


class _Stage:
    """One thing that happens to events after they are stored."""

    def __init__(self, limit: int, monotonic: Callable[[], float]) -> None:
        self.limit = limit
        self.waiting = 0
        self.drain = Drain(monotonic)
        self._sources: dict[str, _Reach] = {}

    def stored(self, source: str, first: int, last: int, *, live: bool) -> None:
        reach = self._sources.setdefault(source, _Reach(stored=first - 1, reached=first - 1))
        reach.stored = max(reach.stored, last)
        if not live:
            reach.loads.append((first, last))
        self._count()

    def begin(self, source: str, *, reached: int, stored: int, live: int) -> None:
        loads = [(reached + 1, stored - live)] if stored - reached > live else []
        self._sources[source] = _Reach(stored=stored, reached=reached, loads=loads)
        self._count()

    def reached(self, source: str, lsn: int) -> None:
        reach = self._sources.get(source)
        if reach is None:
            return
        before = reach.waiting()
        reach.move(lsn)
        self.drain.gone(before - reach.waiting())
        self._count()

    def _count(self) -> None:
        self.waiting = sum(reach.waiting() for reach in self._sources.values())


class Backlog:
    """The counts of all sources. Any thread may call."""

    def __init__(self, limits: BacklogLimits | None = None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        limits = limits or BacklogLimits()
        self._lock = threading.Lock()
        self._unapplied = _Stage(limits.unapplied, monotonic)
        self._unflushed = _Stage(limits.unflushed, monotonic)

    def begin(self, source: str, *, stored: int, applied: int, unapplied: int, flushed: int, unflushed: int) -> None:
        """Where a source stands at the start: its LSNs, and how many pushed events wait behind them."""
        with self._lock:
            self._unapplied.begin(source, reached=applied, stored=stored, live=unapplied)
            self._unflushed.begin(source, reached=flushed, stored=stored, live=unflushed)

    def stored(self, source: str, first: int, last: int, *, live: bool) -> None:
        """Events with these LSNs were committed."""
        if last < first:
            return
        with self._lock:
            for stage in (self._unapplied, self._unflushed):
                stage.stored(source, first, last, live=live)

    def applied(self, source: str, lsn: int) -> None:
        """Events up to `lsn` were applied."""
        with self._lock:
            self._unapplied.reached(source, lsn)

    def flushed(self, source: str, lsn: int) -> None:
        """Events up to `lsn` are in the lake."""
        with self._lock:
            self._unflushed.reached(source, lsn)

    def check(self) -> None:
        """Raises `ExhaustedError` (`backlog_full`, `lake_backlog_full`) where no more may be taken now."""
        stage = self._unapplied
        if stage.waiting >= stage.limit:
            raise self._refusal(stage, "backlog_full", "wait to be applied to the online state")
        stage = self._unflushed
        if stage.waiting >= stage.limit:
            raise self._refusal(stage, "lake_backlog_full", "wait for the lake", "flyball status says what stops it; ")

    def _refusal(self, stage: _Stage, code: str, what: str, look: str = "") -> ExhaustedError:
        wait = stage.drain.wait(stage.waiting - stage.limit + stage.limit // 10)
        return ExhaustedError(
            f"{stage.waiting} events {what}, and {stage.limit} may; nothing of this push was stored",
            code=code,
            hint=f"{look}send it again after {wait} s, with the same Idempotency-Key",
            details={"retry_after": wait},
        )

    def status(self) -> dict[str, int]:
        """What waits, and how much may."""
        return {
            "unapplied": self._unapplied.waiting,
            "unapplied_limit": self._unapplied.limit,
            "unflushed": self._unflushed.waiting,
            "unflushed_limit": self._unflushed.limit,
        }
