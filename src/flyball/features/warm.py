"""Compile the kernel once, so that no process waits for it later: `python -m flyball.features.warm`."""

from __future__ import annotations

import time

import numpy as np

from flyball.define.spec import AggregateSpec, ColumnSpec, LatestSpec, SourceSpec, ViewSpec
from flyball.features import batch
from flyball.features.kernel import scratch_words
from flyball.features.views import CompiledView
from flyball.kernel.times import HOUR, hop

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
    """Compile, or load from the cache, all that serving and training call. Idempotent."""
    for spec in _VIEWS:
        view = CompiledView(spec, _SOURCE)
        plan, nothing = view.plan, view.empty_state
        events = np.zeros(plan.row_words, np.int64)
        one, two, time_zero = np.zeros(1, np.int64), np.array([0, 1]), np.zeros(1, np.int64)
        values, valid, exact = np.zeros((1, 1)), np.zeros((1, 1), np.bool_), np.zeros(1, np.bool_)
        out, out_at = np.zeros(10 * len(nothing) + 100, np.int64), np.zeros(2, np.int64)
        batch.sweep(plan, events, time_zero, two, time_zero, two, values, valid, exact)
        batch.apply(plan, nothing, one, events, two, out, out_at, 0)
        batch.read_states(plan, nothing, one, one, time_zero, values, valid, exact)
        batch.read_one(view.flat, nothing, 0, np.zeros(scratch_words(plan), np.int64), values[0], valid[0])


if __name__ == "__main__":
    started = time.perf_counter()
    warm()
    print(f"the feature kernel is ready ({time.perf_counter() - started:.1f} s)")  # noqa: T201
