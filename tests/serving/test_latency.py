"""What batches take, learned: never less for more rows, and the same in both directions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flyball.serving.latency import Latency

Batches = st.lists(st.tuples(st.integers(1, 5_000), st.floats(1e-6, 1.0)), min_size=1, max_size=200)


def learned(batches: list[tuple[int, float]]) -> Latency:
    latency = Latency()
    for rows, seconds in batches:
        latency.observe(rows, seconds)
    return latency


@given(batches=Batches, rows=st.lists(st.integers(1, 10_000), min_size=2, max_size=2))
def test_more_rows_are_never_expected_to_take_less(batches: list[tuple[int, float]], rows: list[int]) -> None:
    latency = learned(batches)
    few, many = sorted(rows)
    assert latency.expect(few) <= latency.expect(many) + 1e-12


@given(batches=Batches, seconds=st.floats(1e-6, 2.0), most=st.integers(1, 4_096))
def test_the_largest_batch_fits_and_one_row_more_does_not(
    batches: list[tuple[int, float]], seconds: float, most: int
) -> None:
    latency = learned(batches)
    rows = latency.largest(seconds, most=most)
    assert 0 <= rows <= most
    if rows:
        assert latency.expect(rows) <= seconds * (1 + 1e-9)
    if rows < most:
        assert latency.expect(rows + 2) > seconds * (1 - 1e-9)


def test_one_slow_batch_in_twenty_does_not_count_and_many_do() -> None:
    latency = learned([(1, 0.001)] * 63 + [(1, 1.0)])
    assert latency.expect(1) == 0.001
    for _ in range(8):
        latency.observe(1, 1.0)
    assert latency.expect(1) == 1.0


def test_a_version_that_got_faster_is_believed_after_as_many_batches_as_are_kept() -> None:
    latency = learned([(4, 1.0)] * 64 + [(4, 0.01)] * 64)
    assert latency.expect(4) == 0.01


def test_nothing_is_known_before_the_first_batch() -> None:
    latency = Latency()
    assert not latency.known
    assert latency.expect(1) == 0.0
