"""Promise 1: what a prediction was served is what training would compute for it, value by value."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from flyball.define.compile import compile_project
from flyball.define.spec import ProjectSpec, SourceSpec
from flyball.features.training_set import features_of
from flyball.ingest.frames import physical_schema
from flyball.kernel.layout import Layout
from flyball.kernel.times import MINUTE, SECOND
from flyball.storage.events import LakeEvents
from flyball.storage.lake import DeltaLake
from flyball.testing import TestPlatform, platform
from tests.features.brute import Event, answer
from tests.scenarios.market.project import market
from tests.scenarios.market.stream import CARDS, KINDS, LAGS, NOW, SHOPS, history, payment

STEPS = 40
Served = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a prediction was asked with, by its id; its record has digests where pii was."""

    fields: dict[str, Any]
    at: int


@dataclass(frozen=True, kw_only=True)
class Replayed:
    spec: ProjectSpec
    lake: DeltaLake
    asked: dict[str, Asked]
    served: list[Served]  # the records, as they are in the lake
    late: int  # events that came after one of their entity that was later


@pytest.fixture(scope="module")
def replayed() -> Any:
    """A stream with lags, ties and null keys, asked about between its batches, and at the moments of its events."""
    with platform(market(), at=NOW) as running:
        payments, chargebacks = history()
        running.load("Payments", payments[:-20])
        running.load("Chargebacks", chargebacks)
        running.load("Payments", payments[-20:])  # some of them are known only after NOW
        running.train("chargeback")
        asked, late = stream(running)
        running.prediction(next(iter(asked)))  # what was answered is collected
        running._ingest.flush()
        lake = DeltaLake(Layout(running._folder).lake)
        rows = lake.scan("predictions").collect()
        served = [record(running, id) for id in rows["id"]]
        yield Replayed(spec=compile_project(market()), lake=lake, asked=asked, served=served, late=late)


def record(running: TestPlatform, id: str) -> Served:
    found: Served = running._control.prediction(id)["prediction"]
    return found


def stream(running: TestPlatform) -> tuple[dict[str, Asked], int]:
    draw, asked, late, newest, number = random.Random(5), {}, 0, 0, 0
    waiting: list[tuple[int, dict[str, Any]]] = []
    for _ in range(STEPS):
        running.advance(draw.choice([SECOND, 3 * SECOND, MINUTE, 17 * MINUTE]))
        now = running.clock.now()
        for _ in range(draw.randrange(6)):  # some of them at one moment
            number += 1
            at = now - draw.choice([0, SECOND, SECOND, MINUTE])
            waiting.append((at + draw.choice(LAGS), payment(number, draw, at)))
        here = [row for due, row in waiting if due <= now]
        waiting = [(due, row) for due, row in waiting if due > now]
        for part in (here[: len(here) // 2], here[len(here) // 2 :]):
            if part:
                assert running.push("Payments", part)["quarantined"] == 0
        times = [row["time"] for row in here]
        late += sum(time < str(newest) for time in times)
        newest = max([str(newest), *times])
        asks = [
            {
                "card": draw.choice([*CARDS, "card-new", None]),
                "shop": draw.choice([*SHOPS, None]),
                "kind": draw.choice(KINDS),
                "amount": f"{draw.uniform(1, 300):.2f}",
            }
            for _ in range(5)
        ]
        for fields, reply in zip(asks, running.predict("chargeback", asks), strict=True):
            assert reply["rung"] == "model", reply
            assert reply["features"] == "fresh", reply
            asked[reply["prediction_id"]] = Asked(fields=fields, at=now)
        running.clock.advance_to(now + 1)  # what comes now was known after these questions
    return asked, late


def physical_rows(replayed: Replayed, source: SourceSpec) -> pl.DataFrame:
    """The questions as rows of the source, at the times they were asked."""
    given = [replayed.asked[served["id"]] for served in replayed.served]
    columns: dict[str, list[Any]] = {name: [None] * len(given) for name in physical_schema(source)}
    for name in ("card", "shop", "kind"):
        columns[name] = [one.fields[name] for one in given]
    columns["amount"] = [int(Decimal(one.fields["amount"]) * 100) for one in given]
    columns["_event_time"] = [one.at for one in given]
    return pl.DataFrame(columns, schema=physical_schema(source))


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Names whose values are not equal: to 1e-12 relative, and null only to null."""
    found = []
    for name, a in left.items():
        b = right[name]
        if (a is None) != (b is None) or (a is not None and abs(a - b) > 1e-12 * max(abs(a), abs(b))):
            found.append(f"{name}: {a} and {b}")
    return found


def test_every_logged_value_is_recomputed_from_the_lake(replayed: Replayed, capsys: pytest.CaptureFixture[str]) -> None:
    model, source = replayed.spec.model("chargeback"), replayed.spec.source("Payments")
    rows = physical_rows(replayed, source)
    end = int(rows["_event_time"].to_numpy().max())
    reader = LakeEvents(replayed.lake, replayed.spec, {})
    computed = features_of(model.features, replayed.spec, source, rows, reader, horizon={}, at=end, asof="known")
    compared, wrong = 0, []
    for n, served in enumerate(replayed.served):
        again = {
            feature.name: value(feature.categories, vector.values[n]) if vector.valid[n] else None
            for feature, vector in zip(model.features, computed.vectors, strict=True)
        }
        assert again.keys() == served["features"].keys()
        compared += len(again)
        wrong += differences(served["features"], again)
    with capsys.disabled():
        sys.stdout.write(f"\n{compared} served values: {len(wrong)} differ from the lake\n")
    assert len(replayed.served) == len(replayed.asked) == STEPS * 5
    assert replayed.late > 10, "events came late"
    assert wrong == []


def value(categories: tuple[str, ...], given: Any) -> float:
    return float(categories.index(given)) if isinstance(given, str) else float(given)


def test_every_logged_value_of_a_view_is_what_brute_force_finds_below_the_logged_horizon(
    replayed: Replayed, capsys: pytest.CaptureFixture[str]
) -> None:
    source = replayed.spec.source("Payments")
    frame = replayed.lake.read("Payments")
    events = [
        Event(lsn=row["_lsn"], t=row["_event_time"], known=row["_known_at"], values=row)
        for row in frame.iter_rows(named=True)
    ]
    compared, wrong = 0, []
    for served in replayed.served:
        asked, horizon = replayed.asked[served["id"]], served["lsn"]["Payments"]
        through = served["known_through"]["Payments"]
        seen = [e for e in events if e.lsn <= horizon and e.known <= through]
        for view in replayed.spec.views:
            entity = tuple(asked.fields[name] for name in view.entity)
            expected = answer(view, source, seen, entity, asked.at)
            for aggregate, (right, size) in zip(view.aggregates, expected, strict=True):
                found = served["features"][f"{view.name}.{aggregate.name}"]
                compared += 1
                # The deviation of equal amounts is 0 only up to the rounding of their mean.
                allowed = 1e-9 * size if aggregate.op == "std" else 1e-12 * max(size, abs(right or 0.0))
                if (found is None) != (right is None) or (right is not None and abs(found - right) > allowed):
                    wrong.append(f"{view.name}.{aggregate.name} of {entity} at {asked.at}: {found}, not {right}")
    with capsys.disabled():
        sys.stdout.write(f"\n{compared} served values of views: {len(wrong)} differ from brute force\n")
    assert compared == len(replayed.served) * sum(len(view.aggregates) for view in replayed.spec.views)
    assert wrong == []
