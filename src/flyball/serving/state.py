"""What a worker serves at one moment: a plan and its loaded versions. It is replaced as a whole, never changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flyball.kernel.errors import FlyballError, NotFoundError, did_you_mean
from flyball.serving.cache import Cache
from flyball.serving.inputs import RowCheck
from flyball.serving.lane import Lane
from flyball.serving.manifest import Manifest, Signature
from flyball.serving.plan import EMPTY, Route, ServicePlan, ServingPlan
from flyball.serving.ports import OpenRuntime
from flyball.serving.records import Privacy
from flyball.serving.tensor_model import TensorCheck
from flyball.serving.tensors import signature_of
from flyball.serving.versions import LoadedVersion, load_version
from flyball.serving.warming import warm_up

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Served:
    """A version as one service serves it, and what this worker learned of it.

    Args:
        number: of `tip/7`, `7`.
        takes_tensors: whether requests bring the model's own tensors instead of fields.
        check, tensor_check: of the rows, or of the tensors, that it takes.
        cache: None where answers are not kept.
        signature: what it takes and gives in the Open Inference Protocol.
        model_seconds: what the model takes for one row, about.
    """

    ref: str
    loaded: LoadedVersion
    privacy: Privacy
    check: RowCheck
    tensor_check: TensorCheck
    key: tuple[str, ...] = ()
    lane: Lane = field(default_factory=Lane)
    cache: Cache | None = None
    number: str = ""
    takes_tensors: bool = False
    signature: Signature = field(default_factory=Signature)
    output_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    model_seconds: float = 0.0

    @property
    def manifest(self) -> Manifest:
        return self.loaded.manifest

    def timed(self, seconds: float, rows: int) -> None:
        """The model took so long for so many rows: the last ten or so batches count."""
        self.model_seconds += 0.1 * (seconds / rows - self.model_seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    name: str
    plan: ServicePlan
    versions: Mapping[str, Served]  # by version reference: those routed to, and those kept warm of the same model
    main: Served  # the version with the most traffic: its fields and tensors are what the service's metadata shows

    def find(self, number: str) -> Served:
        """The version of a number or reference, such as `7` or `tip/7`."""
        for served in self.versions.values():
            if number in (served.ref, served.number):
                return served
        raise NotFoundError(
            f"service {self.name!r} has no version {number!r} loaded: {did_you_mean(number, self.versions)}",
            code="version_not_found",
        )

    def of(self, number: str | None) -> Served:
        """The version of a number; None: the main one."""
        return self.main if number is None else self.find(number)


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    plan: ServingPlan = EMPTY
    services: Mapping[str, Service] = field(default_factory=dict)
    loaded: Mapping[str, LoadedVersion] = field(default_factory=dict)  # by digest

    def service(self, name: str) -> Service:
        self.plan.service(name)
        return self.services[name]


def load(plan: ServingPlan, before: State, open_runtime: OpenRuntime) -> State:
    """Load what a plan names beside what is served now, and reuse what both have.

    A version that a service routes to and that does not load refuses the plan; one that is only kept warm is left out.
    """
    routed = {route.version for service in plan.services.values() for route in service.routes}
    loaded: dict[str, LoadedVersion] = {}
    for ref, version in plan.versions.items():
        if version.digest in loaded:
            continue
        try:
            known = before.loaded.get(version.digest)
            loaded[version.digest] = known or load_version(Path(version.path), version.digest, open_runtime)
        except FlyballError as error:
            if ref in routed:
                raise
            logger.warning("a version is not kept warm", extra={"version": ref, "error": error.message})
    services = {name: _service(name, service, plan, loaded, before) for name, service in plan.services.items()}
    return State(plan=plan, services=services, loaded=loaded)


def _service(
    name: str, service: ServicePlan, plan: ServingPlan, loaded: Mapping[str, LoadedVersion], before: State
) -> Service:
    models = {route.version.rpartition("/")[0] for route in service.routes}
    old = before.services.get(name)
    versions: dict[str, Served] = {}
    for ref, version in plan.versions.items():
        if ref.rpartition("/")[0] not in models or version.digest not in loaded:
            continue
        found = loaded[version.digest]
        privacy = Privacy.of(found.manifest, service.pii)
        known = old.versions.get(ref) if old is not None else None
        if known is not None and known.loaded is found and known.privacy == privacy and known.key == service.key:
            versions[ref] = known
        else:
            versions[ref] = _served(ref, found, privacy, service)
        served = versions[ref]
        _limit(served, service)
        if found.runtime is not None and not served.lane.latency.known:
            warm_up(served.lane, found.runtime, found.manifest, found.sample)
    main: Route = max(service.routes, key=lambda route: route.weight)
    return Service(name=name, plan=service, versions=versions, main=versions[main.version])


def _served(ref: str, found: LoadedVersion, privacy: Privacy, service: ServicePlan) -> Served:
    manifest, signature = found.manifest, signature_of(found.manifest)
    ignored = {c.name for s in manifest.sources if s.name == manifest.rows for c in s.columns}
    return Served(
        ref=ref,
        loaded=found,
        privacy=privacy,
        check=RowCheck(manifest.inputs, keep=service.key, ignore=ignored),
        tensor_check=TensorCheck(signature),
        key=service.key,
        number=ref.rpartition("/")[2],
        takes_tensors=manifest.takes_tensors,
        signature=signature,
        output_names=tuple(spec.name for spec in signature.outputs),
        feature_names=tuple(spec.name for spec in manifest.features),
    )


def _limit(served: Served, service: ServicePlan) -> None:
    """A service's limits may change under a version that stays."""
    served.lane.blocking = served.manifest.kind == "process"
    served.lane.max_rows = service.max_batch
    served.lane.queue_rows = service.queue
    if service.cache and served.cache is None:
        served.cache = Cache()
    elif not service.cache:
        served.cache = None
