"""One tree of errors.

    FlyballError
    ├── InvalidError       the caller's value is wrong                    exit 2, HTTP 400
    ├── NotFoundError      no such thing                                  exit 3, HTTP 404
    ├── ConflictError      it exists, it changed, or it is in use         exit 4, HTTP 409
    ├── DeniedError        no permission, or not authenticated            exit 5, HTTP 403
    ├── ExhaustedError     a limit, quota, queue or disk is full          exit 6, HTTP 429
    ├── UnavailableError   something that is needed does not answer       exit 7, HTTP 503
    ├── LateError          a deadline passed                              exit 8, HTTP 504
    └── InternalError      a defect of ours                               exit 1, HTTP 500

Each has a stable `code`, a message that names the value and what would be right, and the next command in `hint`.
HTTP statuses live in `flyball.http.errors`, exit statuses in `flyball.cli.errors`; this module knows neither.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, ClassVar


class ErrorKind(StrEnum):
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    DENIED = "denied"
    EXHAUSTED = "exhausted"
    UNAVAILABLE = "unavailable"
    LATE = "late"
    INTERNAL = "internal"


class FlyballError(Exception):
    """Base of every error that Flyball raises on purpose.

    Args:
        message: names the value, where it stands, and what would be right. Never holds a secret or a pii value.
        code: stable, lower_snake_case; tests and clients match on it, never on the message.
        hint: the next command or step, if there is one.
        details: structured facts for machines; JSON-encodable.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL

    def __init__(self, message: str, *, code: str = "", hint: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.kind.value
        self.hint = hint
        self.details = details or {}

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    def to_data(self) -> dict[str, Any]:
        """The error as it travels over HTTP and into `--json` output."""
        data: dict[str, Any] = {"code": self.code, "kind": self.kind.value, "message": self.message}
        if self.hint:
            data["hint"] = self.hint
        if self.details:
            data["details"] = self.details
        return data


class InvalidError(FlyballError):
    kind = ErrorKind.INVALID


class NotFoundError(FlyballError):
    kind = ErrorKind.NOT_FOUND


class ConflictError(FlyballError):
    kind = ErrorKind.CONFLICT


class DeniedError(FlyballError):
    kind = ErrorKind.DENIED


class ExhaustedError(FlyballError):
    kind = ErrorKind.EXHAUSTED


class UnavailableError(FlyballError):
    kind = ErrorKind.UNAVAILABLE


class LateError(FlyballError):
    kind = ErrorKind.LATE


class InternalError(FlyballError):
    kind = ErrorKind.INTERNAL


_BY_KIND: dict[str, type[FlyballError]] = {cls.kind.value: cls for cls in FlyballError.__subclasses__()}


def from_data(data: dict[str, Any]) -> FlyballError:
    """Rebuild an error that travelled as `to_data()`; an unknown kind becomes an `InternalError`."""
    cls = _BY_KIND.get(str(data.get("kind", "")), InternalError)
    return cls(
        str(data.get("message", "no message")),
        code=str(data.get("code", "")),
        hint=str(data.get("hint", "")),
        details=dict(data.get("details") or {}),
    )


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`did you mean 'fare'? ` or, where nothing is near, the list of what exists; for the end of a message."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "there are none yet"
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"there is: {shown}"
