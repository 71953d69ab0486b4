"""States after events: what the writer and its corrections do with the kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flyball.features.batch import apply as kernel_apply
from flyball.features.kernel import MAP_ROW
from flyball.features.states import join
from flyball.features.views import CompiledView, Events


def updated(view: CompiledView, events: Events, blobs: Sequence[bytes | None], floor: int) -> list[memoryview]:
    """The packed states of the events' entities (ascending by code) after the events.

    Args:
        blobs: their states before; None: a new one, which knows nothing of the time before `floor`.
    """
    plan = view.plan
    codes, n = events.keys.codes, len(blobs)
    order = np.argsort(codes, kind="stable")
    event_at = np.append(np.flatnonzero(np.diff(codes[order], prepend=-1)), len(order))
    words_in, blob_at = join(blobs)
    growth = plan.levels.shape[0] * (1 + plan.acc_words) + plan.row_words + MAP_ROW * len(plan.maps)  # at most
    out = np.empty(len(words_in) + n * plan.fixed + len(order) * growth, np.int64)
    out_at = np.zeros(n + 1, np.int64)
    kernel_apply(plan, words_in, blob_at, events.rows[order].reshape(-1), event_at, out, out_at, floor)
    data, ends = out.data.cast("B"), (8 * out_at).tolist()
    return [data[ends[k] : ends[k + 1]] for k in range(n)]
