"""The kernel gives what a walk from the root gives, on random trees of every kind and hostile rows."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.kernel.errors import InvalidError
from flyball.serving import trees
from flyball.serving.trees import Ensemble, TreeModel, kernel
from flyball.serving.trees.links import Link, LinkKind
from tests.serving.trees import walk


def agrees(ensemble: Ensemble, rows: int, seed: int) -> None:
    model = TreeModel(ensemble)
    x = walk.random_rows(ensemble, rows, seed)
    reached = walk.leaves(ensemble, x)
    np.testing.assert_array_equal(model.leaves(x), reached)
    np.testing.assert_array_equal(model.raw(x), walk.sums(ensemble, reached))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    leaves=st.sampled_from([1, 2, 8, 9, 31, 32, 33, 64, 65, 150]),
    features=st.integers(1, 7),
    classes=st.sampled_from([1, 1, 2, 5]),
    shared=st.booleans(),
    rows=st.sampled_from([1, 2, 7, 40, 64, 65, 128, 130, 200]),
)
def test_random_ensembles_give_what_a_walk_gives(
    seed: int, leaves: int, features: int, classes: int, shared: bool, rows: int
) -> None:
    agrees(
        walk.random_ensemble(seed, trees=9, leaves=leaves, features=features, classes=classes, shared=shared),
        rows,
        seed,
    )


@pytest.mark.parametrize("rows", [1, 3, 64, 129])
def test_trees_of_more_than_256_leaves_are_walked_beside_small_ones(rows: int) -> None:
    agrees(walk.random_ensemble(1, trees=6, leaves=900, features=4, classes=2, shared=False), rows, 2)


def test_a_feature_of_more_than_255_thresholds_takes_several_columns() -> None:
    agrees(walk.random_ensemble(3, trees=60, leaves=60, features=1, classes=1, shared=False), 300, 4)


def test_an_ensemble_of_many_classes_or_of_no_tree_is_scored() -> None:
    agrees(walk.random_ensemble(5, trees=120, leaves=12, features=3, classes=60, shared=False), 70, 6)
    none = walk.random_ensemble(7, trees=0, leaves=1, features=3, classes=2, shared=False)
    agrees(none, 5, 8)


def test_a_row_scores_the_same_in_any_company() -> None:
    ensemble = walk.random_ensemble(9, trees=20, leaves=31, features=5, classes=3, shared=True)
    model = TreeModel(ensemble)
    x = walk.random_rows(ensemble, 300, 10)
    whole = model.predict(x)
    for size in (1, 2, 5, 63, 64, 65, 127, 128, 129, 191, 193, 256, 257):
        np.testing.assert_array_equal(model.predict(x[:size]), whole[:size])
    assert model.predict(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("kind", list(LinkKind))
def test_links_are_what_they_say(kind: LinkKind) -> None:
    plain = walk.random_ensemble(11, trees=7, leaves=9, features=3, classes=3, shared=False)
    plain = dataclasses.replace(plain, single=False, divisor=2.0)
    x = walk.random_rows(plain, 100, 12)
    raw = TreeModel(plain).raw(x) / 2.0
    power = np.exp(raw - raw.max(axis=1, keepdims=True))
    expected = {
        LinkKind.IDENTITY: raw,
        LinkKind.SIGMOID: 1 / (1 + np.exp(-0.5 * raw)),
        LinkKind.EXP: np.exp(raw),
        LinkKind.SOFTMAX: power / power.sum(axis=1, keepdims=True),
        LinkKind.LOG1P_EXP: np.log1p(np.exp(raw)),
        LinkKind.SIGNED_SQUARE: np.sign(raw) * raw * raw,
        LinkKind.STEP: (raw > 0).astype(float),
    }[kind]
    linked = dataclasses.replace(plain, link=Link(kind=kind, scale=0.5))
    np.testing.assert_allclose(TreeModel(linked).predict(x), expected, rtol=1e-14, atol=1e-300)


def test_matrices_of_any_layout_are_scored_and_nothing_is_compiled_for_them() -> None:
    ensemble = walk.random_ensemble(13, trees=5, leaves=9, features=4, classes=1, shared=False)
    model = TreeModel(ensemble)
    x = walk.random_rows(ensemble, 50, 14)
    expected = model.predict(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    apart = np.zeros((50, 8))
    apart[:, ::2] = x
    for given_as in (frozen, np.asfortranarray(x), apart[:, ::2], np.frombuffer(x.tobytes()).reshape(x.shape)):
        np.testing.assert_array_equal(model.predict(given_as), expected)
    assert len(kernel.predict.signatures) == 1  # type: ignore[attr-defined]


def test_several_threads_may_score_at_once() -> None:
    ensemble = walk.random_ensemble(15, trees=30, leaves=31, features=5, classes=1, shared=False)
    model = TreeModel(ensemble)
    x = walk.random_rows(ensemble, 1000, 16)
    expected = model.predict(x)
    wrong: list[int] = []

    def score() -> None:
        wrong.extend(i for i in range(20) if not np.array_equal(model.predict(x), expected))

    threads = [threading.Thread(target=score) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_matrix_of_the_wrong_width_or_with_what_the_model_refuses_is_an_error() -> None:
    ensemble = walk.random_ensemble(17, trees=3, leaves=9, features=4, classes=1, shared=False)
    with pytest.raises(InvalidError, match="4 features"):
        TreeModel(ensemble).predict(np.zeros((2, 5)))
    complete = TreeModel(dataclasses.replace(ensemble, complete=True))
    complete.predict(np.zeros((1, 4)))
    with pytest.raises(InvalidError) as caught:
        complete.predict(np.full((1, 4), np.nan))
    assert caught.value.code == "missing_value"


def test_a_format_that_nobody_knows_is_named() -> None:
    with pytest.raises(InvalidError, match=r"'lightgbn'.*did you mean 'lightgbm'"):
        trees.read("lightgbn", b"")
