"""The plans as files: published by a rename, acknowledged by one small file a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flyball.kernel.errors import FlyballError
from flyball.kernel.files import read_document, write_document
from flyball.kernel.layout import Layout
from flyball.loop.ports import Acknowledgement

FORMATS = {"ingest": "flyball.ingest_plan", "serving": "flyball.serving_plan"}
ACKNOWLEDGEMENT_FORMAT = "flyball.ack"


def process_alive(pid: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class PlanFiles:
    """`loop.ports.Plans` in a state directory. `alive` tells whether the process that wrote a file still runs."""

    def __init__(self, layout: Layout, *, alive: Callable[[int], bool] = process_alive) -> None:
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
            if self._alive(int(body.get("pid", 0))):
                found.append(
                    Acknowledgement(
                        process=path.stem,
                        epoch=int(body["epoch"]),
                        digest=str(body.get("digest", "")),
                        error=str(body.get("error") or ""),
                    )
                )
        return found
