"""The split by time, what the parts hold, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.kernel.errors import InvalidError
from flyball.training.dataset import dataset, time_split, without_windows
from tests.training.conftest import MODEL, PROJECT, Rows


def test_the_last_share_by_time_is_held_out(rows: Rows) -> None:
    data = dataset(rows, MODEL, PROJECT)
    assert (len(data.train), len(data.test)) == (150, 50)
    assert data.train.t.max() < data.test.t.min()
    assert data.features == ("fare", "payment", "usual")
    assert [data.features[column] for column in data.categorical] == ["payment"]
    assert data.digest == rows.digest
    np.testing.assert_array_equal(data.test.X, rows.X[150:])
    assert data.test.frame["label"].to_list() == rows.y[150:].tolist()


def test_rows_out_of_order_are_put_in_order(rows: Rows) -> None:
    back = slice(None, None, -1)
    turned = Rows(rows.frame[back], rows.X[back], rows.y[back], rows.t[back], rows.features)
    np.testing.assert_array_equal(dataset(turned, MODEL, PROJECT).train.X, dataset(rows, MODEL, PROJECT).train.X)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=60), st.floats(0.01, 0.99))
def test_no_time_is_ever_split_and_no_part_is_empty(times: list[int], test: float) -> None:
    t = np.sort(np.array(times, dtype=np.int64))
    if t[0] == t[-1]:
        with pytest.raises(InvalidError, match="one time"):
            time_split(t, test)
        return
    cut = time_split(t, test)
    assert 0 < cut < len(t)
    assert t[cut - 1] < t[cut]


def test_pandas_gets_names_and_every_declared_category(rows: Rows) -> None:
    frame = dataset(rows, MODEL, PROJECT).train.to_pandas()
    assert list(frame.columns) == ["fare", "payment", "usual"]
    assert list(frame["payment"].cat.categories) == ["cash", "card", "other"]
    assert frame["usual"].isna().sum() == np.isnan(rows.X[:150, 2]).sum()


def test_a_null_category_is_missing_in_pandas(rows: Rows) -> None:
    X = rows.X.copy()
    X[0, 1] = np.nan
    part = dataset(dataclasses.replace(rows, X=X), MODEL, PROJECT).train
    assert part.to_pandas()["payment"].isna().tolist()[:2] == [True, False]


def test_pii_columns_do_not_reach_the_users_function(rows: Rows) -> None:
    assert "driver" in rows.frame.columns
    assert "driver" not in dataset(rows, MODEL, PROJECT).train.frame.columns


def test_features_of_the_row_itself_can_be_selected(rows: Rows) -> None:
    names = without_windows(MODEL)
    assert names == ("fare", "payment")
    smaller = dataset(rows, MODEL, PROJECT).select(names)
    assert smaller.train.X.shape == (150, 2)
    assert "usual" not in smaller.train.frame.columns
    assert smaller.categories == {"payment": ("cash", "card", "other")}


def test_why_a_training_set_is_empty_is_said(rows: Rows) -> None:
    none = Rows(rows.frame[:0], rows.X[:0], rows.y[:0], rows.t[:0], rows.features)
    left_out = {"immature": 0, "null_label": 1, "not_served": 7, "redefined": 2}
    with pytest.raises(InvalidError) as caught:
        dataset(dataclasses.replace(none, left_out=left_out), MODEL, PROJECT)
    assert "1 have no label, 7 were not served, 2 were served only by versions" in caught.value.message
    assert "mature" not in caught.value.message
    assert caught.value.hint == "flyball train tip --asof known"
    assert caught.value.details == {"left_out": {"null_label": 1, "not_served": 7, "redefined": 2}}


def test_an_empty_training_set_and_unknown_labels_are_refused(rows: Rows) -> None:
    none = Rows(rows.frame[:0], rows.X[:0], rows.y[:0], rows.t[:0], rows.features)
    with pytest.raises(InvalidError) as caught:
        dataset(none, MODEL, PROJECT)
    assert caught.value.code == "training_set_empty"
    assert "there are none that were known" in caught.value.message
    y = rows.y.copy()
    y[3] = np.nan
    with pytest.raises(InvalidError) as caught:
        dataset(dataclasses.replace(rows, y=y), MODEL, PROJECT)
    assert caught.value.code == "label_unknown"
