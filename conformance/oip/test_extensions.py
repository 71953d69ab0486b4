"""The statistics extension, and the two ways in which servers list their models."""

from __future__ import annotations

from typing import Any

import pytest

from . import wire
from .target import NOWHERE, Subject, Target, path_of

STATISTICS = pytest.mark.clause("statistics")
LISTS = pytest.mark.clause("lists of models")
PARTS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


@STATISTICS
def test_statistics_are_of_a_version_a_model_or_all(target: Target, model: Subject) -> None:
    """`GET /v2/models[/M[/versions/V]]/stats` answer `model_stats` of the form that the extension gives."""
    target.need_extension("statistics")
    everything = _statistics(target, "/v2/models/stats")
    assert model.name in {one["name"] for one in everything}
    own = _statistics(target, path_of(model.name) + "/stats")
    assert {one["name"] for one in own} == {model.name}
    for version in model.versions:
        found = _statistics(target, path_of(model.name, version) + "/stats")
        assert [(one["name"], one["version"]) for one in found] == [(model.name, version)]


@STATISTICS
def test_statistics_count_what_was_asked(target: Target, model: Subject) -> None:
    """After five answers, successes, inferences and executions have grown, and the time of the last one is there."""
    target.need_extension("statistics")
    before = _statistics(target, path_of(model.name) + "/stats")
    for _ in range(5):
        target.answer(model.name, model.inputs)
    after = _statistics(target, path_of(model.name) + "/stats")
    assert _sum(after, "success", "count") >= _sum(before, "success", "count") + 5
    assert _sum(after, "success", "ns") > _sum(before, "success", "ns")
    assert sum(one["inference_count"] for one in after) >= sum(one["inference_count"] for one in before) + 5
    assert sum(one["execution_count"] for one in after) - sum(one["execution_count"] for one in before) >= 1
    assert max(one["last_inference"] for one in after) > 1_500_000_000_000, "milliseconds since 1970"


@STATISTICS
@pytest.mark.parametrize("path", [path_of(NOWHERE), "version"])
def test_there_are_no_statistics_of_what_is_not_served(target: Target, model: Subject, path: str) -> None:
    """An unknown model or version is an error: 404."""
    target.need_extension("statistics")
    where = path_of(model.name, "999999") if path == "version" else path
    target.refuses(target.get(where + "/stats"), 404)


@LISTS
def test_the_models_are_listed(target: Target, model: Subject) -> None:
    """KServe: `GET /v2/models` answers `{"models": [name, …]}`."""
    reply = target.get("/v2/models")
    if reply.status_code in (404, 405):
        pytest.skip("the server does not offer GET /v2/models, which is KServe's")
    assert model.name in reply.json()["models"]


@LISTS
@pytest.mark.parametrize("ready", [None, False, True])
def test_the_index_lists_the_models(target: Target, model: Subject, ready: bool | None) -> None:
    """The model repository extension: `POST /v2/repository/index` lists name, version, state and reason."""
    reply = target.post("/v2/repository/index", wire.json_body({} if ready is None else {"ready": ready}))
    if reply.status_code in (404, 405):
        pytest.skip("the server does not offer POST /v2/repository/index")
    listed: list[dict[str, Any]] = reply.json()
    assert model.name in {one["name"] for one in listed}
    for one in listed:
        assert all(isinstance(one.get(key, ""), str) for key in ("name", "version", "state", "reason"))
        assert one["state"] == "READY" or not ready


def _statistics(target: Target, path: str) -> list[dict[str, Any]]:
    reply = target.get(path)
    assert reply.status_code == 200
    found: list[dict[str, Any]] = reply.json()["model_stats"]
    for one in found:
        assert isinstance(one["name"], str)
        for name in ("last_inference", "inference_count", "execution_count"):
            assert one[name] >= 0
        for part in PARTS:
            assert set(one["inference_stats"][part]) >= {"count", "ns"}
        for batch in one["batch_stats"]:
            assert batch["batch_size"] >= 1
            assert set(batch["compute_infer"]) >= {"count", "ns"}
    return found


def _sum(found: list[dict[str, Any]], part: str, key: str) -> int:
    return sum(int(one["inference_stats"][part][key]) for one in found)
