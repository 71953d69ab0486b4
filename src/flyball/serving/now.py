"""An event loop for one caller, who waits for the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from flyball.serving.ports import Timer


class Now:
    """A loop for one caller: what is to be done soon is done before it gets its answer."""

    def __init__(self) -> None:
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self._soon.append((callback, args))

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        self.call_soon(callback, *args)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        return _Never()

    def run(self) -> None:
        while self._soon:
            callback, args = self._soon.popleft()
            callback(*args)


class _Never:
    def cancel(self) -> None: ...
