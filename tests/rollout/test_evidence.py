"""The e-process holds its level under continuous looking, and is fast where a canary is broken."""

from __future__ import annotations

import doctest
import random

import flyball.rollout.evidence as evidence
from flyball.rollout.evidence import ArmCounts, e_value

ALPHA = 0.05


def simulate(seed: int, *, ratio: float, requests: int = 6_000, look: int = 50) -> int | None:
    """The request at which a canary is aborted, or None: weights ramp 5 → 10 → 25 → 50 %, while the error rate of
    both arms drifts from 1 to 6 %."""
    rng = random.Random(seed)
    errors: dict[tuple[str, int], int] = {}
    for i in range(requests):
        weight = (500, 1_000, 2_500, 5_000)[4 * i // requests]
        arm = "canary" if rng.random() < weight / 10_000 else "stable"
        base = 0.01 + 0.05 * i / requests
        if rng.random() < base * (ratio if arm == "canary" else 1.0):
            errors[arm, weight] = errors.get((arm, weight), 0) + 1
        if (i + 1) % look == 0 and _value(errors) >= 1 / ALPHA:
            return i + 1
    return None


def _value(errors: dict[tuple[str, int], int]) -> float:
    return e_value(ArmCounts(arm=arm, weight=weight, errors=count) for (arm, weight), count in errors.items())


def test_the_docstring_is_true() -> None:
    assert doctest.testmod(evidence).failed == 0


def test_a_good_canary_is_aborted_at_most_at_the_stated_rate_under_ramping_weights_and_drift() -> None:
    false_aborts = sum(simulate(seed, ratio=1.0) is not None for seed in range(150))
    assert false_aborts <= 14  # 150 x 0.05 = 7.5 expected at most; 15 or more has probability below 1 %


def test_a_better_canary_is_hardly_ever_aborted() -> None:
    assert sum(simulate(seed, ratio=0.5) is not None for seed in range(30)) <= 1


def test_a_canary_with_four_times_the_errors_is_caught() -> None:
    assert sum(simulate(seed, ratio=4.0) is not None for seed in range(20)) >= 19


def test_a_canary_that_always_fails_is_caught_after_a_handful() -> None:
    for weight, most in ((100, 3), (500, 3), (2_500, 6), (5_000, 12)):
        needed = next(n for n in range(1, 50) if e_value([ArmCounts(arm="canary", weight=weight, errors=n)]) >= 100)
        assert needed <= most


def test_where_all_traffic_goes_to_one_arm_nothing_is_learned() -> None:
    assert e_value([ArmCounts(arm="canary", weight=10_000, errors=50)]) == 1.0
    assert e_value([ArmCounts(arm="stable", weight=0, errors=50)]) == 1.0
    assert e_value([]) == 1.0


def test_overwhelming_evidence_is_infinite_and_not_an_overflow() -> None:
    assert e_value([ArmCounts(arm="canary", weight=100, errors=100_000)]) == float("inf")
