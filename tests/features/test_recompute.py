"""What a reply saw, computed again, against brute force: any horizon, with duplicates, corrections and deletions."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import FeatureSpec, SourceSpec, ViewSpec
from flyball.features.recompute import Conditions, Definition, Recomputation, Served
from flyball.features.views import CompiledView, ViewValues
from flyball.kernel.times import HOUR
from tests.features.brute import Event
from tests.features.cases import SOURCE, assert_equals_brute, frame_of, histories, latest_views, window_views
from tests.features.slices import FrameSlices

CORRECTED = msgspec.structs.replace(SOURCE, corrections=True, key=("id",))


def definition_of(view: ViewSpec, source: SourceSpec = SOURCE) -> Definition:
    """A version whose features are those of one view, looked up by the entity's own columns."""
    categories = {name: kinds for name, _, kinds in CompiledView(view, source).feature_types}
    features = tuple(
        FeatureSpec(name=name, expr=["view", view.name, name, list(view.entity)], categories=categories[name])
        for name in view.features
    )
    columns = tuple(source.column(name) for name in view.entity)
    return Definition(features=features, views=(view,), sources=(source,), rows="Request", columns=columns)


def seen(events: list[Event], keys: list[int], deleted: list[bool], record: Served, source: SourceSpec) -> list[Event]:
    """The events that count for a record, by their definition."""
    lsn, through = record.lsn[source.name], record.known_through[source.name]

    def there(event: Event) -> bool:
        return event.lsn <= lsn and max(event.known, event.t - source.skew) <= through

    if not source.corrections:
        first: dict[int, Event] = {}
        for event, key in zip(events, keys, strict=True):
            first.setdefault(key, event)
        return [event for event in first.values() if there(event)]
    newest: dict[int, tuple[Event, bool]] = {}
    for event, key, gone in sorted(zip(events, keys, deleted, strict=True), key=lambda e: (e[0].known, e[0].lsn)):
        if there(event):
            newest[key] = (event, gone)
    return [event for event, gone in newest.values() if not gone]


def plain(view: ViewSpec) -> ViewSpec:
    """Without defaults of moved values: -1 is no category and no condition."""
    moved = [msgspec.structs.replace(a, default=None) if a.op in ("first", "last") else a for a in view.aggregates]
    return msgspec.structs.replace(view, aggregates=tuple(moved))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_what_a_reply_saw_is_computed_again(data: st.DataObject, corrections: bool) -> None:
    source = CORRECTED if corrections else SOURCE
    view = plain(data.draw(st.one_of(window_views(), latest_views())))
    events = data.draw(histories(max_events=25))
    keys = [data.draw(st.integers(0, 12)) for _ in events]
    if not corrections:  # a copy of an event has its time: those of other times are not read, so nothing drops them
        keys = [[other.t for other in events].index(event.t) for event in events]
    deleted = [corrections and data.draw(st.integers(0, 4)) == 0 for _ in events]
    frame = frame_of(events).with_columns(
        pl.Series("_key", [bytes([key]) for key in keys], dtype=pl.Binary),
        pl.Series("_deleted", deleted, dtype=pl.Boolean),
    )
    marks = [mark for event in events for mark in (event.t, event.known)] or [0]
    records = [
        Served(
            id=f"p{n}",
            at=data.draw(st.sampled_from(marks)) + data.draw(st.sampled_from([0, 1, 1_000_000, HOUR])),
            inputs={"card": data.draw(st.sampled_from(["x", "y", None])), "shop": data.draw(st.sampled_from([1, 2]))},
            features={},
            lsn={"Payments": data.draw(st.integers(-1, len(events)))},
            known_through={"Payments": data.draw(st.sampled_from(marks))},
        )
        for n in range(data.draw(st.integers(1, 6)))
    ]
    again = Recomputation(definition_of(view, source), records, FrameSlices({"Payments": frame}))
    computed = again.compute(Conditions(), np.arange(len(records)))
    assert computed.known.all()
    compiled = CompiledView(view, source)
    answer = ViewValues(values=computed.matrix, valid=~np.isnan(computed.matrix), exact=np.ones(len(records), np.bool_))
    for i, record in enumerate(records):
        entity: dict[str, Any] = dict(record.inputs)
        assert_equals_brute(compiled, answer, i, seen(events, keys, deleted, record, source), entity, record.at)
