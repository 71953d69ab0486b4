from __future__ import annotations

import pytest

from flyball.features.confidence import told, upper_bound

# Upper limits of 90 % two-sided intervals (so 95 % one-sided) of Clopper and Pearson, from the quantiles of the beta
# distribution: B(0.95; k + 1, n - k).
TABLE = [
    (0, 10, 0.2588655509),
    (1, 10, 0.3941633024),
    (5, 10, 0.7775588989),
    (9, 10, 0.9948838031),
    (2, 100, 0.0616197),
    (0, 100_000, 2.9957e-5),
    (50, 1000, 0.0629),
]


@pytest.mark.parametrize(("mismatched", "compared", "right"), TABLE)
def test_the_bound_is_that_of_the_tables(mismatched: int, compared: int, right: float) -> None:
    assert upper_bound(mismatched, compared) == pytest.approx(right, rel=2e-3)


def test_the_bound_is_the_quantile_of_the_beta_distribution() -> None:
    stats = pytest.importorskip("scipy.stats")
    for compared in (1, 7, 100, 12_345, 1_000_000):
        for mismatched in {0, 1, 3, compared // 100, compared // 2, compared - 1}:
            if 0 <= mismatched < compared:
                right = float(stats.beta.ppf(0.95, mismatched + 1, compared - mismatched))
                assert upper_bound(mismatched, compared) == pytest.approx(right, rel=1e-9)


def test_nothing_compared_rules_nothing_out() -> None:
    assert upper_bound(0, 0) == 1.0
    assert upper_bound(4, 4) == 1.0
    assert told(0, 0) == "nothing was compared yet"


def test_without_a_mismatch_it_is_the_rule_of_three() -> None:
    assert upper_bound(0, 100_000) == pytest.approx(3 / 100_000, rel=0.01)
    assert told(0, 100_000) == "≤ 3/100000 = 3e-05 at 95 %"
    assert told(3, 1000).startswith("≤ 0.0077")
