"""Requests of the Open Inference Protocol, read once."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.kernel.errors import InvalidError
from flyball.serving.manifest import TensorSpec
from flyball.serving.oip_request import InferRequest, read_header_length, read_request

X = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}


def read(**request: Any) -> InferRequest:
    return read_request(msgspec.json.encode({"inputs": [X]} | request))


def binary(raw: bytes, *inputs: dict[str, Any], **more: Any) -> tuple[bytes, int]:
    head = msgspec.json.encode({"inputs": list(inputs), **more})
    return head + raw, len(head)


def sized(name: str, size: Any, datatype: str = "FP32", shape: Any = (2,)) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "parameters": {"binary_data_size": size}}


def test_a_request_has_its_tensors_id_and_parameters() -> None:
    request = read(id="7", parameters={"timeout": 1500, "priority": 2, "color": "red"})
    assert request.tensors["x"].tolist() == [1.0, 2.0]
    assert (request.id, request.timeout_us, request.priority) == ("7", 1500, 2)
    assert request.parameters["color"] == "red"
    plain = read()
    assert (plain.id, plain.timeout_us, plain.priority, plain.outputs, plain.binary) == (None, None, None, {}, False)


def test_what_the_protocol_does_not_know_is_ignored() -> None:
    given = X | {"parameters": {"content_type": "np", "nested": {"a": [1]}}, "color": 3}
    assert read(inputs=[given], strange=[{"a": None}]).tensors["x"].shape == (2,)


def test_outputs_come_in_the_order_and_form_that_is_asked_for() -> None:
    asked = [{"name": "b", "parameters": {"binary_data": False}}, {"name": "a"}, {"name": "c", "parameters": {}}]
    request = read(outputs=asked, parameters={"binary_data_output": True})
    assert list(request.outputs.items()) == [("b", False), ("a", True), ("c", True)]
    given = {name: np.zeros(1) for name in "abcd"}
    assert list(request.select(given)) == ["b", "a", "c"]
    assert list(read(outputs=[]).select(given)) == ["a", "b", "c", "d"]


def test_an_output_that_the_model_does_not_have_is_named() -> None:
    request = read(outputs=[{"name": "scroe"}])
    with pytest.raises(InvalidError, match="no output 'scroe': did you mean 'score'") as caught:
        request.check_outputs(["score", "label"])
    assert caught.value.code == "bad_output"


def test_json_and_binary_inputs_may_stand_in_one_request() -> None:
    raw = np.array([3, 4], dtype="<f4").tobytes() + b"\x01\x00"
    body, length = binary(raw, sized("a", 8), X, sized("b", 2, "BOOL"), sized("none", 0, "INT64", [0, 3]))
    tensors = read_request(body, length).tensors
    assert {name: array.tolist() for name, array in tensors.items()} == {
        "a": [3.0, 4.0],
        "x": [1.0, 2.0],
        "b": [True, False],
        "none": [],
    }
    assert tensors["none"].shape == (0, 3)


@pytest.mark.parametrize(
    ("body", "length", "code", "words"),
    [
        (b"", None, "bad_json", "not JSON"),
        (b"{", None, "bad_json", "not JSON"),
        (b'{"a": ' + b"[" * 100_000, None, "bad_json", "not JSON"),
        (b'{"inputs": [{"name": "\xff"}]}', None, "bad_json", "utf-8"),
        (b"[1]", None, "bad_request", "Expected `object`"),
        (b"{}", None, "bad_request", "inputs"),
        (b'{"inputs": []}', None, "bad_request", "at least one tensor"),
        (b'{"inputs": {"a": 1}}', None, "bad_request", "Expected `array`"),
        (b'{"inputs": [3]}', None, "bad_tensor", "Expected `object`"),
        (b'{"inputs": [{"datatype": "FP32"}]}', None, "bad_tensor", "name"),
        (b'{"inputs": [{"name": "a", "datatype": "FP32", "shape": "x"}]}', None, "bad_tensor", "shape"),
        (b'{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1.5]}]}', None, "bad_tensor", "shape"),
        (b'{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": {}}]}', None, "bad_tensor", "data"),
        (b'{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1]}]}', None, "bad_tensor", "neither data"),
        (b"{}", 3, "bad_request", "3 bytes are JSON; the body has 2"),
        (b"{}", -1, "bad_request", "-1 bytes"),
    ],
)
def test_bodies_that_are_no_request_are_refused(body: bytes, length: int | None, code: str, words: str) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        read_request(body, length)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"inputs": [X, X]}, "'x' is there twice"),
        ({"inputs": [X | {"parameters": {"binary_data_size": 8}}]}, "both data and"),
        ({"inputs": [sized("x", 8)]}, "names 8 bytes of binary data; 0 follow"),
        ({"inputs": [sized("x", -8)]}, "names -8 bytes"),
        ({"inputs": [sized("x", "8")]}, "binary_data_size"),
        ({"inputs": [sized("x", True)]}, "binary_data_size"),
        ({"outputs": [{"name": "a"}, {"name": "a"}]}, "asked for twice"),
        ({"outputs": [{"name": "a", "parameters": {"binary_data": 1}}]}, "binary_data"),
        ({"outputs": "a"}, "outputs"),
        ({"id": 7}, "id"),
        ({"parameters": {"binary_data_output": "yes"}}, "binary_data_output"),
        ({"parameters": {"timeout": -1}}, "timeout must be a whole number"),
        ({"parameters": {"timeout": True}}, "timeout"),
        ({"parameters": {"timeout": "5"}}, "timeout"),
        ({"parameters": {"priority": 2**60}}, "priority"),
    ],
)
def test_requests_that_contradict_themselves_are_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        read(**more)


def test_bytes_that_belong_to_nothing_are_refused() -> None:
    body, length = binary(b"1234", X)
    with pytest.raises(InvalidError, match="4 bytes after the JSON belong to no input"):
        read_request(body, length)
    with pytest.raises(InvalidError, match="not JSON"):
        read_request(body)


def test_zero_says_that_nothing_is_said() -> None:
    request = read(parameters={"timeout": 0, "priority": 0})
    assert (request.timeout_us, request.priority) == (None, None)


@pytest.mark.parametrize(
    ("spec", "body", "expected"),
    [
        (TensorSpec(name="x", datatype="FP32", shape=(-1, 2)), np.arange(4, dtype="<f4").tobytes(), [[0, 1], [2, 3]]),
        (TensorSpec(name="x", datatype="INT16", shape=(2,)), b"\x01\x00\x02\x00", [1, 2]),
        (TensorSpec(name="x", datatype="INT8", shape=(-1, -1)), b"\x01\x02", [[1, 2]]),
        (TensorSpec(name="x", datatype="BYTES", shape=(-1, 1)), "é".encode(), [["é"]]),
        (TensorSpec(name="x", datatype="FP32", shape=(-1,)), b"", []),
    ],
)
def test_a_body_without_json_is_the_one_inputs_values(spec: TensorSpec, body: bytes, expected: list[Any]) -> None:
    request = read_request(body, 0, [spec])
    assert request.tensors["x"].tolist() == expected
    assert request.binary


@pytest.mark.parametrize(
    ("specs", "body", "words"),
    [
        (None, b"", "takes several"),
        ([TensorSpec(name="a"), TensorSpec(name="b")], b"", "takes a, b"),
        ([TensorSpec(name="a", shape=(-1, 2))], bytes(12), "12 bytes of binary data; its shape \\[1, 2\\]"),
        ([TensorSpec(name="a", shape=(-1, -1, -1))], bytes(4), "several open sizes"),
        ([TensorSpec(name="a", shape=(-1, 0))], bytes(4), "4 bytes"),
        ([TensorSpec(name="a", datatype="BYTES", shape=(2,))], b"ab", "2 texts"),
        ([TensorSpec(name="a", datatype="BF16", shape=(2,))], b"ab", "BF16"),
    ],
)
def test_a_body_without_json_that_does_not_fit_the_model_is_refused(specs: Any, body: bytes, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        read_request(body, 0, specs)


@pytest.mark.parametrize("value", ["", "-1", "1.5", "0x10", "²", "1 ", "9" * 19, "+3"])
def test_a_header_that_is_no_length_is_refused(value: str) -> None:
    with pytest.raises(InvalidError, match="Inference-Header-Content-Length"):
        read_header_length(value)


@given(st.binary(max_size=60), st.one_of(st.none(), st.integers(-2, 70)))
def test_garbage_is_refused_and_nothing_else(body: bytes, length: int | None) -> None:
    with pytest.raises(InvalidError):
        read_request(body, length)


@given(st.data())
def test_a_request_that_is_damaged_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    raw = np.arange(2, dtype="<f4").tobytes()
    body, length = binary(raw, sized("a", 8), X, outputs=[{"name": "y"}], parameters={"binary_data_output": True})
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:at] + data.draw(st.binary(max_size=3)) + body[at + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(InvalidError):
        assert isinstance(read_request(damaged, length), InferRequest)
