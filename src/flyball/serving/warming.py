"""Warm-up: a version answers made-up batches before traffic comes, so that its first request is not its slowest and its
lane knows what its batches take."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from flyball.serving.lane import Lane
from flyball.serving.manifest import Manifest, TensorSpec
from flyball.serving.meter import Meter
from flyball.serving.ports import Matrix, Runtime, Tensors
from flyball.serving.tensor_model import batchable
from flyball.serving.tensors import DTYPES, Array

logger = logging.getLogger(__name__)

SIZES = (1, 8, 64)
RUNS = 5  # of a size, after one that does not count
LONGEST = 0.05  # seconds; larger batches of a version that takes longer are learned from traffic


def warm_up(lane: Lane, runtime: Runtime, manifest: Manifest, sample: Matrix | None) -> None:
    """Run batches of several sizes and let the lane learn from them. A version that cannot be asked like this is
    learned from traffic, on a thread of its own.

    Args:
        sample: rows that the version was packed with, `(n, features)`; None: zeros.
    """
    for rows in SIZES:
        if rows > lane.max_rows:
            return
        try:
            run = _question(runtime, manifest, sample, rows)
            if run is None:
                return
            run()
            for _ in range(RUNS):
                meter = Meter()
                run()
                took, cost = meter.stop()
                lane.learn(rows, took, cost)
        except Exception as error:
            logger.info("a version was not warmed", extra={"model": manifest.model, "error": type(error).__name__})
            return
        if took > LONGEST:
            return


def _question(runtime: Runtime, manifest: Manifest, sample: Matrix | None, rows: int) -> Callable[[], object] | None:
    """A batch of so many rows; None where the version does not take as many."""
    if not manifest.takes_tensors:
        source = np.zeros((1, len(manifest.features))) if sample is None or not len(sample) else sample
        matrix = np.ascontiguousarray(np.resize(source, (rows, source.shape[1])))
        return lambda: runtime.predict(matrix)
    if rows > 1 and not batchable(manifest.tensors):
        return None
    tensors: Tensors = {spec.name: _zeros(spec, rows) for spec in manifest.tensors.inputs}
    return lambda: runtime.infer(tensors)


def _zeros(spec: TensorSpec, rows: int) -> Array:
    shape = [1 if size < 0 else size for size in spec.shape]
    if spec.shape and spec.shape[0] == -1:
        shape[0] = rows
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=DTYPES[spec.datatype])
