"""Routing: shares by weight, keys that stay, propensities that are what they say."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.serving.plan import Route, ServicePlan
from flyball.serving.router import choose, key_of, propensity, unit_of


def service(*weights: int, salt: str = "s", key: tuple[str, ...] = ()) -> ServicePlan:
    routes = tuple(Route(version=f"m/{i}", digest="", weight=w, arm=str(i)) for i, w in enumerate(weights))
    return ServicePlan(routes=routes, salt=salt, key=key)


@settings(max_examples=20, deadline=None)
@given(weight=st.integers(200, 9_800), salt=st.text(max_size=80))
def test_shares_are_the_weights(weight: int, salt: str) -> None:
    plan = service(10_000 - weight, weight, salt=salt)
    counts = Counter(choose(plan, str(i).encode()).arm for i in range(4_000))
    expected = weight / 10_000
    deviation = (expected * (1 - expected) / 4_000) ** 0.5
    assert abs(counts["1"] / 4_000 - expected) < 6 * deviation
    assert propensity(plan.routes[1]) == expected


@given(before=st.integers(0, 10_000), more=st.integers(0, 10_000), unit=st.binary(max_size=20))
def test_a_growing_canary_only_gains_keys(before: int, more: int, unit: bytes) -> None:
    after = min(10_000, before + more)
    if choose(service(10_000 - before, before), unit).arm == "1":
        assert choose(service(10_000 - after, after), unit).arm == "1"


def test_a_route_without_weight_gets_nothing_and_another_salt_draws_anew() -> None:
    assert {choose(service(0, 10_000), bytes([i])).arm for i in range(256)} == {"1"}
    first = [choose(service(5_000, 5_000, salt="a"), bytes([i])).arm for i in range(256)]
    other = [choose(service(5_000, 5_000, salt="b"), bytes([i])).arm for i in range(256)]
    assert first != other


def test_a_key_is_whole_or_none() -> None:
    plan = service(10_000, key=("a", "b"))
    assert key_of(plan, {"b": 2, "a": "x", "c": 3}) == {"a": "x", "b": 2}
    assert key_of(plan, {"a": "x"}) is None
    assert key_of(plan, {"a": "x", "b": [1]}) is None
    assert key_of(service(10_000), {"a": 1}) is None
    assert unit_of({"a": 1, "b": 2}, "p_1") == unit_of({"a": 1, "b": 2}, "p_2") != unit_of(None, "p_1")
