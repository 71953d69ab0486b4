"""Keeps a worker on the newest plan, and says so."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import Any

from flyball.kernel.errors import FlyballError, InternalError
from flyball.kernel.layout import Layout
from flyball.serving.plan import PlanFile, acknowledge
from flyball.serving.service import Worker

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0  # how often a refused plan is tried again: what it lacked may have come


class PlanFollower:
    """Keeps a worker on the newest plan, and says so in the acknowledgement file."""

    def __init__(self, worker: Worker, layout: Layout, process: str) -> None:
        self._worker = worker
        self._folder = layout.acknowledgements
        self._file = PlanFile(layout)
        self._process = process
        self._refused: dict[str, Any] | None = None
        self._retry_at = 0.0

    def poll(self) -> Callable[[], None] | None:
        """What there is to load, if anything; the work itself may go to a thread."""
        try:
            plan = self._file.poll()
        except FlyballError as error:
            logger.error("the serving plan cannot be read", extra={"error": error.message})
            self._acknowledge(None, error)
            return None
        if plan is None and self._refused is not None and time.monotonic() >= self._retry_at:
            plan = self._refused
        return None if plan is None else lambda: self.load(plan)

    def load(self, plan: dict[str, Any]) -> None:
        again = plan is self._refused
        error: FlyballError | None = None
        try:
            self._worker.load_plan(plan)
            self._refused = None
        except FlyballError as refused:
            error = refused
            if refused.code == "view_not_built":  # not wrong, only early: nothing is said until it can be served
                self._refused, self._retry_at = plan, time.monotonic() + RETRY_SECONDS
                if not again:
                    logger.info("the serving plan waits", extra={"epoch": plan.get("epoch"), "for": refused.message})
                return
        except Exception as defect:
            logger.exception("the serving plan was not loaded")
            error = InternalError(f"the plan was not loaded: {type(defect).__name__}", code="plan_failed")
        if error is not None:
            self._refused, self._retry_at = plan, time.monotonic() + RETRY_SECONDS
            if again:
                return
            logger.error("the serving plan was refused", extra={"epoch": plan.get("epoch"), "error": error.message})
        else:
            logger.info("serving plan loaded", extra={"epoch": plan["epoch"], "digest": plan["digest"]})
            gc.collect()
            gc.freeze()  # what was loaded stays: collections need not look at it again
        self._acknowledge(plan, error)

    def _acknowledge(self, plan: dict[str, Any] | None, error: FlyballError | None) -> None:
        served = self._worker.state.plan
        epoch = int((plan or {}).get("epoch") or served.epoch)
        digest = str((plan or {}).get("digest") or served.digest)
        acknowledge(self._folder, self._process, epoch=epoch, digest=digest, error=error)
