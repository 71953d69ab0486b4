"""A worker's core for the platform in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flyball.engines.runtimes import open_runtime
from flyball.features.online import OnlineReader
from flyball.features.ports import OnlineStore
from flyball.features.serving import FeatureServer
from flyball.kernel.clock import Clock
from flyball.kernel.layout import Layout
from flyball.serving.log import PredictionWriter
from flyball.serving.manifest import Manifest
from flyball.serving.ports import FeatureBatch
from flyball.serving.privacy import pii_key
from flyball.serving.service import Worker


def open_worker(layout: Layout, clock: Clock, store: OnlineStore) -> tuple[Worker, PredictionWriter]:
    log = PredictionWriter(layout.predictions / "0")
    worker = Worker(
        features=StoredFeatures(store),
        open_runtime=open_runtime,
        log=log,
        clock=clock,
        pii_key=pii_key(layout.predictions),
    )
    return worker, log


class StoredFeatures:
    """`serving.ports.FeatureReader` on an online store; one feature server for each version."""

    def __init__(self, store: OnlineStore) -> None:
        self._reader = OnlineReader(store)
        self._servers: dict[int, tuple[Manifest, FeatureServer]] = {}

    def vectors(self, manifest: Manifest, rows: Sequence[Mapping[str, Any]], at: Sequence[int]) -> FeatureBatch:
        found = self._server(manifest).compute(rows, list(at))
        return FeatureBatch(
            matrix=found.matrix,
            lsn=found.lsn,
            known_through=found.known_through,
            state="fresh" if found.exact.all() else "stale",
            errors=found.errors,
        )

    def _server(self, manifest: Manifest) -> FeatureServer:
        known = self._servers.get(id(manifest))
        if known is None:
            server = FeatureServer(
                manifest.features,
                manifest.views,
                manifest.sources,
                rows=manifest.rows,
                columns=manifest.inputs,
                reader=self._reader,
            )
            known = self._servers[id(manifest)] = (manifest, server)  # the manifest is kept, so its id stays its own
        return known[1]
