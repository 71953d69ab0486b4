from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from flyball.define.spec import ColumnSpec, FeatureSpec
from flyball.features.accumulator import Floats
from flyball.features.audit import Audited, Effect, Tally, audit, entity_of, position
from flyball.features.causes import Cause
from flyball.features.recompute import Served
from flyball.kernel.times import DAY, HOUR
from tests.features.faults import DEFINITION, cases, history, inject, known, world

WORLDS, ROWS = 8, 40
INJECTED = [*Cause]


def outcome(cause: Cause | None, seed: int) -> Audited:
    made = world(seed)
    found = cases(made, ROWS)
    arrived: dict[int, dict[str, object]] = {}
    records = [inject(cause, made, case, arrived) for case in found]
    if cause is Cause.RETENTION:
        made.kept = max(r.at for r in records) - made.draw.choice([2, 6, 12]) * HOUR
    elif cause is Cause.NUMERIC and made.draw.random() < 0.3:
        made.kept = min(e.t for e in made.events) - DAY  # rows are taken away here, but none that matter
    return audit(DEFINITION, records, history(made, arrived=arrived), known=known(made))


def test_what_was_served_rightly_has_no_mismatch() -> None:
    compared = 0
    for seed in range(6):
        found = outcome(None, seed)
        assert found.examples == ()
        compared += found.compared
    assert compared == 6 * ROWS * len(DEFINITION.features)


def test_injected_faults_of_each_cause_are_classified(capsys: pytest.CaptureFixture[str]) -> None:
    matrix: dict[Cause, Counter[str]] = {}
    for cause in INJECTED:
        counts: Counter[str] = Counter()
        for seed in range(WORLDS):
            for tally in outcome(cause, 1000 + seed).features.values():
                counts.update(tally.causes)
        matrix[cause] = counts
    with capsys.disabled():
        sys.stdout.write("\ninjected \\ named     " + " ".join(f"{c.value[:9]:>9}" for c in Cause) + "    right\n")
        for cause, counts in matrix.items():
            right = counts[cause.value] / counts.total()
            row = " ".join(f"{counts[c.value]:>9}" for c in Cause)
            sys.stdout.write(f"{cause.value:20} {row}   {right:6.1%}\n")
    for cause, counts in matrix.items():
        assert counts.total() > 100, cause
        assert counts[cause.value] >= 0.95 * counts.total(), (cause, counts)


@pytest.mark.parametrize("spread", [100.0, 1.0, 1e-3])
def test_deviations_of_large_floats_are_right_as_far_as_floats_can_hold_them(spread: float) -> None:
    made = world(5)
    for values in {id(event.values): event.values for event in made.events}.values():
        values["score"] = 1.7e9 + made.draw.uniform(0, spread)
    std = ["view", "Card", "std_6h", ["card"]]
    twice = FeatureSpec(name="twice", expr=["mul", std, ["lit", 2.0]])
    definition = replace(DEFINITION, features=(*DEFINITION.features, twice))
    records = []
    for case in cases(made, 60):
        value = case.record.features["Card.std_6h"]
        doubled = None if value is None else 2.0 * value
        records.append(replace(case.record, features=dict(case.record.features) | {"twice": doubled}))
    found = audit(definition, records, history(made), known=known(made))
    assert found.examples == ()
    assert found.compared == 60 * len(definition.features)
    wrong = [
        replace(r, features={n: v * (1 + 1e-4) if v and n == "twice" else v for n, v in r.features.items()})
        for r in records
    ]
    broken = audit(definition, wrong, history(made), known=known(made)).features
    assert (broken["twice"].mismatched > 40) is (spread > 1e-3), "the last has no four digits that are right"
    assert broken["Card.std_6h"].mismatched == 0


def test_the_effect_on_the_prediction_is_that_of_the_values_that_differ() -> None:
    made = world(3)
    record = cases(made, 1)[0].record
    wrong = replace(record, features=dict(record.features) | {"amount": 12.0})

    def score(matrix: Floats) -> Floats:
        return np.asarray(np.nan_to_num(matrix).sum(axis=1))

    found = audit(DEFINITION, [wrong, record], history(made), known=known(made), score=score)
    apart = abs(12.0 - float(record.features["amount"]))
    assert found.mismatched == 1
    assert found.effect == Effect(rows=1, total=pytest.approx(apart), largest=pytest.approx(apart))  # type: ignore[arg-type]
    (example,) = found.examples
    assert (example.feature, example.served, example.prediction) == ("amount", 12.0, record.id)
    assert found.features["amount"].mismatched == 1
    no_runtime = audit(DEFINITION, [wrong], history(made), known=known(made), score=lambda matrix: None)
    assert no_runtime.effect.mean is None


def test_entities_that_are_pii_are_found_by_their_digests() -> None:
    made = world(4)
    records = [case.record for case in cases(made, 20)]
    pii = tuple(replace_pii(c) if c.name == "card" else c for c in DEFINITION.columns)
    definition = replace(DEFINITION, columns=pii)
    sealed = [replace(r, inputs=dict(r.inputs) | {"card": seal(r.inputs["card"])}) for r in records]
    found = audit(definition, sealed, history(made), known=known(made), seal=seal)
    assert (found.mismatched, found.compared) == (0, 20 * len(DEFINITION.features))
    wrong = replace(sealed[0], features=dict(sealed[0].features) | {"Card.n_1h": 77.0})
    (example,) = audit(definition, [wrong], history(made), known=known(made), seal=seal).examples
    assert example.entity == {"card": seal(records[0].inputs["card"])}


def test_a_value_that_is_a_digest_is_equal_or_skipped() -> None:
    made = world(4)
    record = cases(made, 1)[0].record
    shown = dict(record.features) | {"amount": seal(record.features["amount"]), "Card.n_1h": "pii:other"}
    found = audit(DEFINITION, [replace(record, features=shown)], history(made), known=known(made), seal=seal)
    assert found.mismatched == 0
    assert found.features["amount"] == Tally(compared=1)
    assert found.features["Card.n_1h"] == Tally(skipped={"pii": 1})


def test_all_predictions_of_an_entity_have_one_place() -> None:
    record = Served(id="a", at=1, inputs={"card": "c1", "amount": "1.00"}, features={}, lsn={}, known_through={})
    other = replace(record, id="b", at=2, inputs={"card": "c1", "amount": "2.00"})
    assert entity_of(DEFINITION, record) == entity_of(DEFINITION, other) == {"card": "c1"}
    places = [position({"card": f"c{n}"}) for n in range(2000)]
    assert 0.0 <= min(places) < max(places) < 1.0
    assert abs(sum(place < 0.05 for place in places) / 2000 - 0.05) < 0.02


def test_each_service_and_period_has_other_places() -> None:
    cards = [{"card": f"c{n}"} for n in range(40)]
    sampled = [frozenset(c["card"] for c in cards if position(c, "s", day) < 0.05) for day in range(200)]
    assert len(set().union(*sampled)) == len(cards), "in time each one is sampled"
    assert position(cards[0], "s", 1) == position(cards[0], "s", 1) != position(cards[0], "other", 1)


def seal(value: object) -> object:
    return None if value is None else f"pii:{hash((7, value)):x}"


def replace_pii(column: ColumnSpec) -> ColumnSpec:
    return msgspec.structs.replace(column, pii=True)
