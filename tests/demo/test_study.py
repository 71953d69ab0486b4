"""The bars of the demonstration, held by the simulator alone: an independent implementation must meet them too."""

import numpy as np
import pytest

from flyball.demo.simulate import Payments, Scenario
from tests.demo.study import Study, Windows, features, kolmogorov_smirnov, study

LIVE_BEFORE_SHIFT = Scenario().shift_day - Scenario().history_days


@pytest.fixture(scope="module")
def result() -> Study:
    return study(Scenario())


def test_window_features_are_worth_at_least_15_points_of_auc(result: Study) -> None:
    assert result.held_out_fraud >= 50
    assert result.auc_with_windows - result.auc_without_windows >= 0.15


def test_the_shift_costs_the_old_model_at_least_10_points(result: Study) -> None:
    assert result.auc_before_shift - result.auc_after_shift >= 0.10


def test_a_model_trained_on_days_after_the_shift_recovers_80_percent_of_what_was_lost(result: Study) -> None:
    lost = result.auc_before_shift - result.auc_after_shift
    assert result.auc_recovered - result.auc_after_shift >= 0.8 * lost
    assert result.auc_recovered - result.auc_old_after_recovery >= 0.10


def test_days_before_the_shift_show_no_drift_and_days_after_it_do(result: Study) -> None:
    assert result.rows_a_day >= 500
    assert max(result.drift[:LIVE_BEFORE_SHIFT]) < 0.15
    assert min(result.drift[LIVE_BEFORE_SHIFT + 3 :]) >= 0.18
    assert max(result.drift[LIVE_BEFORE_SHIFT : LIVE_BEFORE_SHIFT + 4]) >= 0.2


def test_the_windows_of_the_study_equal_brute_force() -> None:
    rng = np.random.default_rng(3)
    time = np.sort(rng.integers(0, 3 * 86_400, 60)) * 1_000_000
    entity = rng.integers(0, 3, 60)
    values = rng.normal(size=60)
    windows = Windows(entity, time)
    hour, half_minute = 3_600_000_000, 30_000_000
    for index in range(60):
        start = (time[index] - hour) // half_minute * half_minute
        seen = (entity == entity[index]) & (time >= start) & (time < time[index])
        assert windows.count(hour)[index] == seen.sum()
        assert windows.sum(values, hour)[index] == pytest.approx(values[seen].sum())
        assert windows.distinct(entity[::-1], hour)[index] == len(set(entity[::-1][seen].tolist()))
        newest = values[seen][np.argsort(time[seen], kind="stable")][::-1]
        for nth in (1, 2):
            found = windows.nth_last(values, nth, hour)[index]
            assert np.isnan(found) if len(newest) < nth else found == newest[nth - 1]


def test_kolmogorov_smirnov_is_zero_for_the_same_and_one_for_disjoint_values() -> None:
    values = np.arange(100.0)
    assert kolmogorov_smirnov(values, values) == 0
    assert kolmogorov_smirnov(values, values + 1_000) == pytest.approx(1.0, abs=0.06)


def test_no_feature_of_the_study_reads_the_chargeback() -> None:
    count = 50
    zeros = np.zeros(count, dtype=np.int64)
    time = np.arange(count, dtype=np.int64) * 1_000_000
    columns = {"card": zeros, "merchant": zeros, "amount": zeros + 100, "channel": zeros, "country": zeros}
    plain = features(Payments(**columns, time=time, charged_back=zeros))
    marked = features(Payments(**columns, time=time, charged_back=time + 1))
    for name, column in plain.items():
        assert np.array_equal(column, marked[name], equal_nan=True)
