"""Events in memory as the audit reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from flyball.define.spec import SourceSpec


class FrameSlices:
    """`features.ports.EventSlices` over frames by source. `kept` is the time before which rows were taken away."""

    def __init__(self, frames: Mapping[str, pl.DataFrame], kept: int | None = None) -> None:
        self.frames = dict(frames)
        self.kept = kept

    def slice(
        self,
        source: SourceSpec,
        columns: Sequence[str],
        *,
        since: int | None,
        before: int | None,
        where: Mapping[str, Sequence[Any]],
    ) -> pl.DataFrame:
        frame = self.frames[source.name]
        if since is not None:
            frame = frame.filter(pl.col("_event_time") >= since)
        if before is not None:
            frame = frame.filter(pl.col("_event_time") < before)
        for name, values in where.items():
            frame = frame.filter(pl.Series([value in set(values) for value in frame[name].to_list()], dtype=pl.Boolean))
        names = [*columns, "_event_time", "_known_at", "_lsn", "_key", *(["_deleted"] if source.corrections else [])]
        return frame.select(*dict.fromkeys(names)).sort("_lsn")

    def kept_from(self, source: SourceSpec) -> int | None:
        return self.kept
