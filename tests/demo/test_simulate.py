import csv
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from flyball.demo.history import DIRT, PAYMENT_COLUMNS, write_history
from flyball.demo.simulate import Payments, Scenario, simulate
from flyball.kernel.times import DAY

SMALL = Scenario(history_days=10, live_days=8, shift_day=13, cards=200, merchants=60, payments_per_day=200)


@pytest.fixture(scope="module")
def payments() -> Payments:
    return simulate(SMALL)


def test_the_same_scenario_gives_the_same_payments_and_another_seed_gives_others(payments: Payments) -> None:
    again, other = simulate(SMALL), simulate(replace(SMALL, seed=SMALL.seed + 1))
    for field in fields(Payments):
        assert np.array_equal(getattr(payments, field.name), getattr(again, field.name))
    assert not np.array_equal(payments.amount[:100], other.amount[:100])


def test_payments_are_in_time_order_and_within_the_scenario(payments: Payments) -> None:
    assert np.all(np.diff(payments.time) >= 0)
    assert payments.time[0] >= SMALL.start
    assert payments.time[-1] < SMALL.ends_at


def test_history_and_live_stream_have_about_the_declared_size() -> None:
    payments, scenario = simulate(Scenario()), Scenario()
    history = int(np.searchsorted(payments.time, scenario.live_from))
    assert 60_000 <= history <= 150_000
    assert 10_000 <= len(payments) - history <= 20_000


def test_chargebacks_arrive_hours_to_days_after_their_payment(payments: Payments) -> None:
    delay = (payments.charged_back - payments.time)[payments.fraud] / DAY
    assert delay.min() > 0
    assert 0.5 < np.median(delay) < 1.0
    assert 0.9 < np.mean(delay < 3) < 1.0


def test_an_event_of_a_payment_tells_nothing_about_fraud(payments: Payments) -> None:
    assert tuple(payments.row(0)) == PAYMENT_COLUMNS
    fraud = payments.fraud
    for column in (payments.channel, payments.country):
        for value in np.unique(column):
            assert 0 < fraud[column == value].mean() < 0.3
    # Amounts of frauds lie within those of honest payments.
    assert payments.amount[fraud].min() >= payments.amount[~fraud].min()
    assert payments.amount[fraud].max() <= payments.amount[~fraud].max() * 2


def test_after_the_shift_frauds_are_smaller_and_further_apart(payments: Payments) -> None:
    before = payments.fraud & (payments.time < SMALL.shift_at)
    after = payments.fraud & (payments.time >= SMALL.shift_at + DAY)
    assert np.median(payments.amount[after]) < np.median(payments.amount[before]) / 3

    def median_gap(rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
        gaps = [np.diff(payments.time[rows & (payments.card == card)]) for card in np.unique(payments.card[rows])]
        return float(np.median(np.concatenate(gaps)))

    assert median_gap(after) > 5 * median_gap(before)


def test_a_simulation_without_fraud_is_possible() -> None:
    calm = replace(SMALL, bursts_per_day=0, bursts_after_shift=0, tests_after_shift=0)
    assert not simulate(calm).fraud.any()


def test_the_history_files_hold_good_dirty_and_doubled_rows(payments: Payments, tmp_path: Path) -> None:
    history = write_history(payments, SMALL, tmp_path, every=100)
    with history.payments.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == history.good + history.dirty + history.doubled
    assert history.dirty >= len(DIRT)
    assert len({row["id"] for row in rows}) == history.good + history.dirty
    assert sum(row["id"].startswith("x") for row in rows) == history.dirty
    assert rows[0] == payments.row(0)


def test_the_history_holds_only_chargebacks_that_had_arrived(payments: Payments, tmp_path: Path) -> None:
    history = write_history(payments, SMALL, tmp_path)
    with history.chargebacks.open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = payments.fraud & (payments.charged_back < SMALL.live_from)
    assert len(rows) == history.charged_back == known.sum()
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    late = payments.fraud & (payments.time < SMALL.live_from) & ~known
    assert late.sum() > 0


def test_the_files_are_the_same_to_the_byte_each_time(payments: Payments, tmp_path: Path) -> None:
    one = write_history(payments, SMALL, tmp_path / "one")
    two = write_history(payments, SMALL, tmp_path / "two")
    assert one.payments.read_bytes() == two.payments.read_bytes()
