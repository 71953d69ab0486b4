"""Reference profiles: bins that outliers do not move, and counts that add up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flyball.monitoring.profile import BINS, binned, profile


def test_a_profile_is_plain_json_with_counts_of_the_reference() -> None:
    random = np.random.default_rng(0)
    matrix = np.column_stack([random.normal(size=3200), random.integers(0, 3, 3200)])
    found = profile(matrix, ["x", "c"], ["c"], {"c": ("a", "b", "z")}, random.random(3200))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(found["features"]["x"]["edges"]) == BINS + 1
    counts = found["counts"]["features"]["x"]
    assert counts[:2] == [0, 0]
    assert all(90 <= count <= 110 for count in counts[2:-1])
    assert sum(found["counts"]["features"]["c"]) == 3200
    assert found["counts"] == binned(found, ["x", "c"], matrix, None) | {"score": found["counts"]["score"]}


def test_a_stored_profile_is_read_by_name_not_by_position() -> None:
    matrix = np.column_stack([np.arange(100.0), np.arange(100.0) + 1_000])
    found = profile(matrix, ["z", "a"], [], {})
    stored = json.loads(json.dumps(found, sort_keys=True))
    assert binned(stored, ["z", "a"], matrix)["features"] == found["counts"]["features"]


def test_an_outlier_moves_no_edge_but_the_last() -> None:
    values = np.linspace(0, 1, 3200)
    spoiled = values.copy()
    spoiled[-1] = 1e12
    calm = profile(values[:, None], ["x"], [], {})["features"]["x"]["edges"]
    wild = profile(spoiled[:, None], ["x"], [], {})["features"]["x"]["edges"]
    assert wild[:-1] == calm[:-1]


def test_nulls_values_below_and_values_above_are_counted_apart() -> None:
    found = profile(np.arange(100.0)[:, None], ["x"], [], {})
    online = np.array([np.nan, -1.0, 1e9, np.inf, -np.inf, 50.0])[:, None]
    counts = binned(found, ["x"], online)["features"]["x"]
    assert (counts[0], counts[1], counts[-1]) == (1, 2, 2)
    assert sum(counts) == 6


def test_a_constant_feature_has_a_bin_of_its_own() -> None:
    found = profile(np.full((10, 1), 3.0), ["x"], [], {})
    assert found["counts"]["features"]["x"] == [0, 0, 10, 0]
    assert binned(found, ["x"], np.array([[2.9], [3.0], [3.1]]))["features"]["x"] == [0, 1, 1, 1]


def test_a_feature_of_few_values_has_a_bin_for_each() -> None:
    found = profile(np.array([0.0] * 90 + [1.0] * 10)[:, None], ["x"], [], {})
    assert found["counts"]["features"]["x"] == [0, 0, 90, 10, 0]


def test_a_feature_that_was_always_null_counts_what_is_known_later() -> None:
    found = profile(np.full((5, 1), np.nan), ["x"], [], {})
    assert found["counts"]["features"]["x"] == [5, 0, 0]
    assert binned(found, ["x"], np.array([[1.0], [np.nan]]))["features"]["x"] == [1, 0, 1]


def test_an_unknown_category_is_other() -> None:
    found = profile(np.array([[0.0], [1.0], [np.nan]]), ["c"], ["c"], {"c": ("a", "b")})
    assert found["counts"]["features"]["c"] == [1, 1, 1, 0]
    assert binned(found, ["c"], np.array([[7.0], [-1.0], [1.0]]))["features"]["c"] == [0, 0, 1, 2]


def test_scores_of_several_classes_are_profiled_class_by_class() -> None:
    score = np.random.default_rng(0).dirichlet([1, 1, 1], 200)
    found = profile(np.zeros((200, 1)), ["x"], [], {}, score)
    assert [sum(counts) for counts in found["counts"]["score"]] == [200, 200, 200]


def test_an_empty_matrix_has_a_profile() -> None:
    found = profile(np.zeros((0, 1)), ["x"], [], {})
    assert binned(found, ["x"], np.zeros((3, 1)))["rows"] == 3


FLOATS = st.one_of(st.floats(-10, 10), st.just(float("nan")), st.just(1e300), st.sampled_from([0.0, 1.0]))


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(0, 80), st.just(1)), elements=FLOATS),
    arrays(np.float64, st.tuples(st.integers(0, 30), st.just(1)), elements=FLOATS),
    st.integers(0, 30),
)
def test_every_row_is_counted_once_and_counts_of_parts_add_up(
    reference: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    online: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    cut: int,
) -> None:
    with np.errstate(over="ignore"):
        found = profile(reference, ["x"], [], {})
    whole = binned(found, ["x"], online)["features"]["x"]
    parts = [binned(found, ["x"], part)["features"]["x"] for part in (online[:cut], online[cut:])]
    assert sum(whole) == len(online)
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    counts = found["counts"]["features"]["x"]
    assert (counts[1], counts[-1]) == (0, 0)


@pytest.mark.parametrize("edge", [0, 5, 10])
def test_a_value_on_an_edge_belongs_to_the_bin_that_it_begins(edge: int) -> None:
    found = profile(np.repeat(np.arange(64.0), 10)[:, None], ["x"], [], {})
    edges = found["features"]["x"]["edges"]
    counts = binned(found, ["x"], np.array([[edges[edge]]]))["features"]["x"]
    assert counts.index(1) == 2 + edge
