"""The serving plan: what every worker serves, read from one file, and each worker's word on it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from flyball.kernel.errors import FlyballError, InvalidError, NotFoundError, did_you_mean
from flyball.kernel.files import read_document, write_document
from flyball.kernel.ids import digest
from flyball.kernel.layout import Layout

PLAN_FORMAT = "flyball.serving_plan"
ACKNOWLEDGEMENT_FORMAT = "flyball.ack"
TOTAL_WEIGHT = 10_000


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A share of a service's requests: `weight` of 10 000 go to `version`, such as `tip/7`."""

    version: str
    digest: str
    weight: int
    arm: str = "stable"


class ServicePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A service. `key` names the request fields that hold a request to one version; without them each is drawn.
    `views`: `required` answers the service's default, not the model's, where views are at their defaults.
    `max_batch` rows are scored together at most, and `queue` rows may wait for one version. `older`: versions that
    are kept warm and answer what others cannot, the first one first."""

    routes: tuple[Route, ...]
    salt: str = ""
    default: float | str | None = None
    deadline_us: int = 1_000_000
    log: Literal["async", "durable"] = "async"
    key: tuple[str, ...] = ()
    pii: tuple[str, ...] = ()
    max_staleness: int = 3_600_000_000  # microseconds of domain time
    views: Literal["optional", "required"] = "optional"
    max_batch: int = 1024
    queue: int = 10_000
    cache: bool = False
    older: tuple[str, ...] = ()

    def allowed(self, timeout_us: int | None) -> float:
        """Seconds that a request may take: its own timeout can only shorten the service's deadline."""
        return (self.deadline_us if timeout_us is None else min(timeout_us, self.deadline_us)) / 1_000_000


class VersionPlan(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    path: str


class ServingPlan(msgspec.Struct, frozen=True, kw_only=True):
    epoch: int
    digest: str
    services: dict[str, ServicePlan] = {}
    versions: dict[str, VersionPlan] = {}
    tokens: dict[str, tuple[str, ...]] = {}
    segments: int = 0  # where it rises, workers begin a new segment of their log: what is before it can be erased

    def service(self, name: str) -> ServicePlan:
        try:
            return self.services[name]
        except KeyError:
            raise NotFoundError(
                f"no service {name!r} is served here: {did_you_mean(name, self.services)}",
                code="service_not_found",
                hint="`flyball status` lists the services; one is served once a version of its model is released",
            ) from None


EMPTY = ServingPlan(epoch=0, digest="")


def plan_digest(plan: dict[str, Any]) -> str:
    """The digest that a plan carries: of its contents, without the epoch."""
    return digest({key: value for key, value in plan.items() if key not in ("epoch", "digest")})


def decode(data: dict[str, Any]) -> ServingPlan:
    """Read and check a plan; `bad_plan` names the service and what is wrong."""
    try:
        plan = msgspec.convert(data, ServingPlan)
    except msgspec.ValidationError as error:
        raise InvalidError(f"the serving plan is not one: {error}", code="bad_plan") from None
    if plan.digest != plan_digest(data):
        raise InvalidError(
            f"the serving plan of epoch {plan.epoch} does not have the digest that it names", code="bad_plan"
        )
    for name, service in plan.services.items():
        _check_service(plan, name, service)
    return plan


def _check_service(plan: ServingPlan, name: str, service: ServicePlan) -> None:
    weights = [route.weight for route in service.routes]
    if sum(weights) != TOTAL_WEIGHT or min(weights) < 0:
        raise InvalidError(
            f"the weights of service {name!r} are {weights}; they must sum to {TOTAL_WEIGHT}", code="bad_plan"
        )
    if service.max_batch < 1 or service.queue < 1 or service.deadline_us < 1:
        raise InvalidError(f"the limits of service {name!r} must be at least 1", code="bad_plan")
    for route in service.routes:
        version = plan.versions.get(route.version)
        if version is None or version.digest != route.digest:
            raise InvalidError(
                f"service {name!r} routes to {route.version!r}, which the plan does not hold with that digest",
                code="bad_plan",
            )


class PlanFile:
    """The plan as a file, read again only when it changed."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.serving_plan
        self._seen: tuple[int, int, int] | None = None

    def poll(self) -> dict[str, Any] | None:
        """The plan where the file is new since the last call, else None; raises where it cannot be read."""
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            return None
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if stamp == self._seen:
            return None
        self._seen = stamp
        return read_document(self._path, PLAN_FORMAT)


def publish(layout: Layout, plan: dict[str, Any]) -> dict[str, Any]:
    """Write a plan with the digest of its contents; returns it as written."""
    whole = {**plan, "digest": plan_digest(plan)}
    layout.plan.mkdir(parents=True, exist_ok=True)
    write_document(layout.serving_plan, PLAN_FORMAT, whole)
    return whole


def acknowledge(folder: Path, process: str, *, epoch: int, digest: str, error: FlyballError | None) -> None:
    """Say that this process serves a plan, or, with an error, that it refused it and serves the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    body = {
        "epoch": epoch,
        "digest": digest,
        "error": error.message if error is not None else None,
        "pid": os.getpid(),
        "at": time.time_ns() // 1_000,
    }
    write_document(folder / f"{process}.json", ACKNOWLEDGEMENT_FORMAT, body)
