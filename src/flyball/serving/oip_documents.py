"""What a worker says of itself and of what it serves, in the Open Inference Protocol (v2) and its extensions."""

from __future__ import annotations

from typing import Any

import msgspec

import flyball
from flyball.serving.state import Service, State

EXTENSIONS = ("binary_tensor_data", "schedule_policy", "statistics")


def server_document() -> dict[str, Any]:
    return {"name": "flyball", "version": flyball.__version__, "extensions": list(EXTENSIONS)}


def model_document(service: Service, number: str | None = None) -> dict[str, Any]:
    """The metadata of a service as a model: the tensors are those of a version, None for the main one."""
    served = service.of(number)
    return {
        "name": service.name,
        "versions": version_numbers(service),
        "platform": f"flyball_{served.manifest.kind or 'features'}",
        **msgspec.to_builtins(served.signature),
    }


def models_document(state: State) -> dict[str, Any]:
    """KServe's list of models: names alone."""
    return {"models": sorted(state.services)}


def index_document(state: State, *, only_ready: bool, not_ready: str = "") -> list[dict[str, Any]]:
    """The index of Triton's model repository extension: a line a version.

    Args:
        only_ready: leave out what cannot be asked now.
        not_ready: why the worker is not ready; empty where it is.
    """
    if only_ready and not_ready:
        return []
    status = {"state": "UNAVAILABLE" if not_ready else "READY", "reason": not_ready}
    return [
        {"name": name, "version": number, **status}
        for name, service in sorted(state.services.items())
        for number in version_numbers(service)
    ]


def version_numbers(service: Service) -> list[str]:
    """The versions that are loaded, oldest first."""
    numbers = [ref.rpartition("/")[2] for ref in service.versions]
    return sorted(numbers, key=lambda number: (not number.isdigit(), int(number) if number.isdigit() else 0, number))
