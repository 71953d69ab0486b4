"""What is not sound is refused before the kernel sees it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.kernel.errors import InvalidError
from flyball.serving.trees import TreeModel
from tests.serving.trees import walk

SOUND = walk.random_ensemble(1, trees=4, leaves=9, features=3, classes=2, shared=False)


def damaged(name: str, position: int, value: Any) -> Any:
    part: Any = SOUND.nodes if name in type(SOUND.nodes).__dataclass_fields__ else SOUND
    array = getattr(part, name).copy()
    array[position % len(array)] = value
    changed = dataclasses.replace(part, **{name: array})
    return changed if part is SOUND else dataclasses.replace(SOUND, nodes=changed)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(
        ["feature", "left", "right", "words_start", "words_end", "roots", "first_leaf", "tree_class", "decision"]
    ),
    position=st.integers(0, 100),
    value=st.one_of(st.integers(-40, 40), st.sampled_from([2**31 - 1, -(2**31)])),
)
def test_a_damaged_ensemble_is_refused_or_scores_within_its_leaves(name: str, position: int, value: int) -> None:
    value = value % 128 if name == "decision" else value
    try:
        model = damaged(name, position, value)
    except InvalidError:
        return
    x = walk.random_rows(model, 70, 2)
    reached = walk.leaves(model, x)
    np.testing.assert_array_equal(TreeModel(model).leaves(x), reached)


@pytest.mark.parametrize(
    ("name", "value"), [("threshold", np.nan), ("leaf", np.nan), ("base", np.inf), ("tree_class", 7)]
)
def test_numbers_that_are_none_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidError) as caught:
        damaged(name, 0, value)
    assert caught.value.code == "bad_tree_model"


def test_arrays_of_other_lengths_are_refused() -> None:
    for name in ("roots", "label", "first_leaf", "tree_class", "base"):
        with pytest.raises(InvalidError):
            dataclasses.replace(SOUND, **{name: getattr(SOUND, name)[:-1]})
    with pytest.raises(InvalidError):
        dataclasses.replace(SOUND, nodes=dataclasses.replace(SOUND.nodes, left=SOUND.nodes.left[:-1]))
