"""Events and rows by entity: codes of equal entities, and each entity's events together in their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from flyball.define.spec import ColumnSpec
from flyball.features.accumulator import Words
from flyball.features.compiled import compiled
from flyball.features.frames import vectors
from flyball.features.keys import Keys, encode_keys, lookup_words
from flyball.features.visibility import Indices

_SHIFTS = 64  # per event: what sorting by insertion may cost before an entity's events are merged instead


def event_codes(events: pl.DataFrame, entity: Sequence[ColumnSpec], keys: Keys) -> Indices:
    """The events' entities as codes of the rows' keys; -1 where no row asks for them."""
    if not entity:
        return np.zeros(len(events), np.int32)
    if keys.columns is not None and all(map(_alike, keys.columns, entity)):
        return _by_value(events, entity, keys)
    own = encode_keys(list(vectors(events, [c.name for c in entity]).values()), entity, len(events))
    code_of = {key: code for code, key in enumerate(keys.unique)}
    table = np.array([*(code_of.get(key, -1) for key in own.unique), -1], np.int32)
    return table[own.codes]  # a null entity is -1, which is the last


def _alike(a: ColumnSpec, b: ColumnSpec) -> bool:
    """Whether equal physical values are equal entities, and others are not."""
    text = ("string", "category")
    if a.type in text and b.type in text:
        return True
    return (a.type == b.type and a.scale == b.scale) or {a.type, b.type} <= {"integer", "timestamp"}


def _by_value(events: pl.DataFrame, entity: Sequence[ColumnSpec], keys: Keys) -> Indices:
    """Without hashing: column by column to codes of the rows' values, then the pairs of codes."""
    codes = None
    wanted = None
    for column, asked in zip(entity, keys.values, strict=True):
        own = _column_codes(events[column.name], asked)
        mine = _column_codes(pl.Series(column.name, asked.tolist() if asked.dtype == object else asked), asked)
        if codes is None or wanted is None:
            codes, wanted = own, mine
            continue
        size = int(mine.max(initial=0)) + 1
        pairs = wanted.astype(np.int64) * size + mine
        unique, wanted_codes = np.unique(pairs, return_inverse=True)
        both = np.where((codes >= 0) & (own >= 0), codes.astype(np.int64) * size + own, -1)
        codes, wanted = lookup_words(unique, both), wanted_codes.astype(np.int32)
    assert codes is not None  # there are columns
    assert wanted is not None
    place = np.full(int(wanted.max(initial=0)) + 2, -1, np.int32)
    place[wanted] = np.arange(len(wanted), dtype=np.int32)
    return codes if np.array_equal(place[:-1], np.arange(len(place) - 1)) else place[codes]


def _column_codes(series: pl.Series, asked: np.ndarray) -> Indices:
    """Positions of a column's values among the distinct ones that are asked for; -1 for null and for others."""
    if series.dtype == pl.String:
        table = pl.DataFrame({"v": pl.Series(asked.tolist(), dtype=pl.String).unique(maintain_order=True)})
        table = table.with_row_index("code")
        found = series.to_frame("v").join(table, on="v", how="left", maintain_order="left")["code"]
        return found.cast(pl.Int32).fill_null(-1).to_numpy()
    words = _words(series.to_numpy() if not series.null_count() else series.fill_null(_zero(series)).to_numpy())
    unique = _first_seen(_words(asked))
    codes = lookup_words(unique, words)
    if series.null_count():
        codes[series.is_null().to_numpy()] = -1
    return codes


def _zero(series: pl.Series) -> object:
    return False if series.dtype == pl.Boolean else 0


def _words(values: np.ndarray) -> Words:
    if values.dtype == np.float64:
        return np.ascontiguousarray(values + 0.0).view(np.int64)
    return np.ascontiguousarray(values, np.int64)


def _first_seen(words: Words) -> Words:
    """Distinct words in the order in which they first come."""
    unique, first = np.unique(words, return_index=True)
    return unique if len(unique) == len(words) and len(words) == 0 else words[np.sort(first)]


@compiled
def place(codes: Indices, t: Words, entities: int) -> tuple[Words, Indices, Words]:
    """Count and place: where each entity's items begin, what stands where, and its time. Keeps the order that was."""
    at = np.zeros(entities + 1, np.int64)
    for code in codes:
        if code >= 0:
            at[code + 1] += 1
    for k in range(entities):
        at[k + 1] += at[k]
    following = at[:-1].copy()
    order, times = np.empty(at[entities], np.int32), np.empty(at[entities], np.int64)
    for i in range(codes.shape[0]):
        code = codes[i]
        if code >= 0:
            to = following[code]
            following[code] = to + 1
            order[to], times[to] = i, t[i]
    return at, order, times


@compiled
def settle(at: Words, order: Indices, t: Words, low: int, high: int) -> None:
    """Sort the items of the entities `low` to `high` by time, those of one time as they stood.

    What comes is nearly sorted as a rule, so items are inserted; where that takes too long the rest is merged.
    """
    for k in range(low, high):
        start, end = at[k], at[k + 1]
        left = _SHIFTS * (end - start)
        i = start + 1
        while i < end and left >= 0:
            x, o, j = t[i], order[i], i
            while j > start and t[j - 1] > x:
                t[j], order[j] = t[j - 1], order[j - 1]
                j -= 1
            t[j], order[j] = x, o
            left -= i - j
            i += 1
        if i < end:
            _merge_sort(order[start:end], t[start:end])


@compiled
def _merge_sort(order: Indices, t: Words) -> None:
    n, width = t.shape[0], 1
    a, o, b, p = t, order, np.empty_like(t), np.empty_like(order)
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = low, middle
            for k in range(low, high):
                if i < middle and (j >= high or a[i] <= a[j]):
                    b[k], p[k] = a[i], o[i]
                    i += 1
                else:
                    b[k], p[k] = a[j], o[j]
                    j += 1
        a, o, b, p = b, p, a, o
        width *= 2
    t[:] = a.copy()
    order[:] = o.copy()
