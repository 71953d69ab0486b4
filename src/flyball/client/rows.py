"""Rows as users hold them, made plain: dicts, or a Polars, pandas or Arrow table, none of which is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flyball.kernel.errors import InvalidError


class Named(Protocol):
    """A declaration (`Source`, `model`, `Service`, …) whose name can stand for it."""

    @property
    def name(self) -> str: ...


def name_of(thing: str | Named | type | Callable[..., Any]) -> str:
    """The name of a declaration, or the text itself."""
    if isinstance(thing, str):
        return thing
    if isinstance(thing, type):
        return thing.__name__
    name = getattr(thing, "name", None) or getattr(thing, "__name__", None)
    if isinstance(name, str):
        return name
    raise InvalidError(f"{thing!r} has no name; give its name as text", code="no_name")


def records(rows: Any) -> list[dict[str, Any]]:
    """A list of dicts from a list or iterator of mappings, one mapping, or a table."""
    if isinstance(rows, Mapping):
        return [dict(rows)]
    for method, arguments in (("to_dicts", ()), ("to_pylist", ()), ("to_dict", ("records",))):
        if hasattr(rows, method):
            return list(getattr(rows, method)(*arguments))
    plain = list(rows)
    wrong = next((row for row in plain if not isinstance(row, Mapping)), None)
    if wrong is not None:
        raise InvalidError(
            f"rows must be dicts or a table, not {type(wrong).__name__}s",
            code="bad_rows",
            hint='push("Trips", [{"fare": 12.5, …}])',
        )
    return [dict(row) for row in plain]
