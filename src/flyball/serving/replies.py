"""What a row is answered with: the reply as data, with every label that says where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.kernel.errors import FlyballError, InternalError, UnavailableError

if TYPE_CHECKING:
    from flyball.serving.request import Ask, Job

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


def outcomes(ask: Ask) -> list[Outcome]:
    """What came of each row of a request that was answered, in the order of its rows."""
    if len(ask.jobs) == 1:
        return [outcome_of(ask.jobs[0], k) for k in range(len(ask.jobs[0].ids))]
    found: list[Outcome | None] = [None] * len(ask.rows)
    for job in ask.jobs:
        for k, at in enumerate(job.indexes or range(len(job.ids))):
            found[at] = outcome_of(job, k)
    return [outcome for outcome in found if outcome is not None]


def outcome_of(job: Job, k: int) -> Outcome:
    """The reply to a job's row. `features` says what the views' values are worth; stale ones say by how much state was
    behind; `routed` is the version that was asked where another answered."""
    result = job.result
    if result is None:
        return job.error or InternalError("the row was not answered", code="not_answered")
    row = job.start + k
    answer = result.answers[row]
    if answer is None:
        return result.errors[row]
    state = result.states if isinstance(result.states, str) else result.states[row]
    reply = {
        "prediction_id": job.ids[k],
        **answer,
        "service": job.service.name,
        "version": job.route.version,
        "arm": job.route.arm,
        "rung": result.rungs.get(row, "model") if result.rungs else "model",
        "features": state,
        "at": job.at,
    }
    if result.by and row in result.by:
        reply["routed"], reply["version"] = job.route.version, result.by[row].ref
    batch = result.batch
    if batch is None:
        return reply
    if state == "stale":
        reply["features_behind_us"] = batch.behind(job.at)
    place = result.places[row]
    if job.served.loaded.runtime is None and place is not None:
        values = batch.matrix[place].tolist()
        reply["values"] = {
            n: v if np.isfinite(v) else None for n, v in zip(job.served.feature_names, values, strict=True)
        }
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
