"""Metadata of the server and of its models."""

from __future__ import annotations

from typing import Any

import pytest

from .target import NOWHERE, PAIR, Subject, Target, path_of
from .wire import DTYPES

SERVER = pytest.mark.clause("server metadata")
MODEL = pytest.mark.clause("model metadata")


@SERVER
def test_the_server_has_a_name_a_version_and_extensions(target: Target) -> None:
    """`GET /v2` answers JSON with the texts `name` and `version`, and the list of texts `extensions`."""
    reply = target.get("/v2")
    assert reply.status_code == 200
    assert reply.headers["content-type"].partition(";")[0] == "application/json"
    document = reply.json()
    assert isinstance(document["name"], str)
    assert document["name"]
    assert isinstance(document["version"], str)
    assert all(isinstance(name, str) for name in document["extensions"])
    assert len(set(document["extensions"])) == len(document["extensions"])


@MODEL
def test_the_model_describes_its_tensors(target: Target, model: Subject) -> None:
    """`GET /v2/models/M` answers with `name`, `platform`, and inputs and outputs of name, datatype and shape."""
    reply = target.get(path_of(model.name))
    assert reply.headers["content-type"].partition(";")[0] == "application/json"
    document = reply.json()
    assert document["name"] == model.name
    assert isinstance(document["platform"], str)
    for side in ("inputs", "outputs"):
        _check_tensors(document[side])
    versions = document.get("versions", [])
    assert isinstance(versions, list)
    assert all(isinstance(version, str) for version in versions)


@MODEL
def test_each_version_describes_its_tensors(target: Target, model: Subject) -> None:
    """`GET /v2/models/M/versions/V` answers the same form for each version that the metadata list."""
    if not model.versions:
        pytest.skip("the metadata list no versions")
    for version in model.versions:
        document = target.get(path_of(model.name, version)).json()
        assert document["name"] == model.name
        for side in ("inputs", "outputs"):
            _check_tensors(document[side])


@MODEL
def test_the_reference_model_is_described_as_it_was_made(target: Target, pair: Subject) -> None:
    """The metadata of oip_pair name its tensors, their datatypes, and -1 for each open size."""
    document = target.need_model(PAIR)
    assert document["inputs"] == [_like("a", "FP32", [-1, 2]), _like("b", "INT64", [-1])]
    assert document["outputs"] == [_like("twice", "FP32", [-1, 2]), _like("next", "INT64", [-1])]


@MODEL
def test_a_model_that_is_not_served_has_no_metadata(target: Target) -> None:
    """`GET /v2/models/NOWHERE` is 404 with an error."""
    target.refuses(target.get(path_of(NOWHERE)), 404)


@MODEL
def test_a_version_that_is_not_served_has_no_metadata(target: Target, model: Subject) -> None:
    """`GET /v2/models/M/versions/NOWHERE` is 404 with an error."""
    target.refuses(target.get(path_of(model.name, "999999")), 404)


def _check_tensors(tensors: list[dict[str, Any]]) -> None:
    assert tensors, "a model has inputs and outputs"
    assert len({tensor["name"] for tensor in tensors}) == len(tensors)
    for tensor in tensors:
        assert tensor["datatype"] in DTYPES or tensor["datatype"] == "BF16"
        assert all(isinstance(size, int) and size >= -1 for size in tensor["shape"])


class _like(dict[str, Any]):
    """Equal to metadata that say at least this: a server may add members."""

    def __init__(self, name: str, datatype: str, shape: list[int]) -> None:
        super().__init__(name=name, datatype=datatype, shape=shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and all(other.get(key) == value for key, value in self.items())
