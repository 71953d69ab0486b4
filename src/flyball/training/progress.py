"""`progress.json`: which stage a run is in, how far, and how long the finished ones took."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flyball.kernel.files import write_document
from flyball.training.ports import PROGRESS_FORMAT
from flyball.training.secrecy import Mask

_INTERVAL = 0.2  # seconds between two writes of the same stage


class Progress:
    """Stages follow one another: `data`, `training`, `evaluation`, `packaging` (or `scoring`)."""

    def __init__(self, path: Path, mask: Mask, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path, self._mask, self._monotonic = path, mask, monotonic
        self._stages: list[dict[str, Any]] = []
        self._began = self._written = 0.0

    def stage(self, name: str, **counts: Any) -> None:
        """End the current stage and begin the next."""
        self._end()
        self._began = self._monotonic()
        self._stages.append({"stage": name, "counts": counts})
        self._write()

    def count(self, **counts: Any) -> None:
        """Add what is now known about the current stage, such as its rows."""
        self._stages[-1]["counts"] |= counts
        self._write()

    def report(self, *, done: float, total: float, note: str = "") -> None:
        current = self._stages[-1]
        current |= {"done": done, "total": total, "note": self._mask(note)}
        if done >= total or self._monotonic() - self._written >= _INTERVAL:
            self._write()

    def finish(self) -> list[dict[str, Any]]:
        """The stages with their seconds, for `result.json`."""
        self._end()
        self._write()
        return self._stages

    def _end(self) -> None:
        if self._stages:
            self._stages[-1]["seconds"] = round(self._monotonic() - self._began, 6)

    def _write(self) -> None:
        self._written = self._monotonic()
        write_document(self._path, PROGRESS_FORMAT, {"stage": self._stages[-1]["stage"], "stages": self._stages})
