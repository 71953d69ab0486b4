"""Compile the kernel once, so that no process waits for it later: `python -m flyball.features.warm`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from flyball.define.spec import AggregateSpec, ColumnSpec, LatestSpec, ProjectSpec, SourceSpec, ViewSpec
from flyball.features import batch
from flyball.features.reading import scratch_words
from flyball.features.views import CompiledView
from flyball.kernel.times import HOUR, hop

if TYPE_CHECKING:
    import polars as pl

_SOURCE = SourceSpec(name="warm", event_time="t", columns=(ColumnSpec(name="x", type="float"),))
_VIEWS = (
    ViewSpec(
        name="window",
        kind="window",
        source="warm",
        aggregates=(AggregateSpec(name="n", op="count", window=HOUR, hop=hop(HOUR)),),
    ),
    ViewSpec(name="latest", kind="latest", source="warm", latest=(LatestSpec(name="x", column="x", type="float"),)),
)


def warm() -> None:
    """Compile, or load from the cache, all that serving calls. Idempotent."""
    for spec in _VIEWS:
        view = CompiledView(spec, _SOURCE)
        plan, nothing = view.plan, view.empty_state
        events = np.zeros(plan.row_words, np.int64)
        one, two, time_zero = np.zeros(1, np.int64), np.array([0, 1]), np.zeros(1, np.int64)
        values, valid, exact = np.zeros((1, 1)), np.zeros((1, 1), np.bool_), np.zeros(1, np.bool_)
        out, out_at = np.zeros(10 * len(nothing) + 100, np.int64), np.zeros(2, np.int64)
        batch.apply(plan, nothing, one, events, two, out, out_at, 0)
        batch.read_states(plan, nothing, one, one, time_zero, values, valid, exact)
        batch.read_one(view.flat, nothing, 0, np.zeros(scratch_words(plan), np.int64), values[0], valid[0])


_ROWS = 5_000  # enough for what is compiled only for many
_TRAINING = SourceSpec(
    name="warm",
    event_time="t",
    columns=(ColumnSpec(name="k", type="integer"), ColumnSpec(name="x", type="float")),
)
_TRAINING_VIEWS = (
    ViewSpec(
        name="window",
        kind="window",
        source="warm",
        entity=("k",),
        aggregates=tuple(
            AggregateSpec(name=f"{op}_{column}", op=op, value=["col", "warm", column], window=HOUR, hop=hop(HOUR))
            for op in ("sum", "max", "last", "distinct")
            for column in ("k", "x")
        ),
    ),
    msgspec.structs.replace(_VIEWS[1], entity=("k",)),
)


def _events() -> pl.DataFrame:
    """A physical frame of `_TRAINING`."""
    import polars as pl  # a worker does without it

    i = pl.int_range(_ROWS, dtype=pl.Int64, eager=True)
    key = i.cast(pl.String).str.zfill(16).cast(pl.Binary)
    known = (i + 1_000_000).alias("_known_at")
    frame = pl.DataFrame([(i % 7).alias("k"), i.cast(pl.Float64).alias("x"), i.alias("_event_time"), known])
    return frame.with_columns(i.alias("_lsn"), key.alias("_key"))


@cache
def warm_updates() -> None:
    """Compile, or load from the cache, all that the writer of online state calls; once in a process."""
    from flyball.features.index import first_of_keys
    from flyball.features.updating import frame_events, updated

    frame = _events()
    first_of_keys(frame["_key"])
    for spec in _TRAINING_VIEWS:
        view = CompiledView(spec, _TRAINING)
        for _, states in updated(view, frame_events(view, frame), lambda keys: None, 0):
            assert states


def warm_training() -> None:
    """Compile, or load from the cache, all that training sets call. Idempotent; loads the offline engine."""
    from flyball.features.frames import vectors
    from flyball.features.histories import Histories
    from flyball.features.keys import encode_keys
    from flyball.features.offline import sweep

    class Reader:
        def events(self, source: str, columns: Sequence[str] | None, *, through_lsn: int | None) -> pl.DataFrame:
            return _events()

    project = ProjectSpec(name="warm", sources=(_TRAINING,))
    with Histories(Reader(), project, {"warm": ["k", "x"]}, horizon={}, at=2 * HOUR) as histories:
        events = histories.whole("warm")
        assert events is not None  # so few fit
    keys = encode_keys(list(vectors(events, ["k"]).values()), _TRAINING.columns[:1], _ROWS)
    for spec in _TRAINING_VIEWS:
        sweep(CompiledView(spec, _TRAINING), events, keys, np.arange(_ROWS, dtype=np.int64) * 1_000)


if __name__ == "__main__":
    started = time.perf_counter()
    warm()
    warm_updates()
    warm_training()
    print(f"the feature kernel is ready ({time.perf_counter() - started:.1f} s)")  # noqa: T201
