"""How many workers: within bounds, monotone in the load, up at once, down slowly, steady for a steady load."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.kernel.errors import InvalidError
from flyball.serving.scaling import Decision, Observation, ScalingConfig, ScalingState, wanted

CONFIG = ScalingConfig(minimum=1, maximum=10)
STEP = 0.5
LOADS = st.lists(st.tuples(st.floats(0, 5_000), st.floats(0, 12)), min_size=1, max_size=60)
CONFIGS = st.builds(
    lambda low, more, rows: ScalingConfig(minimum=low, maximum=low + more, rows_per_worker=rows),
    st.integers(1, 5),
    st.integers(0, 10),
    st.floats(1, 500),
)


def run(
    loads: list[tuple[float, float]],
    config: ScalingConfig = CONFIG,
    *,
    load_seconds: float = 0.1,
    state: ScalingState | None = None,
    workers: int = 0,
    start: float = 0.0,
) -> list[Decision]:
    """Decisions for loads (rows in flight, processors used) a step apart; what is wanted is there at the next step."""
    state = state or ScalingState()
    workers, decided = workers or config.minimum, []
    busy = state.samples[-1].busy_seconds if state.samples else 0.0
    for step, (rows, used) in enumerate(loads):
        busy += used * STEP
        seen = Observation(in_flight=rows, busy_seconds=busy, workers=workers, load_seconds=load_seconds)
        decided.append(wanted(seen, state, config, start + step * STEP))
        state, workers = decided[-1].state, decided[-1].wanted
    return decided


@given(loads=LOADS, config=CONFIGS, load_seconds=st.floats(0, 100))
def test_what_is_wanted_is_within_the_bounds(
    loads: list[tuple[float, float]], config: ScalingConfig, load_seconds: float
) -> None:
    for decision in run(loads, config, load_seconds=load_seconds):
        assert config.minimum <= decision.wanted <= config.maximum
        assert decision.demand >= 1


@given(loads=LOADS, more=st.floats(1, 10), config=CONFIGS)
def test_a_larger_load_never_wants_fewer(loads: list[tuple[float, float]], more: float, config: ScalingConfig) -> None:
    less = run(loads, config)
    larger = run([(rows * more, used * more) for rows, used in loads], config)
    assert all(a.demand <= b.demand and a.wanted <= b.wanted for a, b in zip(less, larger, strict=True))


@given(loads=LOADS, more=st.floats(0, 1_000))
def test_more_rows_at_the_moment_never_want_fewer(loads: list[tuple[float, float]], more: float) -> None:
    *before, (rows, used) = loads
    less, larger = run([*before, (rows, used)])[-1], run([*before, (rows + more, used)])[-1]
    assert less.demand <= larger.demand
    assert less.wanted <= larger.wanted


@settings(deadline=None, max_examples=40)
@given(rows=st.floats(0, 2_000), used=st.floats(0, 9), first=st.integers(1, 10), load_seconds=st.floats(0, 30))
def test_a_constant_load_settles_and_stays(rows: float, used: float, first: int, load_seconds: float) -> None:
    decided = run([(rows, used)] * 600, workers=first, load_seconds=load_seconds)
    numbers = [decision.wanted for decision in decided]
    changes = [b - a for a, b in zip([first, *numbers], numbers, strict=False)]
    ups = [at for at, change in enumerate(changes) if change > 0]
    downs = [at for at, change in enumerate(changes) if change < 0]
    assert not ups or not downs
    need = max(rows / CONFIG.rows_per_worker, used / CONFIG.busy_share)
    assert numbers[-1] >= min(need, CONFIG.maximum) - 1e-6
    assert len(set(numbers[-100:])) == 1


@given(need=st.floats(1.01, 10))
def test_a_short_demand_is_met_at_once_after_a_long_calm(need: float) -> None:
    calm = run([(0.0, 0.0)] * 200)[-1]
    rows = need * CONFIG.rows_per_worker
    (*_, after) = run([(rows, 0.0)] * 5, state=calm.state, workers=calm.wanted, start=100.0)
    assert after.wanted >= math.ceil(round(need, 9))


def test_processors_that_are_busy_want_more_workers_too() -> None:
    assert run([(1.0, 0.0), *[(1.0, 1.4)] * 6])[-1].wanted == 2


def test_a_rise_is_met_ahead_by_as_much_as_a_start_takes() -> None:
    rising = [(step * 4.0, 0.0) for step in range(100)]
    quick, slow = run(rising, load_seconds=0.1)[-1], run(rising, load_seconds=20.0)[-1]
    assert slow.demand > quick.demand
    assert slow.demand <= 2 * quick.demand


def test_workers_leave_one_by_one_after_a_long_calm() -> None:
    busy = run([(9.5 * CONFIG.rows_per_worker, 0.0)] * 20)[-1]
    assert busy.wanted == 10
    calm = run([(0.0, 0.0)] * 400, state=busy.state, workers=10, start=10.0)
    numbers = [decision.wanted for decision in calm]
    assert numbers[: int(CONFIG.long_seconds / STEP) - 20] == [10] * (int(CONFIG.long_seconds / STEP) - 20)
    assert numbers == sorted(numbers, reverse=True)
    left = [at for at, (a, b) in enumerate(pairwise(numbers)) if b < a]
    assert all(b - a >= CONFIG.step_seconds / STEP for a, b in pairwise(left))
    assert numbers[-1] == 1


def test_a_fixed_number_stays_and_what_the_load_needs_is_told_beyond_it() -> None:
    fixed = replace(CONFIG, minimum=2, maximum=2)
    last = run([(1_280.0, 0.0)] * 10, fixed)[-1]
    assert (last.wanted, last.demand) == (2, 10)


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 1), (3, 2), (-1, -1)])
def test_bounds_that_make_no_sense_are_refused(minimum: int, maximum: int) -> None:
    with pytest.raises(InvalidError, match="MIN"):
        ScalingConfig(minimum=minimum, maximum=maximum)


def test_the_documented_formula_has_the_numbers_of_the_config() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    config = ScalingConfig()
    assert f"mean of s seconds / {config.rows_per_worker:g}," in page
    assert f"mean of s seconds / {config.busy_share:g})" in page
    assert f"`demand({config.short_seconds:g} s)`" in page
    assert f"every {config.step_seconds:g} s at most" in page
    assert f"of the last {config.long_seconds:g} s" in page
