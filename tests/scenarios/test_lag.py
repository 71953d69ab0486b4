"""A stream that comes late, as streams do: what was served is what `known` says, and not what `event` says.

Lags are lognormal with a median of 1.5 s, cards are drawn by Zipf's law, and each reply has a vector of many features.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

import flyball as fb
from flyball.define.compile import compile_project
from flyball.features.audit import audit
from flyball.features.causes import Known, equal, is_exact
from flyball.features.recompute import Conditions, Definition, Recomputation, Served
from flyball.features.training_set import features_of
from flyball.ingest.frames import physical_schema
from flyball.kernel.layout import Layout
from flyball.kernel.times import SECOND, parse_time, show_time
from flyball.storage.events import LakeEvents
from flyball.storage.history import LakeHistory
from flyball.storage.lake import DeltaLake
from flyball.testing import platform

NOW = parse_time("2026-03-01T12:00:00Z")
CARDS, STEPS, EVENTS, ASKS = 200, 160, 20, 16
WINDOWS = ("10s", "1m", "5m", "30m", "2h", "1d")


class Payments(fb.Source, event_time="time", key="id"):
    id = fb.String()
    card = fb.String()
    amount = fb.Decimal(2)
    score = fb.Float()
    time = fb.Timestamp()


def aggregates() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for window in WINDOWS:
        found[f"n_{window}"] = fb.count(window)
        found[f"large_{window}"] = fb.count(window, where=Payments.amount > 100)
        found[f"sum_{window}"] = fb.sum(Payments.amount, window)
        found[f"mean_{window}"] = fb.mean(Payments.score, window)
        found[f"max_{window}"] = fb.max(Payments.amount, window)
        found[f"last_{window}"] = fb.last(Payments.amount, window)
        found[f"std_{window}"] = fb.std(Payments.amount, window)
    return found


_view: Any = type(fb.WindowView)
Card: Any = _view("Card", (fb.WindowView,), aggregates(), source=Payments, entity=Payments.card)
PROJECT = fb.Project("late", services=[fb.Service("vector", rows=Payments, features=[Card])])


def test_a_stream_with_lag_is_served_as_known(capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(11)
    weights = [1 / (rank + 1) ** 0.9 for rank in range(CARDS)]
    asked: list[tuple[str, int]] = []
    waiting: list[tuple[int, dict[str, Any]]] = []
    with platform(PROJECT, at=NOW) as running:
        for step in range(STEPS):
            now = running.clock.now()
            cards = draw.choices(range(CARDS), weights, k=EVENTS)
            for n, card in enumerate(cards):
                at = now - draw.randrange(2 * SECOND)
                row = {
                    "id": f"{step}-{n}",
                    "card": f"c{card}",
                    "amount": f"{draw.uniform(1, 300):.2f}",
                    "score": draw.gauss(0, 5),
                    "time": show_time(at),
                }
                waiting.append((at + int(draw.lognormvariate(0.405, 1.2) * SECOND), row))
            here = [row for due, row in waiting if due <= now]
            waiting = [(due, row) for due, row in waiting if due > now]
            if here:
                assert running.push("Payments", here)["quarantined"] == 0
            chosen = [f"c{card}" for card in draw.choices(range(CARDS), weights, k=ASKS)]
            running.predict("vector", [{"card": card} for card in chosen])
            asked += [(card, now) for card in chosen]
            running.clock.advance_to(now + draw.choice([SECOND // 2, SECOND, 4 * SECOND]))
        running.tick()
        running._ingest.flush()
        lake = DeltaLake(Layout(running._folder).lake)
        ids = lake.scan("predictions").select("id").collect()["id"]
        find = running._control._readers.predictions.find
        logged = [find(prediction) for prediction in ids]
        spec = compile_project(PROJECT)
        records = [Served.of(record) for record in logged if record is not None]
        check(records, spec, lake, running.clock.now, asked, capsys)


def check(records: list[Served], spec: Any, lake: DeltaLake, now: Any, asked: Any, capsys: Any) -> None:
    source, model = spec.source("Payments"), spec.models[0]
    assert sorted((r.inputs["card"], r.at) for r in records) == sorted(asked)
    served = np.array([[_number(r.features[f.name]) for f in model.features] for r in records], np.float64)
    definition = Definition(
        features=model.features,
        views=spec.views,
        sources=spec.sources,
        rows="Payments",
        columns=(source.column("card"),),
    )
    exact = np.array([is_exact(f, definition) for f in model.features], np.bool_)
    columns: dict[str, list[Any]] = {name: [None] * len(records) for name in physical_schema(source)}
    columns["card"] = [r.inputs["card"] for r in records]
    columns["_event_time"] = [r.at for r in records]
    rows = pl.DataFrame(columns, schema=physical_schema(source))
    reader, end = LakeEvents(lake, spec, {}), max(r.at for r in records)

    def differ(asof: Any) -> int:
        found = features_of(model.features, spec, source, rows, reader, horizon={}, at=end, asof=asof)
        again = np.column_stack([np.where(v.valid, v.values, np.nan) for v in found.vectors])
        return int((~equal(served, again, exact)).sum())

    history = LakeHistory(lake, now)
    logged = audit(definition, records, history, known=Known(others={}, kept_from=lambda source: None))
    late = Recomputation(definition, records, history).compute(Conditions(seen="event"), np.arange(len(records)))
    known, event = differ("known"), int((~equal(served, late.matrix, exact)).sum())
    touched = int((~equal(served, late.matrix, exact)).any(axis=1).sum())
    with capsys.disabled():
        sys.stdout.write(
            f"\n{served.size} served values: {known} differ from `known`, {logged.mismatched} from what their replies "
            f"saw; {event} ({event / served.size:.1%}) differ from `event`, "
            f"in {touched / len(records):.1%} of the rows\n"
        )
    assert served.size >= 100_000
    assert (known, logged.mismatched, logged.compared) == (0, 0, served.size)
    assert event > 0


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
