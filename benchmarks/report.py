"""What a measured script prints: its seconds, its peak memory, and more."""

from __future__ import annotations

import json
import resource
import time
from types import TracebackType
from typing import Any, Self


class Measured:
    """Times a block. `done(**more)` prints the result as JSON."""

    def __enter__(self) -> Self:
        self._cpu = time.process_time()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu

    def done(self, **more: Any) -> None:
        print(json.dumps({"seconds": self.seconds, "cpu": self.cpu, "rss_gb": peak_gb(), **more}))


def peak_gb() -> float:
    """The most memory this process ever had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
