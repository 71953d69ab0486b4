"""Views as training sees them: the kernel replayed over history, read at each row's time."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from flyball.features.accumulator import Words
from flyball.features.batch import sweep as kernel_sweep
from flyball.features.frames import vectors, words
from flyball.features.keys import Keys
from flyball.features.views import CompiledView, ViewValues


def sweep(
    view: CompiledView,
    events: pl.DataFrame,
    keys: Keys,
    times: Words,
    *,
    asof: Literal["known", "event"] = "known",
) -> ViewValues:
    """Read `view` for `n` rows at their times, each from the events that were visible then.

    Args:
        events: physical frame of the view's source, each event once.
        keys: the rows' entities (`encode_keys`); a row without one gets the defaults.
        times: `(n,)` microseconds, in any order.
        asof: `known` sees event_time < t and known_at <= t; `event` sees event_time < t alone, as if nothing were late.
    """
    n, features = len(times), len(view.spec.features)
    values, valid, exact = np.zeros((n, features)), np.zeros((n, features), np.bool_), np.ones(n, np.bool_)
    t, lsn = words(events, "_event_time"), words(events, "_lsn")
    compiled = view.events(vectors(events, view.columns), t, lsn)
    # An event ahead of the time it was known at is seen by nobody before its own time.
    known = (np.maximum(words(events, "_known_at"), t) if asof == "known" else t)[compiled.index]
    # Entities in the order of the rows' keys, with one more at the end for rows that have none.
    entities = len(keys.unique)
    row_entity = np.where(keys.codes < 0, entities, keys.codes)
    event_entity = _translate(compiled.keys, keys)
    kept = np.flatnonzero(event_entity >= 0)
    event_order = kept[np.lexsort((compiled.rows[kept, 1], known[kept], event_entity[kept]))]
    row_order = np.lexsort((times, row_entity))
    bounds = np.arange(entities + 2)
    sorted_values, sorted_valid, sorted_exact = values.copy(), valid.copy(), exact.copy()
    kernel_sweep(
        view.plan,
        np.ascontiguousarray(compiled.rows[event_order]).reshape(-1),
        known[event_order],
        np.searchsorted(event_entity[event_order], bounds),
        np.ascontiguousarray(times[row_order]),
        np.searchsorted(row_entity[row_order], bounds),
        sorted_values,
        sorted_valid,
        sorted_exact,
    )
    values[row_order], valid[row_order], exact[row_order] = sorted_values, sorted_valid, sorted_exact
    return view.values(values, valid, exact)


def _translate(events: Keys, rows: Keys) -> Words:
    """The events' entities as codes of the rows' keys; -1 where no row asks for them."""
    code_of = {key: code for code, key in enumerate(rows.unique)}
    table = np.array([code_of.get(key, -1) for key in events.unique], np.int64)
    codes: Words = table[events.codes] if len(table) else np.zeros(0, np.int64)
    return codes
