"""The answer to a request of the Open Inference Protocol, from what came of its jobs."""

from __future__ import annotations

from typing import Any

import msgspec

from flyball.kernel.errors import FlyballError, InternalError
from flyball.serving.oip_reply import ReplyForm, write_reply
from flyball.serving.oip_request import InferRequest
from flyball.serving.ports import Tensors
from flyball.serving.replies import Reply, outcomes, parameters_of
from flyball.serving.request import Ask, Job
from flyball.serving.tensors import reply_tensors


def reply_to(request: InferRequest, ask: Ask, form: ReplyForm) -> tuple[bytes, int | None]:
    """The body of the reply to a request without an `error`, and how much of it is JSON where bytes follow.

    Raises what one of its rows failed with.
    """
    if ask.tensors is None:
        return _rows(request, ask, form)
    job = ask.jobs[0]
    result = job.result
    if result is None:
        raise job.error or InternalError("the request was not answered", code="not_answered")
    row = job.start
    if result.answers[row] is None:
        raise result.errors[row]
    served = result.by.get(row, job.served) if result.by else job.served
    rung = result.rungs.get(row, "model") if result.rungs else "model"
    if result.joined is not None and not request.outputs and not request.binary:
        labels = b'{"prediction_id":"%b","rung":"%b"}' % (job.ids[0].encode(), rung.encode())
        return form.write(served.number, result.joined.lists_of(row), labels, request.id), None
    outputs = result.outputs_of(row) or {}
    return write_reply(request, form.model, served.number, outputs, {"prediction_id": job.ids[0], "rung": rung})


def _rows(request: InferRequest, ask: Ask, form: ReplyForm) -> tuple[bytes, int | None]:
    """One tensor a column of the reply; a row that failed fails the request."""
    if len(ask.jobs) == 1 and len(ask.jobs[0].ids) == 1 and not request.outputs and not request.binary:
        found = _single(ask.jobs[0], form, request.id)
        if found is not None:
            return found, None
    replies: list[Reply] = []
    for outcome in outcomes(ask):
        if isinstance(outcome, FlyballError):
            raise outcome
        replies.append(outcome)
    number = replies[0]["version"].rpartition("/")[2] if replies else ""
    tensors: Tensors = reply_tensors(replies)
    return write_reply(request, form.model, number, tensors, parameters_of(replies))


def _single(job: Job, form: ReplyForm, id: str | None) -> bytes | None:
    """The reply of one row that its version answered with a score; None where it is something else."""
    result = job.result
    if result is None or result.errors or result.by or not isinstance(result.states, str) or result.states == "stale":
        return None
    answer = result.answers[job.start]
    if answer is None or "score" not in answer or type(answer["prediction"]) is not bool:
        return None
    rung = result.rungs.get(job.start, "model") if result.rungs else "model"
    outputs: list[tuple[str, str, tuple[int, ...], list[Any]]] = [
        ("prediction_id", "BYTES", _ONE, [job.ids[0]]),
        ("prediction", "BOOL", _ONE, [answer["prediction"]]),
        ("score", "FP64", _ONE, [answer["score"]]),
    ]
    labels = msgspec.json.encode({"features": result.states, "rung": rung})
    return form.write(job.served.number, outputs, labels, id)


_ONE = (1,)
