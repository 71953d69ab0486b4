"""What a row is answered with: the reply as data, with every label that says where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flyball.kernel.errors import FlyballError, UnavailableError
from flyball.serving.plan import Route
from flyball.serving.ports import FeatureState
from flyball.serving.state import Served

Reply = dict[str, Any]
Outcome = Reply | FlyballError  # of one row
_WORST = ("default", "stale", "fresh")


def no_features() -> UnavailableError:
    """Why a service that requires its views does not ask its model."""
    return UnavailableError(
        "online state cannot be read, and this service requires it",
        code="features_unavailable",
        hint="flyball status shows whether the state is being built again; default= of the service answers meanwhile",
    )


def reply_data(outcome: Outcome) -> Reply:
    """A row's outcome as it is sent."""
    return {"error": outcome.to_data()} if isinstance(outcome, FlyballError) else outcome


def reply_of(
    service: str,
    answer: Reply,
    *,
    id: str,
    at: int,
    route: Route,
    served: Served,
    rung: str,
    state: FeatureState,
    behind: int,
    values: list[float] | None,
) -> Reply:
    """`features` says what the views' values are worth; stale ones say by how much state was behind."""
    reply = {
        "prediction_id": id,
        **answer,
        "service": service,
        "version": route.version,
        "arm": route.arm,
        "rung": rung,
        "features": state,
        "at": at,
    }
    if state == "stale":
        reply["features_behind_us"] = behind
    if served.loaded.runtime is None and values is not None:
        names = [spec.name for spec in served.manifest.features]
        reply["values"] = {n: v if np.isfinite(v) else None for n, v in zip(names, values, strict=True)}
    return reply


def parameters_of(replies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The labels of replies as the parameters of one Open Inference Protocol response: the worst of each."""
    states = {reply["features"] for reply in replies}
    rungs = sorted({reply["rung"] for reply in replies}, key=lambda rung: rung == "model")
    if not replies:
        return {}
    found: dict[str, Any] = {"features": next(s for s in _WORST if s in states), "rung": rungs[0]}
    behind = [reply["features_behind_us"] for reply in replies if "features_behind_us" in reply]
    return found | ({"features_behind_us": max(behind)} if behind else {})
