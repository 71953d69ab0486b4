"""Finding what is asked for by name, or saying what there is instead."""

from __future__ import annotations

import re

from flyball.define.spec import BatchSpec, ModelSpec, ProjectSpec, ServiceSpec
from flyball.kernel.errors import InvalidError, NotFoundError, did_you_mean
from flyball.loop.ports import Unit
from flyball.registry.ports import VersionRecord

NUMBER = re.compile(r"[0-9]{1,9}")  # `isdigit` takes what `int` refuses, and the database has an end


def service_of(unit: Unit, name: str) -> tuple[ProjectSpec, ServiceSpec]:
    pairs = {s.name: (project, s) for project in unit.projects.all() for s in project.services}
    if name not in pairs:
        raise NotFoundError(f"there is no service {name!r}: {did_you_mean(name, pairs)}", code="service_not_found")
    return pairs[name]


def model_of(unit: Unit, name: str) -> tuple[ProjectSpec, ModelSpec]:
    pairs = {m.name: (project, m) for project in unit.projects.all() for m in project.models}
    if name not in pairs:
        raise NotFoundError(f"there is no model {name!r}: {did_you_mean(name, pairs)}", code="model_not_found")
    return pairs[name]


def batch_of(unit: Unit, name: str) -> BatchSpec:
    batches = {b.name: b for project in unit.projects.all() for b in project.batches}
    if name not in batches:
        raise NotFoundError(f"there is no batch {name!r}: {did_you_mean(name, batches)}", code="batch_not_found")
    return batches[name]


def version_of(unit: Unit, service: ServiceSpec, version: int | str) -> str:
    text = str(version)
    ref = text if "/" in text else f"{service.model}/{text}"
    model, _, number = ref.rpartition("/")
    if model != service.model or not NUMBER.fullmatch(number):
        raise InvalidError(
            f"{text!r} is not a version of {service.model}, which {service.name} serves",
            code="bad_version",
            hint=f"write its number, as `flyball status` or GET /v1/models/{service.model}/versions shows it",
        )
    return version_record(unit, ref).ref


def version_record(unit: Unit, ref: str) -> VersionRecord:
    model, _, number = ref.rpartition("/")
    return unit.versions.get(model, int(number))
