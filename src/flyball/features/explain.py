"""What stands behind one value: its interval, the tiles and head rows it is made of, and the rows it did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from flyball.define.expression import columns_of
from flyball.define.spec import AggregateSpec, ColumnSpec, ExprData, FeatureSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import Flags
from flyball.features.assemble import column_leaves
from flyball.features.evaluate import evaluate
from flyball.features.frames import vectors, words
from flyball.features.plan import HEAD
from flyball.features.ports import EventSlices
from flyball.features.recompute import Conditions, Definition, Recomputation, Seal, Served
from flyball.features.vector import Vector
from flyball.features.views import CompiledView
from flyball.kernel.errors import NotFoundError, did_you_mean
from flyball.kernel.times import show_duration

SHOWN = 50  # rows and tiles of an answer
ALL = 1 << 62
HIDDEN = "(pii)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """When a value is looked at; `lsn` and `known_through` are what a prediction saw of the source, None: of none."""

    at: int
    lsn: int | None = None
    known_through: int | None = None


def explain(
    view: ViewSpec,
    source: SourceSpec,
    feature: str,
    entity: Mapping[str, Any],
    moment: Moment,
    history: EventSlices,
    *,
    columns: Sequence[ColumnSpec] = (),
    seal: Seal = lambda value: value,
) -> dict[str, Any]:
    """Explain a feature of an entity.

    Args:
        entity: its values as a request brings them; digests are found among the entities that have events.
        columns: what the entity's columns are declared to be, in the view's order; empty: the view's own.

    Raises:
        NotFoundError: `feature_not_found`.
    """
    if feature not in view.features:
        raise NotFoundError(
            f"the view {view.name} has no feature {feature!r}: {did_you_mean(feature, view.features)}",
            code="feature_not_found",
            hint=f"flyball features {view.name} lists them",
        )
    brought = columns or [source.column(name) for name in view.entity]
    record = Served(
        id="explain",
        at=moment.at,
        inputs=entity,
        features={},
        lsn={source.name: ALL if moment.lsn is None else moment.lsn},
        known_through={source.name: moment.at if moment.known_through is None else moment.known_through},
    )
    by = [column.name for column in brought]
    kinds = next(kinds for name, _, kinds in CompiledView(view, source).feature_types if name == feature)
    definition = Definition(
        features=(FeatureSpec(name=feature, expr=["view", view.name, feature, by], categories=kinds),),
        views=(view,),
        sources=(source,),
        rows="the request",
        columns=tuple(brought),
    )
    again = Recomputation(definition, [record], history, seal=seal)
    told = _Value(view, source, feature, again, moment)
    return told.to_data({name: _shown(entity.get(name), c.pii) for name, c in zip(by, brought, strict=True)})


class _Value:
    def __init__(self, view: ViewSpec, source: SourceSpec, feature: str, again: Recomputation, moment: Moment) -> None:
        self.view, self.source, self.feature = view, source, feature
        self.again, self.moment = again, moment
        self.aggregate = next((a for a in view.aggregates if a.name == feature), None)
        self.seen = Conditions(seen="known" if moment.lsn is None else "logged")

    def to_data(self, entity: dict[str, Any]) -> dict[str, Any]:
        rows = self._rows()
        start = self.start()
        there = [row for row in rows if row["seen"]]
        levels = self._levels()
        head = self.moment.at // levels[-1] * levels[-1]
        tiles: list[dict[str, Any]] = []
        raw = there
        if self.aggregate is not None:
            tiles, raw = self._tiles(there, levels, head)
        return {
            "view": self.view.name,
            "feature": self.feature,
            "kind": self.view.kind,
            "definition": self.view.definition,
            "operator": self.aggregate.op if self.aggregate else "latest",
            "entity": entity,
            "at": self.moment.at,
            "interval": {"start": start, "end": self.moment.at} | self._window(),
            "tiles": tiles[-SHOWN:],
            "tiles_left_out": max(0, len(tiles) - SHOWN),
            "head": {"start": head, "end": self.moment.at, "rows": [_row(row) for row in raw[-SHOWN:]]},
            "rows_left_out": max(0, len(raw) - SHOWN),
            "late": [_row(row) for row in rows if not row["seen"]][:SHOWN],
            "value": {
                "known" if self.moment.lsn is None else "served": self._value(self.seen),
                "event": self._value(Conditions(seen="event")),
            },
        }

    def start(self) -> int | None:
        """When the interval begins; None: never, as of a latest view without a ttl."""
        a = self.aggregate
        if a is not None:
            return (self.moment.at - a.window) // a.hop * a.hop
        return None if self.view.ttl is None else self.moment.at - self.view.ttl

    def _window(self) -> dict[str, Any]:
        a = self.aggregate
        if a is None:
            return {"ttl": None if self.view.ttl is None else show_duration(self.view.ttl)}
        return {"window": show_duration(a.window), "hop": show_duration(a.hop)}

    def _value(self, what: Conditions) -> Any:
        value = float(self.again.compute(what, np.array([0])).matrix[0, 0])
        if np.isnan(value):
            return None
        categories = self.again.definition.features[0].categories
        return self._hide(categories[int(value)] if categories else value)

    def _hide(self, value: Any) -> Any:
        return HIDDEN if self._private() else value

    def _private(self) -> bool:
        return any(column.pii for column in shown(self.view, self.source, self.feature))

    def _rows(self) -> list[dict[str, Any]]:
        """The entity's rows in the interval that count for the feature, oldest first, each with why it was not seen."""
        frame, codes = self.again.events(self.view.name)
        mine = frame.filter(pl.col("_code") == int(codes[0])) if int(codes[0]) >= 0 else frame.clear()
        before = (pl.col("_event_time") < self.moment.at) & (pl.col("_event_time") >= (self.start() or -ALL))
        inside = mine.filter(before)
        counts, values = self._values(inside)
        whys = self._whys(mine if not self.source.corrections else frame)
        found = []
        for i, row in enumerate(inside.sort("_lsn").iter_rows(named=True)):
            if counts[i]:
                why = whys[row["_lsn"]]
                found.append(
                    {
                        "event_time": row["_event_time"],
                        "known_at": row["_known_at"],
                        "lsn": row["_lsn"],
                        "value": self._hide(values[i]),
                        "_value": values[i],
                        "why": why,
                        "seen": not why,
                    }
                )
        return sorted(found, key=lambda row: (row["event_time"], row["lsn"]))

    def _values(self, frame: pl.DataFrame) -> tuple[Flags, list[Any]]:
        """Per row in LSN order whether it counts, by the filters and its value, and the value as people read it."""
        frame = frame.sort("_lsn")
        view = CompiledView(self.view, self.source)
        names = {column.name: column for column in self.source.columns if column.name in view.columns}
        leaves = column_leaves(self.source.name, vectors(frame, names), names, words(frame, "_event_time"))
        n, expr, wheres = len(frame), self._expr(), [self.view.where, self.aggregate.where if self.aggregate else None]
        counts = np.ones(n, np.bool_)
        for where in wheres:
            if where is not None:
                true = evaluate(where, leaves, rows=n)
                counts &= true.valid & true.values.astype(np.bool_)
        if expr is None:
            return counts, [None] * n
        value: Vector = evaluate(expr, leaves, rows=n)
        if self.aggregate is not None:
            counts &= value.valid
        return counts, [v if ok else None for v, ok in zip(value.values.tolist(), value.valid.tolist(), strict=True)]

    def _expr(self) -> ExprData | None:
        if self.aggregate is not None:
            return self.aggregate.value
        return ["col", self.source.name, next(c.column for c in self.view.latest if c.name == self.feature)]

    def _whys(self, frame: pl.DataFrame) -> dict[int, str]:
        """By LSN why a row does not count; empty where it does."""
        whys: dict[int, str] = {}
        newest: dict[bytes, int] = {}
        for row in frame.sort(*(["_known_at", "_lsn"] if self.source.corrections else ["_lsn"])).iter_rows(named=True):
            lsn, key = row["_lsn"], row["_key"]
            whys[lsn] = self._late(row)
            if not self.source.corrections:
                if key in newest:
                    whys[lsn] = f"a duplicate of LSN {newest[key]}"
                newest.setdefault(key, lsn)
            elif not whys[lsn]:
                if key in newest:
                    verb = "deleted" if row.get("_deleted") else "corrected"
                    whys[newest[key]] = f"{verb} by LSN {lsn}"
                newest[key] = lsn
                if row.get("_deleted"):
                    whys[lsn] = "a deletion"
        return whys

    def _late(self, row: Mapping[str, Any]) -> str:
        if self.moment.lsn is not None and row["_lsn"] > self.moment.lsn:
            return f"it came as LSN {row['_lsn']}; the reply saw up to {self.moment.lsn}"
        limit = self.moment.at if self.moment.known_through is None else self.moment.known_through
        if row["_known_at"] > limit:
            return f"it was known {show_duration(row['_known_at'] - limit)} too late"
        return ""

    def _levels(self) -> list[int]:
        hops = {a.hop for a in self.view.aggregates} or {HEAD}
        return sorted(hops | ({HEAD} if min(hops) > HEAD else set()), reverse=True)

    def _tiles(
        self, rows: list[dict[str, Any]], levels: list[int], head: int
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The closed tiles with rows in them, up to coarser hops and then down, as the interval is walked; the rest."""
        a = self.aggregate
        assert a is not None  # the caller looked
        tiles: dict[tuple[int, int], list[dict[str, Any]]] = {}
        parts = walk((self.moment.at - a.window) // a.hop * a.hop, self.moment.at, levels, levels.index(a.hop))
        raw = []
        for row in rows:
            hop = next((hop for start, end, hop in parts if start <= row["event_time"] < end), 0)
            if hop and row["event_time"] < head:
                tiles.setdefault((row["event_time"] // hop * hop, hop), []).append(row)
            else:
                raw.append(row)
        return [
            {"start": start, "hop": show_duration(hop), "rows": len(mine), "value": self._hide(partial(a, mine))}
            for (start, hop), mine in sorted(tiles.items())
        ], raw


def shown(view: ViewSpec, source: SourceSpec, feature: str) -> list[ColumnSpec]:
    """The columns whose values a feature shows: a count shows none."""
    names = {latest.column for latest in view.latest if latest.name == feature}
    for aggregate in view.aggregates:
        if aggregate.name == feature and aggregate.op not in ("count", "distinct") and aggregate.value is not None:
            names |= columns_of(aggregate.value, source.name)
    return [source.column(name) for name in names]


def walk(start: int, end: int, levels: Sequence[int], level: int) -> list[tuple[int, int, int]]:
    """Parts of an interval and the hop of the tiles that cover each; `levels` are hops from coarse to fine.

    >>> walk(30, 230, [100, 10], 1)
    [(30, 100, 10), (100, 200, 100), (200, 230, 10)]
    """
    parts = []
    while level > 0:
        coarser = levels[level - 1]
        boundary = -(-start // coarser) * coarser
        if boundary + coarser > end:
            break
        parts.append((start, boundary, levels[level]))
        start, level = boundary, level - 1
    while level < len(levels):
        until = end // levels[level] * levels[level]
        parts.append((start, until, levels[level]))
        start, level = max(start, until), level + 1
    return [part for part in parts if part[0] < part[1]]


def partial(a: AggregateSpec, rows: Sequence[Mapping[str, Any]]) -> Any:
    """What a tile says of its rows: what its operator would give for them alone."""
    values = [row["_value"] for row in rows]
    if a.op == "count":
        return len(rows)
    if a.op == "distinct":
        return min(len(set(values)), a.cap)
    if a.op in ("first", "last", "nth_last"):
        place = {"first": 0, "last": -1}.get(a.op, -a.nth)
        return values[place] if len(values) >= abs(place) else None
    numbers = [float(value) for value in values]
    if a.op == "std":
        return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    if a.op == "mean":
        return sum(numbers) / len(numbers)
    return sum(numbers) if a.op == "sum" else min(numbers) if a.op == "min" else max(numbers)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("_value", "seen") and (name != "why" or value)}


def _shown(value: Any, pii: bool) -> Any:
    return HIDDEN if pii and value is not None else value
