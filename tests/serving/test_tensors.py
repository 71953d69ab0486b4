"""Tensors of the Open Inference Protocol: JSON and bytes to arrays and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball.kernel.errors import InvalidError
from flyball.serving.tensors import DTYPES, datatype_of, output_data, read_inputs, to_bytes

NUMBERS = [name for name in DTYPES if name != "BYTES"]


@given(
    array=st.sampled_from(NUMBERS).flatmap(
        lambda name: hnp.arrays(DTYPES[name], hnp.array_shapes(min_side=0, max_side=4))
    )
)
def test_an_array_survives_both_ways(array: Any) -> None:
    described = {"name": "a", "datatype": datatype_of(array), "shape": list(array.shape)}
    raw = to_bytes(array)
    binary = {"inputs": [{**described, "parameters": {"binary_data_size": len(raw)}}]}
    np.testing.assert_array_equal(read_inputs(binary, raw)["a"], array)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        as_json = {"inputs": [output_data("a", array)]}
        np.testing.assert_array_equal(read_inputs(as_json)["a"], array)
        nested = {"inputs": [{**described, "data": array.tolist()}]}
        np.testing.assert_array_equal(read_inputs(nested)["a"], array)


@given(st.lists(st.text(), max_size=5))
def test_texts_survive_both_ways(texts: list[str]) -> None:
    array = np.array([*texts, ""], dtype=object)[:-1]
    encodable = [text for text in texts if text.encode(errors="ignore").decode() == text]
    if len(encodable) < len(texts):
        return
    raw = to_bytes(array)
    described = {"name": "a", "datatype": "BYTES", "shape": [len(texts)]}
    binary = {"inputs": [{**described, "parameters": {"binary_data_size": len(raw)}}]}
    assert read_inputs(binary, raw)["a"].tolist() == texts
    assert read_inputs({"inputs": [{**described, "data": texts}]})["a"].tolist() == texts


def test_what_is_not_finite_is_null_in_json() -> None:
    data = output_data("a", np.array([1.0, np.nan, np.inf]))["data"]
    assert data == [1.0, None, None]
    request = {"inputs": [{"name": "a", "datatype": "FP64", "shape": [3], "data": data}]}
    np.testing.assert_array_equal(read_inputs(request)["a"], [1.0, np.nan, np.nan])


@pytest.mark.parametrize(
    "tensor",
    [
        {"datatype": "INT8", "shape": [1], "data": [200]},
        {"datatype": "INT64", "shape": [1], "data": [1.5]},
        {"datatype": "INT64", "shape": [1], "data": [2**70]},
        {"datatype": "BYTES", "shape": [1], "data": [1]},
        {"datatype": "FP32", "shape": [2], "data": [[1], [2, 3]]},
        {"datatype": "FP32", "shape": [-1], "data": [1]},
        {"datatype": "FP32", "shape": "x", "data": [1]},
        {"datatype": "FP32", "shape": [1], "data": {"a": 1}},
        {"datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": -1}},
    ],
)
def test_wrong_tensors_are_refused(tensor: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        read_inputs({"inputs": [{"name": "a", **tensor}]})


@pytest.mark.parametrize("inputs", [None, [], [3], [{"datatype": "FP32"}], {"a": 1}])
def test_requests_without_tensors_are_refused(inputs: Any) -> None:
    with pytest.raises(InvalidError):
        read_inputs({"inputs": inputs})


def test_bytes_that_belong_to_nothing_are_refused() -> None:
    request = {"inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [1]}]}
    with pytest.raises(InvalidError, match="belong to no input"):
        read_inputs(request, b"1234")
