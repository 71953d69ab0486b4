"""A problem that `check` finds in a project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What is wrong, in which declaration (`model tip`), and what would be right. Only errors stop a plan."""

    code: str
    subject: str
    message: str
    hint: str = ""
    severity: Severity = "error"

    def to_data(self) -> dict[str, Any]:
        data = {"severity": self.severity, "code": self.code, "subject": self.subject, "message": self.message}
        return data | ({"hint": self.hint} if self.hint else {})

    def __str__(self) -> str:
        text = f"{self.severity}: {self.subject}: {self.message}"
        return f"{text}\n  {self.hint}" if self.hint else text
