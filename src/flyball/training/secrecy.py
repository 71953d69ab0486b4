"""Keep the values of declared secrets out of everything that a run writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flyball.define.secret import declared

MASK = "***"


class Mask:
    """Replaces secret values in text. A value of several lines is also masked line by line, as logs are lines.

    Besides `values`, the values in `environment` of all secrets that this process declares, whenever it does: the
    user's code is imported while its output is captured already, and may not list in its project what it declares.
    """

    def __init__(self, values: Iterable[str] = (), *, environment: Mapping[str, str] | None = None) -> None:
        self._values = tuple(values)
        self._environment = environment or {}
        self._names: frozenset[str] = frozenset()
        self._pieces = _pieces(self._values)

    @classmethod
    def of(cls, names: Iterable[str], environment: Mapping[str, str]) -> Mask:
        """Of the secrets a project declares, as far as the environment has them."""
        return cls((environment[name] for name in names if name in environment), environment=environment)

    @property
    def longest(self) -> int:
        """In bytes of UTF-8."""
        return max((len(piece.encode()) for piece in self._now()), default=0)

    def __call__(self, text: str) -> str:
        for piece in self._now():
            text = text.replace(piece, MASK)
        return text

    def _now(self) -> list[str]:
        names = declared()
        if names != self._names:
            more = [self._environment[name] for name in names if name in self._environment]
            self._names, self._pieces = names, _pieces([*self._values, *more])
        return self._pieces


def _pieces(values: Iterable[str]) -> list[str]:
    """The longest first, so that one that holds another is masked whole."""
    pieces = {piece for value in values for piece in (value, *value.splitlines()) if piece}
    return sorted(pieces, key=len, reverse=True)
