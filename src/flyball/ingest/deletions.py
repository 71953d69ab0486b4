"""Deletions: rows of a source with corrections that say of a key's event that it is none any more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.parsing import Mask, mask, parse_booleans
from flyball.ingest.rejection import DELETED
from flyball.ingest.rows import Rows


def deletions(rows: Rows, spec: SourceSpec) -> tuple[Mask | None, Mask | None]:
    """Which rows delete (None: the source takes no corrections), and in which of them the mark cannot be read."""
    if not spec.corrections:
        return None, None
    marks = rows.columns.get(DELETED)
    if marks is None:
        return np.zeros(rows.height, dtype=np.bool_), None
    parsed = parse_booleans(marks)
    wrong = next(iter(parsed.faults.values()), np.zeros(rows.height, dtype=np.bool_))
    if DELETED in rows.unfit:
        wrong = wrong | rows.unfit[DELETED]
    return mask(parsed.values), wrong if wrong.any() else None


def keys_alone(rows: Rows, spec: SourceSpec, deleted: Mask) -> Rows:
    """The rows with nothing but their key where they delete: what else such a row holds is not looked at."""
    if not deleted.any():
        return rows
    gone, kept = pl.Series(deleted), ~deleted
    return replace(
        rows,
        columns={
            name: series if name in spec.key else series.set(gone, None) if series.dtype != pl.Null else series
            for name, series in rows.columns.items()
        },
        unfit={name: odd if name in spec.key else odd & kept for name, odd in rows.unfit.items()},
    )
