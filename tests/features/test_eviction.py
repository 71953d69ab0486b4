from __future__ import annotations

from typing import Any

import msgspec
import polars as pl
import pytest

from flyball.define.spec import LatestSpec, SourceSpec, ViewSpec
from flyball.features.online import OnlineReader
from flyball.features.states import place_space, row_space, version_space, view_space
from flyball.features.views import CompiledView
from flyball.features.writer import OnlineWriter
from flyball.kernel.clock import ManualClock
from flyball.kernel.times import DAY, HOUR, MINUTE
from flyball.storage.online import MemoryStore
from tests.features.brute import Event
from tests.features.cases import CORRECTED, SOURCE, aggregate, frame_of, keys_of
from tests.features.test_online import Past

COUNT = ViewSpec(
    name="Card", kind="window", source=SOURCE.name, entity=("card",), aggregates=(aggregate("n", "count", "2d"),)
)
LATEST = ViewSpec(
    name="Last",
    kind="latest",
    source=SOURCE.name,
    entity=("card",),
    latest=(LatestSpec(name="amount", column="amount", type="decimal", scale=2),),
)
EMPTY: dict[str, Any] = dict.fromkeys(c.name for c in SOURCE.columns)
REACH = 2 * DAY + HOUR + 5 * MINUTE + SOURCE.lateness  # window, hop, head and lateness
REST = REACH // 8  # between two walks


def frame(lsn: int, t: int, card: str, source: SourceSpec) -> pl.DataFrame:
    values = EMPTY | {"card": card, "amount": 100}
    return frame_of([Event(lsn=lsn, t=t, known=t, values=values)], source)


def entities(store: MemoryStore, view: ViewSpec, source: SourceSpec) -> int:
    with store.read() as transaction:
        return sum(1 for _ in transaction.items(view_space(CompiledView(view, source).definition)))


@pytest.mark.parametrize("source", [SOURCE, CORRECTED])
def test_an_entity_is_dropped_when_no_read_can_need_it_and_never_before(source: SourceSpec) -> None:
    store, clock, past = MemoryStore(), ManualClock(0), Past()
    writer = OnlineWriter(store, clock, past)
    writer.load_plan([source], [COUNT, LATEST])
    writer.apply(source.name, frame(1, -1, "x", source))
    for lsn, (now, kept) in enumerate([(REACH - 2 * REST, 2), (REACH - 1, 2), (REACH + REST, 1)], start=2):
        clock.advance_to(now)
        writer.apply(source.name, frame(lsn, now - 1, "y", source))
        assert entities(store, COUNT, source) == kept
    assert entities(store, LATEST, source) == 2
    view = CompiledView(COUNT, source)
    keys = keys_of(view, [EMPTY | {"card": "x"}])
    reader = OnlineReader(store)
    since = REACH + REST - SOURCE.lateness
    assert [bool(reader.read(view, keys, at).exact[0]) for at in (since - 1, since)] == [False, True]
    assert [reader.vector(view, keys.unique[0], at).exact for at in (since - 1, since)] == [False, True]
    assert reader.read(view, keys, since).values[0, 0] == 0.0


def test_rows_that_corrections_were_kept_for_go_too() -> None:
    store, clock, past = MemoryStore(), ManualClock(0), Past()
    writer = OnlineWriter(store, clock, past)
    writer.load_plan([CORRECTED], [COUNT])
    writer.apply(CORRECTED.name, frame(1, -1, "x", CORRECTED))
    clock.advance_to(30 * DAY)
    writer.apply(CORRECTED.name, frame(2, 30 * DAY - 1, "y", CORRECTED))
    definition = CompiledView(COUNT, CORRECTED).definition
    with store.read() as transaction:
        for space in (row_space(definition), place_space(definition), version_space(CORRECTED.name)):
            assert sum(1 for _ in transaction.items(space)) == 1


def test_many_entities_are_dropped_a_few_at_a_time() -> None:
    patient = msgspec.structs.replace(SOURCE, lateness=0)
    store, clock, past = MemoryStore(), ManualClock(0), Past()
    writer = OnlineWriter(store, clock, past)
    writer.load_plan([patient], [COUNT])
    writer.apply(SOURCE.name, pl.concat([frame(i + 1, -1, f"card-{i}", SOURCE) for i in range(1_200)]))
    kept = []
    for step in range(4):
        clock.advance_to(30 * DAY + step * HOUR)
        writer.apply(SOURCE.name, frame(2_000 + step, clock.now() - 1, "y", SOURCE))
        kept.append(entities(store, COUNT, patient))
    assert kept[0] >= 700
    assert kept[-1] == 1


def test_a_walk_rests_when_it_is_through_and_keeps_up_with_what_comes() -> None:
    patient = msgspec.structs.replace(SOURCE, lateness=0)
    store, clock, past = MemoryStore(), ManualClock(0), Past()
    writer = OnlineWriter(store, clock, past)
    writer.load_plan([patient], [COUNT])
    batch, kept, lsn = 600, [], 0  # entities of one event every six hours, each gone after a bit more than two days
    for step in range(60):
        clock.advance_to(6 * step * HOUR)
        t = clock.now() - 1
        events = [Event(lsn=lsn + i, t=t, known=t, values=EMPTY | {"card": f"{lsn + i}"}) for i in range(1, batch + 1)]
        writer.apply(SOURCE.name, frame_of(events, patient))
        lsn += batch
        kept.append(entities(store, COUNT, patient))
    lifetime = (REACH - SOURCE.lateness) // (6 * HOUR)
    assert batch * lifetime <= min(kept[20:])
    assert max(kept) < batch * lifetime * 2
