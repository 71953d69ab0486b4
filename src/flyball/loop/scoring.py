"""Scoring a batch: the rows that came since the last time, with a version, into a table of the lake."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from flyball.kernel.errors import InvalidError
from flyball.loop.execution import Context
from flyball.loop.training import as_trained
from flyball.registry import versions


def score(context: Context) -> dict[str, Any]:
    """Score the rows above `after` up to the horizon into the batch's table, once for each (batch, horizon)."""
    spec, progress = context.spec, context.progress
    batch = spec.batch
    if batch is None or batch.rows not in spec.horizon:
        raise InvalidError(f"the run {spec.run} names no batch with a horizon of its rows", code="bad_run")
    progress.stage("data")
    folder = context.versions / spec.version
    found = versions.read(folder, expected=spec.version).manifest
    rows = context.rooms.batch_rows(spec, *as_trained(found, spec))
    progress.count(rows=len(rows.frame))
    progress.stage("scoring", rows=len(rows.frame))
    if len(rows.frame):
        with context.rooms.scorer(folder, spec.version) as scorer:
            given = np.asarray(scorer.predict(rows.X), dtype=np.float64)
        frame = rows.frame.select("_key", "_event_time", "_lsn").with_columns(
            pl.Series("score", given.tolist(), dtype=pl.Float64 if given.ndim == 1 else pl.List(pl.Float64)),
            pl.lit(spec.version).alias("version"),
            pl.lit(spec.at).alias("scored_at"),
            pl.lit(spec.run).alias("run"),
        )
        context.rooms.append(batch.output, frame, f"batch:{batch.name}", spec.horizon[batch.rows].lsn)
    through = spec.horizon[batch.rows].lsn
    return {"batch": batch.name, "output": batch.output, "rows": len(rows.frame), "through": through}
