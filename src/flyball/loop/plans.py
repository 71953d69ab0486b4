"""The plans as files: published by a rename, acknowledged by one small file a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flyball.kernel.errors import FlyballError
from flyball.kernel.files import read_document, write_document
from flyball.kernel.layout import Layout
from flyball.kernel.times import SECOND
from flyball.loop.ports import Acknowledgement

FORMATS = {"ingest": "flyball.ingest_plan", "serving": "flyball.serving_plan"}
ACKNOWLEDGEMENT_FORMAT = "flyball.ack"
CLOCK_SLACK = 2 * SECOND  # the boot time is known to the second


def process_alive(pid: int, at: int) -> bool:
    """Whether the process that had this id at real time `at` (microseconds) still runs on this machine: one that
    started later only has its number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    except (OSError, StopIteration):
        return False
    started = int(boot.split()[1]) + int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return started * SECOND <= at + CLOCK_SLACK


class PlanFiles:
    """`loop.ports.Plans` in a state directory. `alive` tells whether the process (pid, real time) that wrote a file
    still runs."""

    def __init__(self, layout: Layout, *, alive: Callable[[int, int], bool] = process_alive) -> None:
        self._layout = layout
        self._alive = alive

    def publish(self, kind: str, plan: dict[str, Any]) -> None:
        path = self._layout.ingest_plan if kind == "ingest" else self._layout.serving_plan
        write_document(path, FORMATS[kind], plan)

    def current(self, kind: str) -> dict[str, Any] | None:
        path = self._layout.ingest_plan if kind == "ingest" else self._layout.serving_plan
        try:
            return read_document(path, FORMATS[kind])
        except FileNotFoundError:
            return None
        except FlyballError:
            return None  # broken: what is stored is published again over it

    def acknowledgements(self) -> list[Acknowledgement]:
        found = []
        for path in sorted(self._layout.acknowledgements.glob("*.json")):
            try:
                body = read_document(path, ACKNOWLEDGEMENT_FORMAT)
            except (FlyballError, FileNotFoundError):
                continue  # being replaced, or not ours
            if self._alive(int(body.get("pid", 0)), int(body.get("at", 0))):
                found.append(
                    Acknowledgement(
                        process=path.stem,
                        epoch=int(body["epoch"]),
                        digest=str(body.get("digest", "")),
                        error=str(body.get("error") or ""),
                    )
                )
        return found
