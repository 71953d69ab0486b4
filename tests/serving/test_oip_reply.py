"""Replies of the Open Inference Protocol: JSON, and the bytes after it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball.kernel.errors import InvalidError
from flyball.serving.oip_reply import write_reply
from flyball.serving.oip_request import InferRequest, read_request
from flyball.serving.tensors import DTYPES

NUMBERS = [name for name in DTYPES if name != "BYTES"]
TENSORS = {"y": np.array([[1.5], [2.5]], dtype=np.float32), "text": np.array(["é", ""], dtype=object)}


def test_a_reply_has_the_models_name_and_version_the_id_and_the_labels() -> None:
    body, length = write_reply(InferRequest({}, id="7"), "m", "3", TENSORS, {"rung": "model"})
    assert length is None
    assert msgspec.json.decode(body) == {
        "model_name": "m",
        "model_version": "3",
        "id": "7",
        "parameters": {"rung": "model"},
        "outputs": [
            {"name": "y", "shape": [2, 1], "datatype": "FP32", "data": [1.5, 2.5]},
            {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["é", ""]},
        ],
    }
    plain = msgspec.json.decode(write_reply(InferRequest({}), "m", "3", TENSORS)[0])
    assert plain.keys() == {"model_name", "model_version", "outputs"}


def test_outputs_are_json_or_bytes_as_each_is_asked_for_and_in_that_order() -> None:
    request = InferRequest({}, outputs={"text": True, "y": False})
    body, length = write_reply(request, "m", "3", TENSORS)
    assert length is not None
    outputs = msgspec.json.decode(body[:length])["outputs"]
    assert outputs[0] == {"name": "text", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 10}}
    assert outputs[1]["data"] == [1.5, 2.5]
    assert body[length:] == b"\x02\x00\x00\x00\xc3\xa9\x00\x00\x00\x00"


def test_what_is_not_finite_is_null_in_json() -> None:
    body, _ = write_reply(InferRequest({}), "m", "3", {"y": np.array([1.0, np.nan, np.inf, -np.inf])})
    assert msgspec.json.decode(body)["outputs"][0]["data"] == [1.0, None, None, None]


def test_an_output_that_the_model_did_not_give_is_refused() -> None:
    with pytest.raises(InvalidError, match="no output 'z'"):
        write_reply(InferRequest({}, outputs={"z": True}), "m", "3", TENSORS)


@given(
    arrays=st.lists(
        st.sampled_from(NUMBERS).flatmap(
            lambda name: hnp.arrays(DTYPES[name], hnp.array_shapes(min_side=0, max_side=3))
        ),
        min_size=1,
        max_size=3,
    ),
    flags=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_a_reply_sent_back_as_a_request_is_read_as_the_same_tensors(arrays: list[Any], flags: list[bool]) -> None:
    tensors = {f"t{i}": array for i, array in enumerate(arrays)}
    finite = {n: a.dtype.kind != "f" or bool(np.isfinite(a).all()) for n, a in tensors.items()}
    outputs = {name: flag or not finite[name] for name, flag in zip(tensors, flags, strict=False)}
    body, length = write_reply(InferRequest({}, outputs=outputs), "m", "1", tensors)
    head = body if length is None else body[:length]
    request = msgspec.json.encode({"inputs": msgspec.json.decode(head)["outputs"]})
    sent = request if length is None else request + body[length:]
    found = read_request(sent, None if length is None else len(request)).tensors
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
