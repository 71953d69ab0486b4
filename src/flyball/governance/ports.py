"""What governance needs from storage."""

from __future__ import annotations

from typing import Protocol

from flyball.governance.erasure import Erasure
from flyball.kernel.facts import Fact


class FactStore(Protocol):
    """Facts within one transaction: append-only; nothing here changes or removes one."""

    def add(self, fact: Fact) -> None:
        """Not idempotent: a fact's id is unique, and a second one with it is refused."""

    def list(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[Fact]:
        """The newest first; `subject` and `kind` narrow, where they are given."""


class ErasureStore(Protocol):
    """Erasures within one transaction. `put` adds or replaces."""

    def put(self, erasure: Erasure) -> None: ...

    def get(self, id: str) -> Erasure:
        """`erasure_not_found` where there is none."""

    def list(self, *, limit: int = 100) -> list[Erasure]:
        """The newest first."""

    def open(self) -> Erasure | None:
        """The oldest that is not done."""

    def turns(self) -> int:
        """How many times workers were asked to begin new segments of their logs."""
