"""Health: the server lives, is ready, and says so of each model."""

from __future__ import annotations

import httpx
import pytest

from .target import NOWHERE, Subject, Target, path_of

pytestmark = pytest.mark.clause("health")


def _says(reply: httpx.Response, *keys: str) -> None:
    """200; a body is optional, for servers answer with none, and `live` stands for `ready` in the protocol's schema."""
    assert reply.status_code == 200
    if reply.content:
        document = reply.json()
        assert isinstance(document, dict)
        assert [document[key] for key in keys if key in document] in ([], [True]), document


def test_the_server_is_live(target: Target) -> None:
    """`GET /v2/health/live` is 200; a body, where there is one, says `live: true`."""
    _says(target.get("/v2/health/live"), "live")


def test_the_server_is_ready(target: Target) -> None:
    """`GET /v2/health/ready` is 200; a body, where there is one, says so."""
    _says(target.get("/v2/health/ready"), "ready", "live")


def test_the_model_is_ready(target: Target, model: Subject) -> None:
    """`GET /v2/models/M/ready` is 200."""
    _says(target.get(path_of(model.name) + "/ready"), "ready")


def test_each_version_of_the_model_is_ready(target: Target, model: Subject) -> None:
    """`GET /v2/models/M/versions/V/ready` is 200 for each version that the metadata list."""
    if not model.versions:
        pytest.skip("the metadata list no versions")
    for version in model.versions:
        _says(target.get(path_of(model.name, version) + "/ready"), "ready")


def test_a_model_that_is_not_served_is_not_ready(target: Target) -> None:
    """`GET /v2/models/NOWHERE/ready` is an error: 404."""
    reply = target.get(path_of(NOWHERE) + "/ready")
    assert reply.status_code == 404 if target.strict else reply.status_code >= 400


def test_a_version_that_is_not_served_is_not_ready(target: Target, model: Subject) -> None:
    """`GET /v2/models/M/versions/NOWHERE/ready` is an error: 404."""
    reply = target.get(path_of(model.name, "999999") + "/ready")
    assert reply.status_code == 404 if target.strict else reply.status_code >= 400
