"""Keep the values of declared secrets out of everything that a run writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MASK = "***"


class Mask:
    """Replaces secret values in text. A value of several lines is also masked line by line, as logs are lines."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        pieces = {piece for value in values for piece in (value, *value.splitlines()) if piece}
        self._pieces = sorted(pieces, key=len, reverse=True)

    @classmethod
    def of(cls, names: Iterable[str], environment: Mapping[str, str]) -> Mask:
        """Of the secrets a project declares, as far as the environment has them."""
        return cls(environment[name] for name in names if name in environment)

    @property
    def longest(self) -> int:
        """In bytes of UTF-8."""
        return max((len(piece.encode()) for piece in self._pieces), default=0)

    def __call__(self, text: str) -> str:
        for piece in self._pieces:
            text = text.replace(piece, MASK)
        return text
