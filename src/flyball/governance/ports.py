"""What governance needs from storage."""

from __future__ import annotations

from typing import Protocol

from flyball.kernel.facts import Fact


class FactStore(Protocol):
    """Facts within one transaction: append-only; nothing here changes or removes one."""

    def add(self, fact: Fact) -> None:
        """Not idempotent: a fact's id is unique, and a second one with it is refused."""

    def list(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[Fact]:
        """The newest first; `subject` and `kind` narrow, where they are given."""
