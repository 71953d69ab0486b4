"""A derived source end to end: it trains, it serves, and what is served is what training computes."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from flyball.define.compile import compile_project
from flyball.define.derive import stem_of
from flyball.features.training_set import features_of
from flyball.ingest.frames import physical_schema
from flyball.kernel.errors import InvalidError
from flyball.kernel.layout import Layout
from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND, parse_time, show_time
from flyball.storage.events import LakeEvents
from flyball.storage.lake import DeltaLake
from flyball.testing import TestPlatform, platform
from tests.scenarios.taxis.project import taxis

NOW = parse_time("2026-02-01T00:00:00Z")
COMPANIES = ["a", "b", "c"]
LAGS = [0, 0, SECOND, 7 * MINUTE, 2 * HOUR]


def trip(number: int, draw: random.Random, at: int) -> dict[str, Any]:
    fare = Decimal(draw.randint(500, 6000)) / 100
    tips = (fare * draw.choice([0, 1, 3]) / 10).quantize(Decimal("0.01"))
    company = draw.choice([*COMPANIES, None])
    return {"id": f"t{number}", "company": company, "fare": str(fare), "tips": str(tips), "at": show_time(at)}


def company(draw: random.Random, at: int) -> dict[str, Any]:
    rate = f"{draw.randint(80, 120) / 100:.2f}"
    return {
        "company": draw.choice(COMPANIES),
        "area": draw.choice(["north", "south"]),
        "rate": rate,
        "at": show_time(at),
    }


def load(running: TestPlatform, draw: random.Random) -> None:
    running.load("Companies", [company(draw, NOW - 12 * DAY + n * HOUR) for n in range(0, 280, 5)])
    running.load("Trips", [trip(-n, draw, NOW - 11 * DAY + n * HOUR // 2) for n in range(1, 500)])


def derived_name(running: TestPlatform) -> list[str]:
    return [s["name"] for s in running.status()["sources"] if stem_of(s["name"]) == "BigTrips"]


def test_a_model_over_a_derived_source_serves_what_it_was_trained_on() -> None:
    draw = random.Random(11)
    project = taxis()
    spec = compile_project(project)
    model = spec.model("tip")
    with platform(project, at=NOW) as running:
        load(running, draw)
        running.train("tip")
        asked: dict[str, tuple[dict[str, Any], int]] = {}
        for number in range(1, 25):
            running.advance(draw.choice([SECOND, MINUTE, HOUR]))
            now = running.clock.now()
            if draw.random() < 0.5:
                running.push("Companies", [company(draw, now - draw.choice(LAGS))])
            running.push("Trips", [trip(100 * number + n, draw, now - draw.choice(LAGS)) for n in range(4)])
            fields: dict[str, Any] = {"company": draw.choice(COMPANIES), "fare": "31.50", "due": 30.5, "area": "north"}
            reply = running.predict("tip", **fields)
            assert (reply["rung"], reply["features"]) == ("model", "fresh")
            asked[reply["prediction_id"]] = (fields, now)
            running.clock.advance_to(now + 1)
        served = [running._control.prediction(id)["prediction"] for id in asked if running.prediction(id)]
        running._ingest.flush()
        source = spec.source(model.rows)
        schema = physical_schema(source)
        columns: dict[str, list[Any]] = {name: [None] * len(served) for name in schema}
        columns["company"] = [asked[one["id"]][0]["company"] for one in served]
        columns["fare"], columns["due"] = [3150] * len(served), [30.5] * len(served)
        columns["area"] = ["north"] * len(served)
        columns["_event_time"] = [asked[one["id"]][1] for one in served]
        reader = LakeEvents(DeltaLake(Layout(running._folder).lake), spec, {})
        rows = pl.DataFrame(columns, schema=schema)
        again = features_of(model.features, spec, source, rows, reader, horizon={}, at=2**62)
        for place, one in enumerate(served):
            for feature, vector in zip(model.features, again.vectors, strict=True):
                found = one["features"][feature.name]
                if not vector.valid[place]:
                    assert found is None, feature.name
                    continue
                value = vector.values[place]
                value = feature.categories.index(value) if feature.categories else value
                assert found == pytest.approx(value, rel=1e-12), feature.name
        assert {one["features"]["Habits.big_1d"] for one in served} != {0.0}


def test_a_changed_definition_is_another_source_and_the_old_one_is_kept_up_while_it_is_served() -> None:
    draw = random.Random(5)
    with platform(taxis(20), at=NOW) as running:
        load(running, draw)
        running.train("tip")
        (old,) = derived_name(running)
        plan = running.apply(taxis(25))
        changes = {(c["action"], stem_of(c["name"])) for c in plan["changes"] if c["kind"] == "source"}
        assert changes == {("add", "BigTrips"), ("remove", "BigTrips")}
        both = derived_name(running)
        assert len(both) == 2
        running.advance("1m")
        running.push("Trips", [trip(900 + n, draw, running.clock.now()) for n in range(30)])
        rows = {s["name"]: s["derive"] for s in running.status()["sources"] if s["name"] in both}
        assert {state["behind"] for state in rows.values()} == {0}
        assert running.predict("tip", company="a", fare="30.00", due=30.0, area="north")["features"] == "fresh"
        running.train("tip")
        running.advance("1h")
        assert set(both) <= set(derived_name(running)), "the version before stays, so that it can be rolled back to"
        assert running.predict("tip", company="a", fare="30.00", due=30.0, area="north")["rung"] == "model"
        with pytest.raises(InvalidError, match="BigTrips is derived from Trips"):
            running.push("BigTrips", [{"id": "x"}])
        assert old in both
