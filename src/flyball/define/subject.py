"""Whom an erasure is about: a value of a source's column, known by keyed digests alone.

The value itself is stored nowhere. What holds it is found by giving each distinct value of a column its digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from flyball.define.spec import ColumnSpec
from flyball.kernel.errors import FlyballError, InvalidError
from flyball.kernel.times import parse_time

Seal = Callable[[Any], Any]
"""The keyed digest of a plain value, `pii:…`."""

SEALED = "pii:"
_TOKENS = re.compile(r"[^\s,;:|\"'{}\[\]()=<>]+|\S")  # words, and each sign between them
_FIELDS = re.compile(r"[^,;|\t\"]+")
_ESCAPED = re.compile(r'\\u([0-9a-fA-F]{4})|\\(["\\/])')
_LONGEST = {"string": 16, "category": 16, "timestamp": 8}  # tokens of a value within running text; else one


def parse_subject(text: str) -> tuple[str, str, str]:
    """`Source.column=value` in its parts."""
    where, equals, value = text.partition("=")
    if not (equals and value):
        raise _misspelled()
    return (*parse_column(where), value)


def parse_column(text: str) -> tuple[str, str]:
    """`Source.column` in its parts."""
    source, dot, column = text.partition(".")
    if not (dot and source and column):
        raise _misspelled()
    return source, column


def _misspelled() -> InvalidError:
    return InvalidError(
        "what to erase is written Source.column=value", code="bad_subject", hint="such as Payments.card=4111…"
    )


def digests_of(text: str, column: ColumnSpec, seal: Seal) -> tuple[str, ...]:
    """The digests by which a value is found: of its one normal form, and of the forms in which requests bring it.

    Raises `InvalidError` (`bad_value`), without the value in its message.
    """
    try:
        value = normal(text, column)
    except (ValueError, KeyError, InvalidOperation, FlyballError):
        value = None
    if value is None:
        raise InvalidError(
            f"the value is not one of column {column.name}, which is of type {column.type}", code="bad_value"
        )
    forms: list[Any] = [value, str(value), text]
    if column.type == "boolean":
        forms.append(str(value).lower())
    if column.type == "decimal":
        forms.append(f"{Decimal(value):.{column.scale}f}")
    if column.type in ("integer", "decimal", "float"):
        forms += [float(value), *([int(Decimal(str(value)))] if Decimal(str(value)) % 1 == 0 else [])]
    return tuple(dict.fromkeys(str(seal(form)) for form in forms))


def normal(value: Any, column: ColumnSpec) -> Any:
    """A value as people and requests write it, in the one form that is compared."""
    if column.type in ("string", "category"):
        return str(value)
    if column.type == "boolean":
        if value in (True, False):
            return bool(value)
        return {"true": True, "false": False}[str(value).lower()]
    if column.type == "integer":
        return int(value)
    if column.type == "float":
        return float(value)
    if column.type == "timestamp":
        return parse_time(value)
    return _plain(Decimal(str(value)))


def of_units(value: Any, column: ColumnSpec) -> Any:
    """A physical value in the same form."""
    if column.type == "decimal":
        return _plain(Decimal(int(value)).scaleb(-column.scale))
    return value


def to_units(value: Any, column: ColumnSpec) -> Any:
    """A normal form as a physical value."""
    return int(Decimal(value).scaleb(column.scale)) if column.type == "decimal" else value


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f")


class Matcher:
    """Tells which values are the one that is erased."""

    def __init__(self, column: ColumnSpec, digests: Iterable[str], seal: Seal) -> None:
        self.column = column
        self._digests = frozenset(digests)
        self._seal = seal

    def physical(self, values: Iterable[Any]) -> set[Any]:
        """Those of distinct physical values that match."""
        return {v for v in values if v is not None and self._seal(of_units(v, self.column)) in self._digests}

    def raw(self, value: Any) -> bool:
        """Whether a value of a request or a refused row matches; a sealed one is compared as it is."""
        if value is None:
            return False
        if isinstance(value, str) and value.startswith(SEALED):
            return value in self._digests
        try:
            return self._seal(normal(value, self.column)) in self._digests
        except (ValueError, KeyError, InvalidOperation, TypeError, FlyballError):
            return False

    def inside(self, value: Any) -> bool:
        """Whether the value stands anywhere in plain data, or within its texts as a field or a few words in a row: of
        rows that were never parsed, or whose values are not where they belong."""
        if isinstance(value, dict):
            return any(self.inside(item) for item in value.values())
        if isinstance(value, list | tuple):
            return any(self.inside(item) for item in value)
        if isinstance(value, str):
            return self.raw(value) or any(self.raw(part) for part in _parts(value, _LONGEST.get(self.column.type, 1)))
        return self.raw(value)


def _parts(text: str, longest: int) -> set[str]:
    """What may be a value in a text: its fields, and the runs of up to `longest` of its words and signs.

    Seals tell nothing of what they were made of, so that each part has to be sealed to be compared.
    """
    parts = {field.strip() for field in _FIELDS.findall(text)}
    spans = [token.span() for token in _TOKENS.finditer(text)]
    for place, (start, _) in enumerate(spans):
        parts |= {text[start:end] for _, end in spans[place : place + longest]}
    if "\\" in text:  # of JSON that cannot be read
        plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], text)
        parts |= _parts(plain, longest) if plain != text and "\\" not in plain else set()
    return parts - {text}
