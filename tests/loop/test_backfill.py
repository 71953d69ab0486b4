from __future__ import annotations

from typing import Any

import msgspec
import pytest

from flyball.define.plan import make_plan
from flyball.define.spec import AggregateSpec, ProjectSpec, SourceSpec, ViewSpec
from flyball.kernel.errors import NotFoundError
from flyball.kernel.times import HOUR
from flyball.loop.backfill import estimate, with_estimates
from flyball.loop.ports import Awaiting
from flyball.loop.publish import needed, reads_alike
from flyball.rollout.ports import Served
from flyball.storage.metadata.unit import SqlMetadata
from tests.loop.platform import TRIPS, project

COUNT = AggregateSpec(name="n", op="count", window=HOUR, hop=HOUR)
VIEW = ViewSpec(name="Rides", kind="window", source="Trips", entity=("company",), aggregates=(COUNT,))


def build(**fields: Any) -> dict[str, Any]:
    return {
        "view": "V",
        "source": "Trips",
        "rows": 1_000_000,
        "features": 2,
        "seconds": 4.0,
        "bytes": 10_000_000,
    } | fields


def test_an_estimate_without_a_measurement_says_that_it_is_assumed() -> None:
    found = estimate(VIEW, 4_000_000, [])
    assert (found.seconds, found.bytes, found.measured) == (2.0, 200_000_000, False)
    assert str(found) == "reads 4,000,000 rows, about 2s and 200 MB of online state (assumed, nothing was measured yet)"


def test_an_estimate_follows_what_earlier_builds_took() -> None:
    found = estimate(VIEW, 2_000_000, [build(), build(source="Other", bytes=1)])
    assert (found.seconds, found.bytes, found.measured) == (4.0, 20_000_000, True)
    assert "as measured here" in str(found)
    assert estimate(VIEW, 1_000, [build(bytes=None)]).bytes == 50_000


def test_only_backfills_are_estimated_and_an_unknown_size_is_said() -> None:
    bare = ProjectSpec(name="p", sources=(TRIPS,))
    plan = make_plan(bare, msgspec.structs.replace(bare, views=(VIEW,)))
    (change,) = with_estimates(plan, None, []).changes
    assert "is not known while ingest does not answer" in change.causes[1]
    renamed = msgspec.structs.replace(bare, views=(msgspec.structs.replace(VIEW, description="new"),))
    plan = make_plan(msgspec.structs.replace(bare, views=(VIEW,)), renamed)
    assert with_estimates(plan, {"Trips": 9}, []).changes[0].causes == ()


def test_state_is_kept_for_what_serves_served_and_waits(metadata: SqlMetadata) -> None:
    spec = project()
    with metadata.write() as unit:
        unit.rollouts.put_served(Served(service="tip", current="tip/3", previous="tip/2"))
        unit.loop.put_awaiting(Awaiting(service="tip", version="tip/4", since=0))
        assert needed(unit, [spec]) == ["tip/3", "tip/2", "tip/4"]
        assert needed(unit, []) == []


def test_a_view_is_another_where_a_column_that_it_reads_is_declared_anew() -> None:
    def declared(name: str, **changes: Any) -> SourceSpec:
        columns = tuple(msgspec.structs.replace(c, **changes) if c.name == name else c for c in TRIPS.columns)
        return msgspec.structs.replace(TRIPS, columns=columns)

    column = next(c for c in TRIPS.columns if c.type in ("decimal", "float"))
    view = msgspec.structs.replace(VIEW, entity=(column.name,))
    assert reads_alike(view, TRIPS, declared(column.name, description="said better"))
    assert not reads_alike(view, TRIPS, declared(column.name, type="string"))
    assert reads_alike(msgspec.structs.replace(VIEW, entity=()), TRIPS, declared(column.name, type="string"))


def test_erasing_reaches_what_is_derived() -> None:
    from flyball.define.spec import DeriveSpec
    from flyball.loop.reach import with_derived

    column = TRIPS.columns[0].name
    first = msgspec.structs.replace(TRIPS, name="Long", derive=DeriveSpec(source="Trips"))
    second = msgspec.structs.replace(TRIPS, name="Longest", derive=DeriveSpec(source="Long"))
    sources = {spec.name: spec for spec in (second, first, TRIPS)}
    assert with_derived([("Trips", column)], sources) == [("Trips", column), ("Long", column), ("Longest", column)]
    with pytest.raises(NotFoundError) as caught:
        with_derived([("Tirps", column)], sources)
    assert caught.value.code == "source_not_found"
