"""From a request to its jobs: each row goes to a version, and the rows of one version stay together."""

from __future__ import annotations

from collections.abc import Mapping

from flyball.serving.ids import PredictionIds
from flyball.serving.plan import TOTAL_WEIGHT, Route
from flyball.serving.request import Ask, Job
from flyball.serving.router import choose, key_of, unit_of
from flyball.serving.state import Service


def jobs_of(ask: Ask, service: Service, ids: PredictionIds, *, at: int, arrived: float, deadline: float) -> list[Job]:
    """The jobs of a request; none where it has no rows.

    Raises:
        NotFoundError: `version_not_found`.
        InvalidError: `bad_tensor`.
    """
    if ask.tensors is not None:
        return [_tensor_job(ask, service, ids.new(), at, arrived, deadline)]
    rows = ask.rows
    if not rows:
        return []
    names = [ids.new() for _ in rows]
    plan, count = service.plan, len(names)
    if ask.version is not None:
        route = _pinned(service, ask.version)
        served = service.versions[route.version]
        return [Job(ask, service, served, route, names, rows, None, at, arrived, deadline, None, count)]
    keys = [key_of(plan, row) if isinstance(row, Mapping) else None for row in rows] if plan.key else None
    routed: dict[str, tuple[Route, list[int]]] = {}
    if len(plan.routes) == 1:
        routed[""] = (plan.routes[0], [])
    else:
        for i, id in enumerate(names):
            route = choose(plan, unit_of(None if keys is None else keys[i], id))
            routed.setdefault(route.version, (route, []))[1].append(i)
    if len(routed) == 1:
        ((route, _),) = routed.values()
        served = service.versions[route.version]
        return [Job(ask, service, served, route, names, rows, keys, at, arrived, deadline, None, count)]
    jobs = []
    for route, places in routed.values():
        job = Job(
            ask, service, service.versions[route.version], route,
            [names[i] for i in places], [rows[i] for i in places], None if keys is None else [keys[i] for i in places],
            at, arrived, deadline, None, len(places),
        )  # fmt: skip
        job.indexes = places
        jobs.append(job)
    return jobs


def _tensor_job(ask: Ask, service: Service, id: str, at: int, arrived: float, deadline: float) -> Job:
    """The job of a request with a model's own tensors: one prediction, however many rows they have."""
    routes = service.plan.routes
    if ask.version is not None:
        route = _pinned(service, ask.version)
    else:
        route = routes[0] if len(routes) == 1 else choose(service.plan, unit_of(None, id))
    served = service.versions[route.version]
    tensors = ask.tensors or {}
    rows = served.tensor_check(tensors) or 1
    return Job(ask, service, served, route, [id], (), None, at, arrived, deadline, tensors, rows)


def _pinned(service: Service, version: str) -> Route:
    served = service.find(version)
    return Route(version=served.ref, digest=served.loaded.digest, weight=TOTAL_WEIGHT, arm="pinned")
