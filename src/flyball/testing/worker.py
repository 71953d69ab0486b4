"""A worker's core for the platform in one process."""

from __future__ import annotations

from flyball.features.ports import OnlineStore
from flyball.kernel.clock import Clock
from flyball.kernel.layout import Layout
from flyball.serving.log import PredictionWriter
from flyball.serving.service import Worker
from flyball.worker import build_worker


def open_worker(layout: Layout, clock: Clock, store: OnlineStore) -> tuple[Worker, PredictionWriter]:
    """A worker on an online store of this process, and its prediction log, which the caller closes."""
    log = PredictionWriter(layout.predictions / "worker-0")
    return build_worker(layout, log=log, clock=clock, store=store), log
