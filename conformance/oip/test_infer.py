"""Inference with JSON tensors: what a reply holds, and what a request may ask."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from . import wire
from .samples import edges, empty, values
from .target import PAIR, Subject, Target, identity, path_of
from .wire import DTYPES, Answer, nested, same, tensor

INFERENCE = pytest.mark.clause("inference")
DATA = pytest.mark.clause("tensor data")


@INFERENCE
def test_an_answer_has_the_outputs_of_the_metadata(target: Target, model: Subject) -> None:
    """`POST /v2/models/M/infer` answers JSON with `model_name`, and each output's name, datatype, shape and data."""
    reply = target.infer(model.name, wire.request(model.inputs))
    assert reply.status_code == 200, f"does it take these inputs? give others with --request FILE: {reply.text[:300]}"
    assert reply.headers.get("content-type", "").partition(";")[0] == "application/json"
    answer = wire.read(reply)
    assert answer.document["model_name"] == model.name
    assert answer.outputs
    assert not answer.binary, "JSON was asked for"
    for name, array in answer.outputs.items():
        described = model.outputs[name]
        assert wire.datatype_of(array) == described["datatype"]
        if described["shape"]:
            assert len(described["shape"]) == array.ndim
            assert all(size in (-1, found) for size, found in zip(described["shape"], array.shape, strict=True))


@INFERENCE
def test_each_version_can_be_asked(target: Target, model: Subject) -> None:
    """`POST /v2/models/M/versions/V/infer` answers, and `model_version`, where it is there, is V."""
    if not model.versions:
        pytest.skip("the metadata list no versions")
    for version in model.versions:
        answer = target.answer(model.name, model.inputs, version)
        assert answer.document.get("model_version", version) == version


@INFERENCE
def test_the_reference_model_computes(target: Target, pair: Subject) -> None:
    """oip_pair answers twice = 2 a and next = b + 1."""
    _check_pair(target.answer(PAIR, pair.inputs), pair)


@INFERENCE
def test_inputs_may_come_in_any_order(target: Target, pair: Subject) -> None:
    """Inputs are known by name: oip_pair answers the same with b before a."""
    _check_pair(target.answer(PAIR, {"b": pair.inputs["b"], "a": pair.inputs["a"]}), pair)


@INFERENCE
@pytest.mark.parametrize("id", ["42", "", "Zürich 日本", "x" * 200])
def test_the_id_comes_back(target: Target, model: Subject, id: str) -> None:
    """`id` is echoed; one that is empty may be left out."""
    found = target.answer(model.name, model.inputs, id=id).document.get("id")
    assert found == id or (not id and not (target.strict and found))


@INFERENCE
def test_a_reply_has_no_id_where_the_request_has_none(target: Target, model: Subject) -> None:
    """A reply's `id` is the request's: without one there is none (profile protocol: or a text)."""
    document = target.answer(model.name, model.inputs).document
    if target.strict:
        assert not document.get("id"), f"the server made up the id {document['id']!r}"
    else:
        assert isinstance(document.get("id", ""), str)


@INFERENCE
def test_parameters_that_mean_nothing_to_the_server_are_ignored(target: Target, model: Subject) -> None:
    """A request's and an input's `parameters` may hold what the server does not know."""
    described = [
        tensor(name, array, parameters={"oip_unknown": 3, "oip_other": "x"}) for name, array in model.inputs.items()
    ]
    body = wire.json_body({"inputs": described, "parameters": {"oip_unknown": True, "oip_text": "a"}})
    wire.read(target.infer(model.name, body))


@INFERENCE
def test_outputs_come_in_the_order_in_which_they_are_asked_for(target: Target, pair: Subject) -> None:
    """`outputs` names what is wanted: both in reversed order, then one alone."""
    asked = [{"name": "next"}, {"name": "twice"}]
    answer = target.answer(PAIR, pair.inputs, outputs=asked)
    _check_pair(answer, pair)
    assert list(answer.outputs) == ["next", "twice"]
    assert list(target.answer(PAIR, pair.inputs, outputs=[{"name": "next"}]).outputs) == ["next"]


@INFERENCE
def test_every_output_can_be_asked_for_alone(target: Target, model: Subject) -> None:
    """Each output of the metadata comes alone where it alone is asked for."""
    for name in model.outputs:
        assert list(target.answer(model.name, model.inputs, outputs=[{"name": name}]).outputs) == [name]


@INFERENCE
def test_an_empty_list_of_outputs_asks_for_all(target: Target, model: Subject) -> None:
    """`outputs: []` is as if it were not there."""
    everything = target.answer(model.name, model.inputs).outputs
    assert list(target.answer(model.name, model.inputs, outputs=[]).outputs) == list(everything)


@INFERENCE
def test_a_request_without_a_content_type_is_answered(target: Target, model: Subject) -> None:
    """The protocol names no content type that a request must have; clients leave it out."""
    asked = target.client.build_request("POST", path_of(model.name) + "/infer", content=wire.request(model.inputs).data)
    asked.headers.pop("content-type", None)
    wire.read(target.client.send(asked))


@INFERENCE
def test_rows_do_not_change_one_anothers_answers(target: Target, pair: Subject) -> None:
    """A batch is answered as its rows are one by one."""
    together = target.answer(PAIR, pair.inputs).outputs
    for row in range(2):
        alone = target.answer(PAIR, {name: array[row : row + 1] for name, array in pair.inputs.items()}).outputs
        for name, array in alone.items():
            same(array, together[name][row : row + 1])


@DATA
def test_nested_data_is_the_same_as_flat_data(target: Target, model: Subject) -> None:
    """`data` may be flat in row-major order, or nested like the shape."""
    described = [tensor(name, array, data=nested(array)) for name, array in model.inputs.items()]
    found = wire.read(target.infer(model.name, wire.json_body({"inputs": described}))).outputs
    _same_numbers(found, target.answer(model.name, model.inputs))


@DATA
def test_nested_data_of_the_reference_model_is_read_row_by_row(target: Target, pair: Subject) -> None:
    """oip_pair answers nested data exactly."""
    described = [tensor(name, array, data=nested(array)) for name, array in pair.inputs.items()]
    _check_pair(wire.read(target.infer(PAIR, wire.json_body({"inputs": described}))), pair)


@DATA
def test_whole_numbers_may_stand_for_floats(target: Target, pair: Subject) -> None:
    """JSON has one kind of number: `1` in a tensor of floats is 1.0."""
    inputs = [tensor("a", pair.inputs["a"], data=[1, 2, 3, 4]), tensor("b", pair.inputs["b"])]
    answer = wire.read(target.infer(PAIR, wire.json_body({"inputs": inputs})))
    same(answer.outputs["twice"], np.array([[2, 4], [6, 8]], dtype=np.float32))


@DATA
@pytest.mark.parametrize("datatype", DTYPES)
def test_values_survive_json(target: Target, datatype: str) -> None:
    """The identity model of each datatype answers JSON with the same values (FP16 has no JSON form that must be)."""
    array = values(datatype, (3, 2))
    same(_identity(target, datatype, wire.request({"x": array}), array), array)


@DATA
@pytest.mark.parametrize("datatype", DTYPES)
def test_values_at_the_ends_of_their_type_survive_json(target: Target, datatype: str) -> None:
    """The same for the ends: 2^63 - 1, 2^64 - 1, the smallest and largest floats, -0.0, text beyond ASCII."""
    array = edges(datatype)
    same(_identity(target, datatype, wire.request({"x": array}), array), array)


@DATA
@pytest.mark.parametrize("datatype", DTYPES)
def test_an_empty_tensor_survives_json(target: Target, datatype: str) -> None:
    """A tensor of the shape [0, 2] has no values and comes back so."""
    array = empty(datatype)
    same(_identity(target, datatype, wire.request({"x": array}), array), array)


def _identity(target: Target, datatype: str, body: wire.Body, given: wire.Array) -> wire.Array:
    target.need_model(identity(datatype))
    reply = target.infer(identity(datatype), body)
    if datatype == "FP16" and _refused(reply):
        pytest.skip("the server takes no FP16 in JSON, which the protocol leaves open")
    answer = wire.read(reply)
    assert list(answer.outputs) == ["y"]
    return answer.outputs["y"]


def _refused(reply: httpx.Response) -> bool:
    return 400 <= reply.status_code < 500


def _check_pair(answer: Answer, pair: Subject) -> None:
    same(answer.outputs["twice"], pair.inputs["a"] * 2)
    same(answer.outputs["next"], pair.inputs["b"] + 1)


def _same_numbers(found: dict[str, wire.Array], answer: Answer) -> None:
    """Outputs that are not texts are equal; a text may be an id that is made anew."""
    assert list(found) == list(answer.outputs)
    for name, array in answer.outputs.items():
        if array.dtype != object:
            same(found[name], array)
