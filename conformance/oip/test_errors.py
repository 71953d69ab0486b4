"""Errors: each wrong request is refused with `{"error": "message"}`, and the server goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from . import wire
from .target import NOWHERE, PAIR, Subject, Target, identity, path_of
from .wire import Body, json_body, tensor

pytestmark = pytest.mark.clause("inference errors")

A: dict[str, Any] = {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
B: dict[str, Any] = {"name": "b", "datatype": "INT64", "shape": [1], "data": [3]}


def test_a_model_that_is_not_served_cannot_be_asked(target: Target, model: Subject) -> None:
    """`POST /v2/models/NOWHERE/infer` is 404."""
    target.refuses(target.infer(NOWHERE, wire.request(model.inputs)), 404)


def test_a_version_that_is_not_served_cannot_be_asked(target: Target, model: Subject) -> None:
    """`POST /v2/models/M/versions/NOWHERE/infer` is 404."""
    target.refuses(target.infer(model.name, wire.request(model.inputs), "999999"), 404)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"3", b"null", b'"text"', b"{}", b'{"inputs": {}}', b'{"inputs": []}', b'{"inputs": [1]}'],
    ids=repr,
)
def test_a_body_that_is_no_request_is_refused(target: Target, model: Subject, data: bytes) -> None:
    """A body that is not JSON, no object, or without a list of inputs is 400."""
    target.refuses(target.infer(model.name, Body(data)), 400)


@pytest.mark.parametrize("data", [b'{"inputs": [{"name": "\xff"}]}', b'{"a": ' + b"[" * 20_000], ids=["utf-8", "depth"])
def test_a_body_that_is_made_to_break_a_parser_is_refused(target: Target, model: Subject, data: bytes) -> None:
    """Text that is not UTF-8, and twenty thousand brackets, are 400."""
    target.refuses(target.infer(model.name, Body(data)), 400)


@pytest.mark.parametrize("member", ["name", "datatype", "shape", "data"])
def test_an_input_that_lacks_a_member_is_refused(target: Target, model: Subject, member: str) -> None:
    """An input without name, datatype, shape or data is 400."""
    inputs = _described(model)
    del inputs[0][member]
    target.refuses(target.infer(model.name, json_body({"inputs": inputs})), 400)


_CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "too few data": lambda one: one | {"data": one["data"][:-1]},
    "too many data": lambda one: one | {"data": [*one["data"], one["data"][0]]},
    "a shape of other data": lambda one: one | {"shape": [one["shape"][0] + 1, *one["shape"][1:]]},
    "a size below zero": lambda one: one | {"shape": [-1, *one["shape"][1:]]},
    "a size that is no number": lambda one: one | {"shape": ["2", "x"]},
    "a shape that is no list": lambda one: one | {"shape": 2},
    "a size beyond 64 bits": lambda one: one | {"shape": [2**64, *one["shape"][1:]]},
    "sizes that overflow": lambda one: one | {"shape": [2**32, 2**32]},
    "another number of dimensions": lambda one: one | {"shape": [1, 1, 1, *one["shape"]]},
    "an unknown datatype": lambda one: one | {"datatype": "FP99"},
    "a datatype that is no text": lambda one: one | {"datatype": 32},
    "data that are an object": lambda one: one | {"data": {"0": 1}},
    "data of objects": lambda one: one | {"data": [{} for _ in one["data"]]},
    "ragged data": lambda one: one | {"data": [one["data"], one["data"][:1]]},
}


@pytest.mark.parametrize("change", _CHANGES)
def test_an_input_that_contradicts_itself_is_refused(target: Target, model: Subject, change: str) -> None:
    """Data that do not fill the shape, sizes and types that are none, and nests that are ragged are 400."""
    inputs = _described(model)
    inputs[0] = _CHANGES[change](inputs[0])
    target.refuses(target.infer(model.name, json_body({"inputs": inputs})), 400)


_REQUESTS: dict[str, list[dict[str, Any]]] = {
    "a missing input": [A],
    "an extra input": [A, B, A | {"name": "c"}],
    "an input twice": [A, B, A],
    "an unknown input": [A | {"name": "x"}, B],
    "another datatype": [A | {"datatype": "FP64"}, B],
    "a text for a number": [A | {"data": ["1", "2"]}, B],
    "booleans for numbers": [A, B | {"data": [True]}],
    "a fraction for a whole number": [A, B | {"data": [1.5]}],
    "null for a whole number": [A, B | {"data": [None]}],
    "a number beyond its type": [A, B | {"data": [2**63]}],
    "a fixed size that is another": [A | {"shape": [1, 3], "data": [1, 2, 3]}, B],
    "too few dimensions": [A | {"shape": [2]}, B],
}


@pytest.mark.parametrize("what", _REQUESTS)
def test_inputs_that_are_not_the_models_are_refused(target: Target, pair: Subject, what: str) -> None:
    """oip_pair refuses inputs that it does not have, or that are of another type or shape, with 400."""
    target.refuses(target.infer(PAIR, json_body({"inputs": _REQUESTS[what]})), 400)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT8", 128), ("INT8", -129), ("UINT8", 256), ("UINT8", -1), ("INT32", 2**31), ("UINT64", 2**64), ("BOOL", 2)],
)
def test_a_value_beyond_its_datatype_is_refused(target: Target, datatype: str, value: int) -> None:
    """A number that its datatype cannot hold is 400, not another number."""
    target.need_model(identity(datatype))
    given = {"name": "x", "datatype": datatype, "shape": [1, 2], "data": [value, value]}
    target.refuses(target.infer(identity(datatype), json_body({"inputs": [given]})), 400)


def test_a_number_is_no_text(target: Target) -> None:
    """A number in a tensor of BYTES is 400."""
    target.need_model(identity("BYTES"))
    given = {"name": "x", "datatype": "BYTES", "shape": [1, 2], "data": ["a", 1]}
    target.refuses(target.infer(identity("BYTES"), json_body({"inputs": [given]})), 400)


def test_an_output_that_the_model_does_not_have_is_refused(target: Target, model: Subject) -> None:
    """`outputs` that name an unknown output are 400."""
    target.refuses(target.infer(model.name, wire.request(model.inputs, outputs=[{"name": "oip_nothing"}])), 400)


@pytest.mark.parametrize("outputs", ["next", [{}], [3], {"name": "next"}], ids=repr)
def test_outputs_that_are_no_list_of_names_are_refused(target: Target, model: Subject, outputs: Any) -> None:
    """`outputs` of another form are 400."""
    target.refuses(target.infer(model.name, wire.request(model.inputs, outputs=outputs)), 400)


def test_a_message_says_what_is_wrong(target: Target, pair: Subject) -> None:
    """An error names the tensor or the name that is wrong: here the unknown output."""
    reply = target.infer(PAIR, wire.request(pair.inputs, outputs=[{"name": "oip_nothing"}]))
    target.refuses(reply, 400)
    assert "oip_nothing" in reply.json()["error"]


def test_the_server_answers_as_before_after_all_this(target: Target, pair: Subject) -> None:
    """After wrong requests the next right one is answered right."""
    target.infer(PAIR, Body(b"{"))
    target.infer(PAIR, json_body({"inputs": [A]}))
    found = target.answer(PAIR, pair.inputs).outputs["next"]
    np.testing.assert_array_equal(found, pair.inputs["b"] + 1)


@pytest.mark.clause("HTTP")
@pytest.mark.parametrize(("method", "path"), [("GET", "infer"), ("PUT", "infer"), ("POST", "ready"), ("DELETE", "")])
def test_a_method_that_is_not_offered_is_refused(target: Target, model: Subject, method: str, path: str) -> None:
    """A known path with another method is 405."""
    reply = target.client.request(method, f"{path_of(model.name)}/{path}".rstrip("/"))
    assert reply.status_code == 405 if target.strict else 400 <= reply.status_code < 500


@pytest.mark.clause("HTTP")
def test_a_path_that_is_not_there_is_refused(target: Target) -> None:
    """A path that the protocol does not have is 404."""
    reply = target.get("/v2/oip_nothing")
    assert reply.status_code == 404 if target.strict else 400 <= reply.status_code < 500


def _described(model: Subject) -> list[dict[str, Any]]:
    return [tensor(name, array) for name, array in model.inputs.items()]
