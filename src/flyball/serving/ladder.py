"""What answers when the model cannot: an older version, else the service's default, else an error that says why."""

from __future__ import annotations

from collections.abc import Sequence

from flyball.kernel.errors import FlyballError, InvalidError
from flyball.serving.guard import GuardedFeatures
from flyball.serving.outputs import default_answer
from flyball.serving.request import Job
from flyball.serving.scoring import Result, score
from flyball.serving.state import Served, Service


def older_version(service: Service, served: Served) -> Served | None:
    """The version that answers in the place of another: named by the plan, quick enough, and not in trouble itself."""
    for ref in service.plan.older:
        found = service.versions.get(ref)
        if found is None or found is served or found.lane.breaker.troubled or not found.lane.inline_rows:
            continue
        return found
    return None


def has_rungs(service: Service, *, tensors: bool) -> bool:
    """Whether anything below its version could answer a request; a default is none to a request with tensors."""
    return bool(service.plan.older) or (service.plan.default is not None and not tensors)


def climb_down(result: Result, jobs: Sequence[Job], features: GuardedFeatures) -> None:
    """Answer the rows that the version failed, by the rungs below it; what its senders got wrong stays wrong.

    The error stays beside the answer, so that the record tells that the version failed.
    """
    service, served = jobs[0].service, jobs[0].served
    failed = [row for row, error in result.errors.items() if not isinstance(error, InvalidError)]
    if not failed:
        return
    older = older_version(service, served)
    if older is not None:
        _ask_older(result, jobs, failed, older, features)
        failed = [row for row in failed if result.answers[row] is None]
    default = service.plan.default
    if default is None or jobs[0].tensors is not None:
        return
    answer = default_answer(served.manifest.task, default)
    for row in failed:
        result.answers[row], result.rungs[row] = dict(answer), "default"


def without_model(job: Job, error: FlyballError, features: GuardedFeatures) -> Result:
    """The answer to a job that its version is not asked, or does not answer in time."""
    count = len(job.ids)
    job.start = 0
    result = Result([None] * count, [None] * count, outputs=[None] * count if job.tensors is not None else [])
    if job.tensors is None and not job.served.takes_tensors:
        for row, given in enumerate(job.given):
            try:
                result.fields[row] = job.served.check(given)
            except InvalidError as wrong:
                result.errors[row] = wrong
    result.states = "default"
    result.errors |= {row: error for row in range(count) if row not in result.errors}
    climb_down(result, [job], features)
    return result


def _ask_older(
    result: Result, jobs: Sequence[Job], failed: Sequence[int], older: Served, features: GuardedFeatures
) -> None:
    wanted = set(failed)
    for job in jobs:
        rows = [row for row in range(job.start, job.start + len(job.ids)) if row in wanted]
        if not rows or job.count > older.lane.inline_rows:
            continue
        given = [] if job.tensors is not None else [job.given[row - job.start] for row in rows]
        ids = [job.ids[row - job.start] for row in rows]
        part = Job(
            job.ask, job.service, older, job.route, ids, given, None, job.at, job.arrived, job.deadline, job.tensors,
            job.count,
        )  # fmt: skip
        found = score([part], features)
        for k, row in enumerate(rows):
            if found.answers[k] is None or k in found.errors:
                continue
            result.answers[row], result.rungs[row], result.by[row] = found.answers[k], "older", older
            if job.tensors is not None:
                result.outputs[row] = found.outputs_of(k)
