"""Secrets by name: what travels is a reference; the value is read late, by whoever needs it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from flyball.define.mistake import mistake

_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_declared: set[str] = set()


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to an environment variable where the platform runs. Shows its name, never its value."""

    name: str

    def __repr__(self) -> str:
        return f"fb.secret({self.name!r})"

    __str__ = __repr__


def secret(name: str) -> Secret:
    """A reference to the secret in the environment variable `name`; the value is not read here."""
    given: object = name
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        # What was given may be the secret itself, so it is not repeated.
        raise mistake(
            "fb.secret takes the name of an environment variable, such as fb.secret('PG_DSN'), not the secret",
            code="bad_secret_name",
        )
    _declared.add(name)
    return Secret(name)


def declared() -> frozenset[str]:
    """The names of all secrets that were declared in this process so far."""
    return frozenset(_declared)


def redact(text: str) -> str:
    """The text without the values of the secrets declared in this process, should a user's exception hold one."""
    for name in sorted(_declared):
        value = os.environ.get(name, "")
        if value:
            text = text.replace(value, f"<secret {name}>")
    return text
