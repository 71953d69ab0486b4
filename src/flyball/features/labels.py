"""Labels of training rows: what they are, and which of them are certain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from flyball.define.spec import AnyLabelSpec, ModelSpec, ProjectSpec, SourceSpec, TaskSpec
from flyball.features.accumulator import Flags, Floats, Words
from flyball.features.assemble import column_leaves
from flyball.features.evaluate import evaluate
from flyball.features.frames import vectors, words
from flyball.features.vector import Vector
from flyball.features.views import category_codes
from flyball.kernel.errors import InvalidError


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """Of `n` rows: `y` `(n,)`, and why a label is not certain, if it is not."""

    y: Floats
    immature: Flags
    null: Flags

    @property
    def certain(self) -> Flags:
        certain: Flags = ~self.immature & ~self.null
        return certain


@dataclass(frozen=True, kw_only=True, slots=True)
class RowVersions:
    """Of `n` rows the physical frames of their first versions and of their newest, and which are deleted."""

    first: pl.DataFrame
    newest: pl.DataFrame
    deleted: Flags


def labels_of(
    model: ModelSpec,
    project: ProjectSpec,
    rows: RowVersions,
    at: int,
    known: Callable[[str], pl.DataFrame],
) -> Labels:
    """The labels of rows, as they are known at `at`: at the time of the first version, from the newest's columns.

    `known` gives the versions of another source's events that count at `at`.

    A label over the row is certain `matures` after the row. A label over another source is certain when both `matures`
    and `within` have passed, or as soon as it is true.
    """
    label, source = model.label, project.source(model.rows)
    assert label is not None  # the caller has checked
    times, newest = words(rows.first, "_event_time"), rows.newest
    if label.any is None:
        assert label.expr is not None  # exactly one of the two is set
        columns = {column.name: column for column in source.columns}
        found = column_leaves(source.name, vectors(newest, columns), columns, times)
        vector = targets(evaluate(label.expr, found, rows=len(times)), model.task, model.name)
        immature = times + label.matures > at
        return Labels(y=vector.values, immature=immature, null=~vector.valid & ~immature)
    events = known(label.any.source)
    true = has_event(
        newest, times, label.any, project.source(label.any.source), events, same=label.any.source == model.rows
    )
    null = newest[label.any.rows_on].is_null().to_numpy()
    immature = ~true & ~null & (times + max(label.matures, label.any.within) > at)
    return Labels(y=true.astype(np.float64), immature=immature, null=null)


def has_event(
    rows: pl.DataFrame, times: Words, label: AnyLabelSpec, source: SourceSpec, events: pl.DataFrame, *, same: bool
) -> Flags:
    """Which rows have an event with their key at or after their time, at most `within` later.

    Where rows are labelled by events of their own source (`same`), an event at the row's very time does not count.
    """
    if label.where is not None:
        columns = {column.name: column for column in source.columns if column.name in events.columns}
        found = column_leaves(source.name, vectors(events, columns), columns, words(events, "_event_time"))
        condition = evaluate(label.where, found, rows=len(events))
        events = events.filter(pl.Series(condition.valid & condition.values.astype(np.bool_)))
    left = pl.DataFrame({"key": rows[label.rows_on], "t": times}).with_row_index("row").drop_nulls("key").sort("t")
    right = pl.DataFrame({"key": events[label.on], "then": events["_event_time"]}).drop_nulls("key").sort("then")
    joined = left.join_asof(
        right,
        left_on="t",
        right_on="then",
        by="key",
        strategy="forward",
        allow_exact_matches=not same,
        coalesce=False,
        check_sortedness=False,
    ).filter(pl.col("then") - pl.col("t") <= label.within)
    true = np.zeros(len(times), np.bool_)
    true[joined["row"].to_numpy()] = True
    return true


def targets(vector: Vector, task: TaskSpec | None, model: str) -> Vector:
    """Label values as numbers: 0 and 1 for conditions, the position in `task.classes` for classes."""
    if task is not None and task.kind == "multiclass":
        if vector.values.dtype != object:
            as_text = np.array([str(v) for v in vector.values.tolist()], object)
            vector = Vector(as_text, vector.valid)
        coded = category_codes(vector, task.classes)
        return Vector(np.where(coded.valid, coded.values, np.nan).astype(np.float64), coded.valid)
    if vector.values.dtype == object:
        raise InvalidError(f"the label of {model!r} is text; only a multi-class task takes classes", code="text_label")
    values = vector.values.astype(np.float64)
    return Vector(np.where(vector.valid, values, np.nan), vector.valid & np.isfinite(values))
