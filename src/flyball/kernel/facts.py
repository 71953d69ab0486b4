"""Facts: what changed the platform, by whom, when, from what, to what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """Who acts: a token's name, or a loop of the platform (`loop:rollout`)."""

    name: str
    request_id: str = ""


SYSTEM = Actor(name="system")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One change. `before` and `after` are plain data; `subject` is `kind:name`, such as `service:tip`."""

    id: str
    at: int
    wall: int
    actor: str
    request_id: str
    kind: str
    subject: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)
