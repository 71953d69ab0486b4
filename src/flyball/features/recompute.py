"""Served features, computed again from history: what each reply saw, or what it would have seen if one thing differed.

A reply logs, for each source, the LSN and the time up to which it saw events. Those are not points of one order (a
rebuilt online state begins again), so each row gets events of its own: the pairs of rows and the events that they saw
go through the same sweep that makes training sets, with the row in the place of the entity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl

from flyball.define.expression import leaves
from flyball.define.spec import ColumnSpec, FeatureSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import Flags, Floats, Words
from flyball.features.arrival import Fields, alike, arrived, logged
from flyball.features.assemble import ViewRole, column_leaves, leaf_requirements, role_keys, stack, view_leaves
from flyball.features.evaluate import evaluate
from flyball.features.frames import CURRENT, once, vectors
from flyball.features.keys import Keys, encode_keys
from flyball.features.offline import sweep
from flyball.features.ports import EventSlices
from flyball.features.rounding import slack, with_means
from flyball.features.vector import LeafKey, Vector, leaf_key
from flyball.features.views import CompiledView, ViewValues

PAIRS = 1_000_000  # of a row and an event, in memory at once
ROW = "_row"
Seal = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What a version computes its features from, as its manifest holds it. `columns` are what a request brings."""

    features: tuple[FeatureSpec, ...]
    views: tuple[ViewSpec, ...] = ()
    sources: tuple[SourceSpec, ...] = ()
    rows: str = ""
    columns: tuple[ColumnSpec, ...] = ()

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Definition:
        return cls(
            features=msgspec.convert(manifest.get("features") or [], tuple[FeatureSpec, ...]),
            views=msgspec.convert(manifest.get("views") or [], tuple[ViewSpec, ...]),
            sources=msgspec.convert(manifest.get("sources") or [], tuple[SourceSpec, ...]),
            rows=str(manifest.get("rows") or ""),
            columns=msgspec.convert(manifest.get("inputs") or [], tuple[ColumnSpec, ...]),
        )

    def view(self, name: str) -> ViewSpec:
        return next(view for view in self.views if view.name == name)

    def source(self, name: str) -> SourceSpec:
        return next(source for source in self.sources if source.name == name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A prediction as it was logged; `features` by name, values of pii as digests."""

    id: str
    at: int
    inputs: Mapping[str, Any]
    features: Mapping[str, Any]
    lsn: Mapping[str, int]
    known_through: Mapping[str, int]
    key: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Served:
        return cls(
            id=str(record["id"]),
            at=int(record["at"]),
            inputs=record.get("inputs") or {},
            features=record.get("features") or {},
            lsn=record.get("lsn") or {},
            known_through=record.get("known_through") or {},
            key=record.get("key"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What a recomputation holds to; each hypothesis about a mismatch changes one of them.

    Args:
        seen: `logged`: the events that the reply saw, by its LSN; `known`: those known at its time, as a training set
            sees them; `event`: all that happened before it, whenever they came.
        inputs: the row's own fields: as it `arrived` later under its key, where it did, or as they were `logged`.
        duplicates: whether events of one key count each.
        ttl: `declared`, `ignored`, or `exclusive`: a value of exactly that age is gone.
        views: other definitions of views, by name.
    """

    seen: Literal["logged", "known", "event"] = "logged"
    inputs: Literal["arrived", "logged"] = "arrived"
    duplicates: bool = False
    ttl: Literal["declared", "ignored", "exclusive"] = "declared"
    views: Mapping[str, tuple[ViewSpec, SourceSpec]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """`matrix` `(n, features)`, NaN for null, categories as codes; `known` is False where it could not be computed;
    `slack` is how far from it another right value may be, beyond the rounding of the value itself."""

    matrix: Floats
    known: Flags
    slack: Floats


class Recomputation:
    """Computes the features of `n` predictions of one version again.

    Args:
        seal: the digest that stands for a pii value in a record.
    """

    def __init__(
        self, definition: Definition, records: Sequence[Served], history: EventSlices, *, seal: Seal = lambda v: v
    ) -> None:
        self.definition, self.records = definition, records
        self._history = history
        self._needed = leaf_requirements(definition.features)
        self.times: Words = np.array([record.at for record in records], np.int64)
        wanted = {name for _, name in self._needed.columns} | {n for role in self._needed.views for n in role.by}
        self._columns = {c.name: msgspec.structs.replace(c, nullable=True) for c in definition.columns}
        self._columns = {name: column for name, column in self._columns.items() if name in wanted}
        entities = [(role, definition.view(role.view)) for role in self._needed.views]
        roles, sources = [(role.by, view) for role, view in entities], {s.name: s for s in definition.sources}
        self.logged: Fields = logged(records, self._columns, roles, history, self.times, seal, sources)
        source = next((s for s in definition.sources if s.name == definition.rows), None)
        self.arrived: Fields = arrived(records, self._columns, source, history, seal, self.logged)
        self._frames: dict[tuple[str, tuple[str, ...], str], tuple[pl.DataFrame, Words]] = {}
        self._compiled: dict[str, CompiledView] = {}

    def starts(self, feature: FeatureSpec) -> dict[str, Words]:
        """Per source that a feature reads through views, when its longest window begins for each row."""
        found: dict[str, Words] = {}
        for leaf in leaves(feature.expr):
            if leaf[0] == "view":
                view = self.definition.view(leaf[1])
                found[view.source] = np.minimum(
                    found.get(view.source, self.times), window_start(view, self.times, leaf[2])
                )
        return found

    def events(self, view: str) -> tuple[pl.DataFrame, Words]:
        """The raw events of the rows' entities in a view, with `_code`, and each row's code (-1: it has none)."""
        role = next(role for role in self._needed.views if role.view == view)
        spec = self.definition.view(view)
        return self._events(spec, self.definition.source(spec.source), role, "logged")

    def compute(self, what: Conditions, rows: Words) -> Computed:
        """The features of the rows with these positions."""
        n = len(rows)
        fields = self.arrived if what.inputs == "arrived" else self.logged
        taken = {name: vector.take(rows) for name, vector in fields.vectors.items()}
        found: dict[LeafKey, Vector] = column_leaves(self.definition.rows, taken, self._columns, self.times[rows])
        unknown: dict[LeafKey, Flags] = {
            ("col", self.definition.rows, name): ~known[rows] for name, known in fields.known.items()
        }
        for role in self._needed.views:
            view, answer = self._answer(role, what, rows)
            if view is None or answer is None:
                continue
            blind = np.logical_or.reduce([np.zeros(n, np.bool_), *(~fields.known[name][rows] for name in role.by)])
            for key, vector in view_leaves(view, role, answer).items():
                found[key] = vector
                unknown[key] = ~answer.exact | blind
        matrix = np.full((n, len(self.definition.features)), np.nan)
        known, apart = np.zeros(matrix.shape, np.bool_), np.zeros(matrix.shape)
        for k, feature in enumerate(self.definition.features):
            keys = [leaf_key(leaf) for leaf in leaves(feature.expr)]
            if all(key in found for key in keys):
                matrix[:, k] = stack([feature], [evaluate(feature.expr, found, rows=n)], n)[:, 0]
                apart[:, k] = slack(feature, found, matrix[:, k])
                known[:, k] = ~np.logical_or.reduce(
                    [np.zeros(n, np.bool_), *(unknown[key] for key in keys if key in unknown)]
                )
        return Computed(matrix=matrix, known=known, slack=apart)

    def _answer(self, role: ViewRole, what: Conditions, rows: Words) -> tuple[CompiledView | None, ViewValues | None]:
        spec = self.definition.view(role.view)
        spec, source = what.views.get(role.view) or (spec, self.definition.source(spec.source))
        if spec.ttl is not None and what.ttl != "declared":
            spec = msgspec.structs.replace(spec, ttl=None if what.ttl == "ignored" else max(spec.ttl - 1, 0))
        if len(spec.entity) != len(role.by):
            return None, None  # a definition that is looked up otherwise
        view = self._by_row(spec, source)
        frame, codes = self._events(spec, source, role, what.inputs)
        seen = pl.DataFrame(
            {
                ROW: np.arange(len(rows)),
                "_code": codes[rows],
                "_t": self.times[rows],
                "_through": [self.records[i].lsn.get(source.name, -1) for i in rows],
                "_known": [self.records[i].known_through.get(source.name, -(1 << 62)) for i in rows],
                "_start": window_start(spec, self.times[rows]),
            }
        )
        groups, events = grouped(seen, frame, source, what)
        keys = encode_keys([Vector(groups, groups >= 0)], view.entity, len(rows))
        columns = [*dict.fromkeys([*view.columns, *_SYSTEM])]
        return view, sweep(view, events.select(columns), keys, self.times[rows], asof="known")

    def _by_row(self, spec: ViewSpec, source: SourceSpec) -> CompiledView:
        """The view with a row in the place of its entity, and with what tells how its values are rounded."""
        if spec.hash not in self._compiled:
            columns = (*source.columns, ColumnSpec(name=ROW, type="integer"))
            by_row = msgspec.structs.replace(source, columns=columns, corrections=False)
            wider = msgspec.structs.replace(with_means(spec, source), entity=(ROW,))
            self._compiled[spec.hash] = CompiledView(wider, by_row)
        return self._compiled[spec.hash]

    def _events(
        self, spec: ViewSpec, source: SourceSpec, role: ViewRole, inputs: Literal["arrived", "logged"]
    ) -> tuple[pl.DataFrame, Words]:
        """The raw events of the rows' entities, with `_code`, and each row's code (-1: it has no entity)."""
        name = (spec.hash, role.by, inputs)
        if name not in self._frames:
            fields = self.arrived if inputs == "arrived" else self.logged
            keys = role_keys(role, fields.vectors, self._columns, len(self.records))
            view = CompiledView(spec, source)
            where = {
                column.name: sorted(set(fields.vectors[by].values[fields.vectors[by].valid].tolist()))
                for by, column in zip(role.by, view.entity, strict=True)
                if alike(self._columns[by], column)
            }
            since = None  # a latest value may be of any age
            if spec.kind != "latest":
                since = int(window_start(spec, self.times).min()) if len(self.times) else 0
            before = int(self.times.max()) if len(self.times) else 0
            frame = self._history.slice(source, view.columns, since=since, before=before, where=where)
            if source.corrections:  # a correction may lie in another window, or be of another entity
                touched = {"_key": frame["_key"].unique().to_list()}
                frame = self._history.slice(source, view.columns, since=None, before=None, where=touched)
            self._frames[name] = frame.with_columns(pl.Series("_code", codes_of(frame, view, keys))), keys.codes
        return self._frames[name]


_SYSTEM = (ROW, "_event_time", "_known_at", "_lsn", "_key", "_until")


def window_start(view: ViewSpec, times: Words, feature: str = "") -> Words:
    """When the longest window of a view (or the one of a feature) begins, for each time; of a latest view: never."""
    starts = [(times - a.window) // a.hop * a.hop for a in view.aggregates if feature in ("", a.name)]
    return np.minimum.reduce(starts) if starts else np.full(len(times), -(1 << 62), np.int64)


def codes_of(frame: pl.DataFrame, view: CompiledView, keys: Keys) -> Words:
    """The events' entities as codes of `keys`; -1 where none of them is meant."""
    names = [column.name for column in view.entity]
    if not names:
        return np.zeros(len(frame), np.int64)
    distinct = frame.select(names).unique()
    found = encode_keys(list(vectors(distinct, names).values()), view.entity, len(distinct))
    code_of = {key: code for code, key in enumerate(keys.unique)}
    table = np.array([code_of.get(key, -1) for key in found.unique] + [-1], np.int64)
    coded = distinct.with_columns(pl.Series("_code", table[found.codes]))
    joined = frame.select(names).join(coded, on=names, how="left", maintain_order="left")
    codes: Words = joined["_code"].fill_null(-1).to_numpy().astype(np.int64)  # null entities join nothing
    return codes


def grouped(
    rows: pl.DataFrame, events: pl.DataFrame, source: SourceSpec, what: Conditions
) -> tuple[Words, pl.DataFrame]:
    """The group of each row (-1: none), and the events with the group of the rows that may see them (`_row`) and, as
    `_known_at`, from when on they do.

    Where the rows of an entity saw more and more as time went on, which is how a stream is served, they share its
    events. A row that saw less than an earlier one (a state that was being built again) gets a copy of its own, and so
    do all rows of a source that takes corrections.
    """
    codes = rows["_code"].to_numpy()
    if source.corrections:
        alone = pl.Series(codes >= 0)
    else:
        events = events.filter(pl.col("_code") >= 0)
        events = events if what.duplicates else once(events)
        alone = _irregular(rows) if what.seen == "logged" else pl.Series(np.zeros(len(rows), np.bool_))
    offset = int(codes.max(initial=-1)) + 1
    groups: Words = np.where(alone.to_numpy(), offset + np.arange(len(rows)), codes).astype(np.int64)
    parts = [] if source.corrections else [_shared(rows.filter(~alone), events, source, what)]
    copied = rows.filter(alone).with_columns(pl.col(ROW) + offset)
    step = max(1, PAIRS // _largest(events["_code"].to_numpy()))
    parts += [visible(copied[at : at + step], events, source, what) for at in range(0, max(len(copied), 1), step)]
    names = [name for name in events.columns if name != "_code"]
    shown = [part.select(ROW, *names).with_columns(pl.lit(CURRENT, pl.Int64).alias("_until")) for part in parts]
    return groups, pl.concat(shown)


def _irregular(rows: pl.DataFrame) -> pl.Series:
    """Which rows are of an entity of which some row saw less than an earlier one."""
    ordered = rows.sort("_code", "_t", "_through", "_known")

    def step(name: str) -> pl.Expr:
        return pl.col(name).diff().over("_code").fill_null(0)

    same = (step("_through") == 0) & (step("_known") == 0)
    first = pl.int_range(pl.len()).over("_code") == 0
    regular = (step("_through") >= 0) & (step("_known") >= 0) & ((step("_t") != 0) | same | first)
    return ordered.with_columns(regular.all().over("_code").not_().alias("_alone")).sort(ROW)["_alone"]


def _shared(rows: pl.DataFrame, events: pl.DataFrame, source: SourceSpec, what: Conditions) -> pl.DataFrame:
    """The events of the rows' entities, each with the time of the first row that saw it."""
    bounds = rows.group_by("_code").agg(pl.col("_start").min(), pl.col("_t").max())
    mine = events.join(bounds, on="_code").filter(
        pl.col("_event_time") < pl.col("_t"), pl.col("_event_time") >= pl.col("_start")
    )
    if what.seen == "event":
        mine = mine.with_columns(pl.col("_event_time").alias("_known_at"))
    elif what.seen == "logged":
        ahead = pl.max_horizontal("_known_at", pl.col("_event_time") - source.skew)
        mine = _first(mine.drop("_t").with_columns(ahead.alias("_ahead")), rows, "_lsn", "_through", "_by_lsn")
        mine = _first(mine, rows, "_ahead", "_known", "_by_time").drop_nulls(["_by_lsn", "_by_time"])
        mine = mine.with_columns(pl.max_horizontal("_by_lsn", "_by_time").alias("_known_at"))
    return mine.with_columns(pl.col("_code").alias(ROW))


def _first(events: pl.DataFrame, rows: pl.DataFrame, event: str, row: str, name: str) -> pl.DataFrame:
    """For each event the time of its entity's first row of which `row` is at least the event's `event`."""
    right = rows.group_by("_code", row).agg(pl.col("_t").min().alias(name)).sort(row)
    left = events.sort(event)
    return left.join_asof(
        right, left_on=event, right_on=row, by="_code", strategy="forward", coalesce=False, check_sortedness=False
    ).drop(row)


def visible(rows: pl.DataFrame, events: pl.DataFrame, source: SourceSpec, what: Conditions) -> pl.DataFrame:
    """Pairs of a row and an event that it saw, each event as the version that counted for the row."""
    if not source.corrections:
        pairs = rows.join(events, on="_code").filter(_seen(what, source))
    else:
        mine = rows.join(events.filter(pl.col("_code") >= 0).select("_code", "_key").unique(), on="_code")
        pairs = mine.join(events.rename({"_code": "_of"}), on="_key").filter(_seen(what, source))
        if not what.duplicates:
            pairs = pairs.sort("_known_at", "_lsn").unique([ROW, "_key"], keep="last", maintain_order=True)
        pairs = pairs.filter(pl.col("_deleted").fill_null(False).not_(), pl.col("_of") == pl.col("_code"))
    inside = (pl.col("_event_time") < pl.col("_t")) & (pl.col("_event_time") >= pl.col("_start"))
    return pairs.filter(inside).with_columns(pl.col("_event_time").alias("_known_at"))


def _seen(what: Conditions, source: SourceSpec) -> pl.Expr:
    if what.seen == "event":
        return pl.lit(True)
    if what.seen == "known":
        return pl.col("_known_at") <= pl.col("_t")
    ahead = pl.max_horizontal("_known_at", pl.col("_event_time") - source.skew)  # what is ahead of its time is held
    return (pl.col("_lsn") <= pl.col("_through")) & (ahead <= pl.col("_known"))


def _largest(codes: Words) -> int:
    """How many events the entity has that has most, and 1 where there are none."""
    return max(1, int(np.bincount(codes[codes >= 0]).max(initial=0)))
