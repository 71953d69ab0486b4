"""The binary tensor data extension: bytes after the JSON, both ways."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from . import wire
from .samples import edges, empty, not_finite, values
from .target import PAIR, Subject, Target, identity
from .wire import DTYPES, HEADER, Body, same, with_bytes

pytestmark = pytest.mark.clause("binary tensor data")

BINARY: dict[str, Any] = {"binary_data_output": True}
FLOATS = ("FP16", "FP32", "FP64")
RAW = np.array([[1, 2]], dtype="<f4").tobytes()


@pytest.fixture(autouse=True)
def _extension(target: Target) -> None:
    target.need_extension("binary_tensor_data")


def _sized(size: Any = 8, **changes: Any) -> dict[str, Any]:
    given = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}}
    return given | changes


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "edges", "empty"])
def test_values_survive_as_bytes(target: Target, datatype: str, kind: str) -> None:
    """The identity model of each datatype answers bytes with the same bytes: plain values, the ends, and none."""
    target.need_model(identity(datatype))
    array = {"plain": values(datatype, (3, 2)), "edges": edges(datatype), "empty": empty(datatype)}[kind]
    answer = target.answer(identity(datatype), {"x": array}, binary={"x"}, parameters=BINARY)
    assert answer.binary == {"y"}
    same(answer.outputs["y"], array)


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "edges", "empty"])
def test_bytes_and_json_are_the_same_tensor(target: Target, datatype: str, kind: str) -> None:
    """What goes in as bytes comes out as JSON, and the other way round, with the same values."""
    target.need_model(identity(datatype))
    if datatype == "FP16":
        pytest.skip("FP16 has no JSON form in the protocol")
    array = {"plain": values(datatype, (3, 2)), "edges": edges(datatype), "empty": empty(datatype)}[kind]
    to_json = target.answer(identity(datatype), {"x": array}, binary={"x"})
    assert not to_json.binary
    same(to_json.outputs["y"], array)
    from_json = target.answer(identity(datatype), {"x": array}, parameters=BINARY)
    assert from_json.binary == {"y"}
    same(from_json.outputs["y"], array)


@pytest.mark.parametrize("datatype", FLOATS)
def test_numbers_that_are_not_finite_survive_as_bytes(target: Target, datatype: str) -> None:
    """NaN and both infinities come back as they are."""
    target.need_model(identity(datatype))
    array = not_finite(datatype)
    same(target.answer(identity(datatype), {"x": array}, binary={"x"}, parameters=BINARY).outputs["y"], array)


def test_a_json_reply_with_numbers_that_are_not_finite_is_still_json(target: Target) -> None:
    """JSON has no NaN: the reply has something else in its place, such as null, or is an error."""
    target.need_model(identity("FP32"))
    reply = target.infer(identity("FP32"), wire.request({"x": not_finite("FP32")}, binary={"x"}))
    document = wire.strict_json(reply.content)
    assert reply.status_code == 200 or "error" in document


def test_a_model_answers_bytes_as_it_answers_json(target: Target, model: Subject) -> None:
    """The model under test gives the same numbers for inputs as bytes and as JSON, in bytes and in JSON."""
    expected = target.answer(model.name, model.inputs)
    for binary in ((), tuple(model.inputs)):
        for parameters in ({}, BINARY):
            answer = target.answer(model.name, model.inputs, binary=binary, parameters=parameters)
            assert answer.binary == (set(answer.outputs) if parameters else set())
            assert list(answer.outputs) == list(expected.outputs)
            for name, array in expected.outputs.items():
                if array.dtype != object:  # a text may be an id that is made anew
                    same(answer.outputs[name], array)


def test_a_binary_reply_gives_the_length_of_its_json(target: Target, pair: Subject) -> None:
    """A reply with bytes has Inference-Header-Content-Length and application/octet-stream; its JSON stands alone."""
    reply = target.infer(PAIR, wire.request(pair.inputs, binary=pair.inputs, parameters=BINARY))
    assert reply.headers["content-type"] == "application/octet-stream"
    document = wire.strict_json(reply.content[: int(reply.headers[HEADER])])
    assert [output["parameters"]["binary_data_size"] for output in document["outputs"]] == [16, 16]


def test_a_json_reply_does_not_give_a_length(target: Target, pair: Subject) -> None:
    """A reply without bytes is plain JSON, also to a request with bytes."""
    reply = target.infer(PAIR, wire.request(pair.inputs, binary=pair.inputs))
    assert HEADER not in reply.headers
    assert reply.headers["content-type"].partition(";")[0] == "application/json"
    wire.read(reply)


@pytest.mark.parametrize("binary", [{"a"}, {"b"}])
def test_inputs_may_be_json_and_bytes_in_one_request(target: Target, pair: Subject, binary: set[str]) -> None:
    """One input as bytes and the other as JSON."""
    _check_pair(target.answer(PAIR, pair.inputs, binary=binary), pair)


@pytest.mark.parametrize("binary", ["twice", "next"])
def test_outputs_may_be_json_and_bytes_in_one_reply(target: Target, pair: Subject, binary: str) -> None:
    """An output's `binary_data` asks for that output as bytes, and for no other."""
    outputs = [{"name": name, "parameters": {"binary_data": name == binary}} for name in ("twice", "next")]
    answer = target.answer(PAIR, pair.inputs, outputs=outputs)
    assert answer.binary == {binary}
    _check_pair(answer, pair)


def test_bytes_come_in_the_order_of_the_outputs(target: Target, pair: Subject) -> None:
    """Outputs in reversed order have their bytes in that order."""
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in ("next", "twice")]
    answer = target.answer(PAIR, pair.inputs, outputs=outputs)
    assert list(answer.outputs) == ["next", "twice"]
    _check_pair(answer, pair)


@pytest.mark.parametrize("everything", [True, False])
def test_an_outputs_own_wish_goes_before_the_requests(target: Target, pair: Subject, everything: bool) -> None:
    """`binary_data` of an output overrides the request's `binary_data_output`, both ways."""
    outputs = [{"name": "twice"}, {"name": "next", "parameters": {"binary_data": not everything}}]
    answer = target.answer(PAIR, pair.inputs, outputs=outputs, parameters={"binary_data_output": everything})
    assert answer.binary == ({"twice"} if everything else {"next"})
    _check_pair(answer, pair)


def test_a_header_that_says_all_is_json_is_right_where_it_is(target: Target, pair: Subject) -> None:
    """Inference-Header-Content-Length of the whole body is plain JSON."""
    body = wire.request(pair.inputs)
    _check_pair(wire.read(target.infer(PAIR, Body(body.data, len(body.data)))), pair)


def test_a_body_without_json_is_the_one_inputs_values(target: Target) -> None:
    """With Inference-Header-Content-Length 0 the body is the only input's bytes, and the outputs come as bytes."""
    target.need_model(identity("FP32"))
    array = values("FP32", (3, 2))
    answer = wire.read(target.infer(identity("FP32"), Body(wire.pack(array), 0)))
    assert answer.binary == {"y"}
    same(answer.outputs["y"], array)


def test_a_body_without_json_is_refused_by_a_model_of_two_inputs(target: Target, pair: Subject) -> None:
    """It does not say which input it is."""
    target.refuses(target.infer(PAIR, Body(RAW, 0)), 400)


def test_a_body_without_json_must_fit_the_model(target: Target) -> None:
    """Bytes that do not fill whole rows are 400."""
    target.need_model(identity("FP32"))
    target.refuses(target.infer(identity("FP32"), Body(RAW + b"\0\0\0\0", 0)), 400)


_BODIES: dict[str, Body] = {
    "a truncated body": with_bytes({"inputs": [_sized()]}, RAW[:5]),
    "no bytes at all": with_bytes({"inputs": [_sized()]}, b""),
    "bytes that belong to no input": with_bytes({"inputs": [_sized()]}, RAW + b"\0"),
    "fewer bytes than the shape holds": with_bytes({"inputs": [_sized(4)]}, RAW[:4]),
    "more bytes than the shape holds": with_bytes({"inputs": [_sized(12)]}, RAW + RAW[:4]),
    "a size below zero": with_bytes({"inputs": [_sized(-8)]}, RAW),
    "a size that is no number": with_bytes({"inputs": [_sized("8")]}, RAW),
    "a size beyond 64 bits": with_bytes({"inputs": [_sized(2**64 + 8)]}, RAW),
    "a shape that overflows": with_bytes({"inputs": [_sized(8, shape=[2**32, 2**32])]}, RAW),
    "an unknown datatype": with_bytes({"inputs": [_sized(8, datatype="FP99")]}, RAW),
    "an input twice": with_bytes({"inputs": [_sized(), _sized()]}, RAW + RAW),
    "a length that cuts the JSON": Body(with_bytes({"inputs": [_sized()]}, RAW).data, 20),
    "no length": Body(with_bytes({"inputs": [_sized()]}, RAW).data),
}


@pytest.mark.parametrize("what", _BODIES)
def test_a_body_whose_bytes_do_not_fit_is_refused(target: Target, what: str) -> None:
    """Sizes, shapes and bytes that do not agree are 400."""
    target.need_model(identity("FP32"))
    target.refuses(target.infer(identity("FP32"), _BODIES[what]), 400)


@pytest.mark.parametrize("value", ["garbage", "-1", "1.5", "0x10", "99999999", "9" * 30, ""], ids=repr)
def test_a_header_that_is_no_length_of_the_body_is_refused(target: Target, value: str) -> None:
    """Inference-Header-Content-Length that is no number, or is beyond the body, is 400."""
    target.need_model(identity("FP32"))
    body = with_bytes({"inputs": [_sized()]}, RAW)
    target.refuses(_post(target, "FP32", body, value), 400)


@pytest.mark.parametrize(
    "raw",
    [b"\x01\0\0\0a", b"\x09\0\0\0a\0\0\0\0", b"\xff\xff\xff\xffa\0\0\0\0", b"\x01\0\0\0a\0\0\0\0b", b"\x01\0"],
    ids=["one of two", "beyond the end", "beyond memory", "a byte too many", "half a length"],
)
def test_texts_whose_lengths_do_not_fit_are_refused(target: Target, raw: bytes) -> None:
    """A BYTES tensor must hold as many texts as its shape says, in as many bytes as it names."""
    target.need_model(identity("BYTES"))
    given = _sized(len(raw), datatype="BYTES")
    target.refuses(target.infer(identity("BYTES"), with_bytes({"inputs": [given]}, raw)), 400)


def _post(target: Target, datatype: str, body: Body, value: str) -> httpx.Response:
    return target.post(f"/v2/models/{identity(datatype)}/infer", body, **{HEADER: value})


def _check_pair(answer: wire.Answer, pair: Subject) -> None:
    same(answer.outputs["twice"], pair.inputs["a"] * 2)
    same(answer.outputs["next"], pair.inputs["b"] + 1)
