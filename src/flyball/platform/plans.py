"""Following a plan file: what is new is loaded, or refused and the last good one kept; either is acknowledged."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flyball.kernel.clock import Clock, WallClock
from flyball.kernel.errors import FlyballError
from flyball.kernel.files import read_document, write_document
from flyball.loop.plans import ACKNOWLEDGEMENT_FORMAT

logger = logging.getLogger(__name__)
Plan = dict[str, Any]


class PlanFollower:
    """Looks at a plan file and hands each new plan to `take`, which raises where it cannot be loaded.

    Args:
        acknowledgement: the file in which this process says what it made of the newest plan, and when in real time:
            by that its reader tells this process from a later one with its number.
    """

    def __init__(
        self,
        path: Path,
        form: str,
        *,
        take: Callable[[Plan], None],
        acknowledgement: Path,
        wall: Clock | None = None,
    ) -> None:
        self._path = path
        self._form = form
        self._take = take
        self._acknowledgement = acknowledgement
        self._wall = wall or WallClock()
        self._seen: tuple[int, int] = (0, 0)
        self.error = ""  # why the newest plan was refused; '' where it was loaded

    def step(self) -> bool:
        """Whether there was a new plan; idempotent while there is none."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return False
        if (stat.st_mtime_ns, stat.st_ino) == self._seen:
            return False
        plan: Plan = {}
        try:
            plan = read_document(self._path, self._form)
            self._take(plan)
            self.error = ""
        except FlyballError as error:
            self.error = error.message
        except Exception as error:
            self.error = f"{type(error).__name__} while loading the plan"
            logger.exception("a plan was not loaded", extra={"plan": self._path.name})
        self._seen = (stat.st_mtime_ns, stat.st_ino)
        self._acknowledge(plan)
        return True

    def _acknowledge(self, plan: Plan) -> None:
        body = {"epoch": plan.get("epoch", 0), "digest": plan.get("digest", ""), "error": self.error or None}
        write_document(
            self._acknowledgement, ACKNOWLEDGEMENT_FORMAT, {**body, "pid": os.getpid(), "at": self._wall.now()}
        )
        logger.info("plan %s", "refused" if self.error else "loaded", extra={"plan": self._path.name, **body})
