"""The server under test: its address, what it says of itself, and what it answers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from . import wire
from .wire import Answer, Array, Body

PAIR = "oip_pair"  # reference.py makes it
NOWHERE = "oip_no_such_model"


@dataclass(kw_only=True)
class Target:
    """A server.

    Args:
        strict: whether errors must have the exact status that servers have come to agree on, or any 4xx.
    """

    client: httpx.Client
    strict: bool
    served: dict[str, dict[str, Any] | None] = field(default_factory=dict)  # metadata by model; None: not served

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def post(self, path: str, body: Body, **headers: str) -> httpx.Response:
        return self.client.post(path, content=body.data, headers=body.headers | headers)

    def infer(self, model: str, body: Body, version: str | None = None) -> httpx.Response:
        return self.post(path_of(model, version) + "/infer", body)

    def answer(self, model: str, inputs: Mapping[str, Array], version: str | None = None, **more: Any) -> Answer:
        """What a model answers to these inputs."""
        return wire.read(self.infer(model, wire.request(inputs, **more), version))

    @functools.cached_property
    def server(self) -> dict[str, Any]:
        """The server's metadata."""
        document = self.get("/v2").json()
        assert isinstance(document, dict), "GET /v2 answers no JSON object"
        return document

    @property
    def extensions(self) -> list[str]:
        return list(self.server.get("extensions") or [])

    def metadata(self, model: str) -> dict[str, Any] | None:
        """A model's metadata; None where it is not served."""
        if model not in self.served:
            reply = self.get(path_of(model))
            self.served[model] = reply.json() if reply.status_code == 200 else None
        return self.served[model]

    def need_extension(self, name: str) -> None:
        if name not in self.extensions:
            pytest.skip(f"the server does not advertise the extension {name}")

    def need_model(self, model: str) -> dict[str, Any]:
        found = self.metadata(model)
        if found is None:
            pytest.skip(f"the server does not serve the kit's reference model {model}")
        return found

    def refuses(self, reply: httpx.Response, status: int) -> None:
        """Hold a reply to being an error of the protocol."""
        if self.strict:
            assert reply.status_code == status, f"{reply.status_code} in place of {status}: {reply.text[:300]}"
        else:
            assert 400 <= reply.status_code < 500, f"{reply.status_code} in place of an error: {reply.text[:300]}"
        document = wire.strict_json(reply.content)
        assert isinstance(document, dict), f"an error must be a JSON object, not {reply.text[:300]!r}"
        assert isinstance(document.get("error"), str), f"an error must have a text `error`: {reply.text[:300]}"
        assert document["error"], "the error says nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """The model under test, and inputs that it takes."""

    name: str
    metadata: dict[str, Any]
    inputs: dict[str, Array]

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        return {output["name"]: output for output in self.metadata.get("outputs") or []}

    @property
    def versions(self) -> list[str]:
        return list(self.metadata.get("versions") or [])


def path_of(model: str, version: str | None = None) -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "")


def identity(datatype: str) -> str:
    """The name of the reference model that answers with its input."""
    return f"oip_identity_{datatype.lower()}"
