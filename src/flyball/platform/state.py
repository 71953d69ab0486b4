"""A state directory at start: its token, its clock."""

from __future__ import annotations

import secrets

from flyball.http.access import token_digest
from flyball.kernel.clock import Clock, ReplayClock, WallClock
from flyball.kernel.errors import ConflictError
from flyball.kernel.files import write_atomic
from flyball.kernel.layout import Layout
from flyball.kernel.times import show_time

OWNER = "owner"  # the name under which acts with the first token are recorded


def ensure_token(layout: Layout) -> str:
    """The platform's first token; made once, readable by its owner alone."""
    if not layout.token.exists():
        write_atomic(layout.token, secrets.token_urlsafe(32).encode(), mode=0o600)
    return layout.token.read_text().strip()


def tokens(layout: Layout) -> dict[str, list[str]]:
    """SHA-256 of each token → its permissions."""
    return {token_digest(ensure_token(layout)): ["admin"]}


def ensure_clock(layout: Layout, replay_from: int | None) -> None:
    """Choose domain time at first start; afterwards it is what it was, and another choice is refused."""
    used = layout.metadata.exists() or any(layout.event_log.iterdir())
    if replay_from is None or layout.clock.exists():
        return
    if used:
        raise ConflictError(
            f"the state directory {layout.root} began on the wall clock, and cannot change to a replay clock",
            code="clock_fixed",
            hint="leave out --replay-from, or use another directory with --state DIR",
        )
    ReplayClock.create(layout.clock, replay_from)


def open_clock(layout: Layout) -> Clock:
    return ReplayClock(layout.clock) if layout.clock.exists() else WallClock()


def show_clock(layout: Layout) -> str:
    clock = open_clock(layout)
    return f"replay clock at {show_time(clock.now())}" if isinstance(clock, ReplayClock) else "wall clock"
