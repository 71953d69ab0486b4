"""From a project in the user's process to one that is applied: compile, check, bundle, plan, apply."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyball.client.client import Client
from flyball.define.bundle import bundle_files, bundle_zip
from flyball.define.check import check
from flyball.define.compile import compile_project, pretrained_files
from flyball.define.load import load_project
from flyball.define.problem import Problem
from flyball.define.project import Project
from flyball.define.spec import ProjectSpec
from flyball.kernel.errors import ConflictError, InvalidError
from flyball.kernel.files import read_document, write_document
from flyball.kernel.ids import digest

PLAN_FORMAT = "flyball.plan"


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """A compiled project and the bytes that must be stored before it is applied, by their SHA-256."""

    spec: ProjectSpec
    artifacts: dict[str, bytes] = field(repr=False)
    warnings: tuple[Problem, ...] = ()


def pack(project: Project | str | Path) -> Packed:
    """Compile and check a project (or the one at a path), and bundle its code where a model is trained.

    Raises:
        InvalidError: `project_invalid`, with all problems, where one of them is an error.
    """
    declared = project if isinstance(project, Project) else load_project(project)
    bare = compile_project(declared)
    problems = check(declared)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise InvalidError(
            "\n".join([f"the project {declared.name!r} cannot be applied:", *(f"  {p}" for p in errors)]),
            code="project_invalid",
            details={"problems": [p.to_data() for p in problems]},
        )
    artifacts = {name: path.read_bytes() for name, path in pretrained_files(declared).items()}
    if not any(model.function for model in bare.models):
        return Packed(spec=bare, artifacts=artifacts, warnings=tuple(problems))
    code = bundle_zip(bundle_files(declared.root))
    spec = compile_project(declared, bundle=digest(code))
    return Packed(spec=spec, artifacts={**artifacts, digest(code): code}, warnings=tuple(problems))


def apply(client: Client, packed: Packed, plan: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Apply a packed project as planned (or by a fresh plan); gives the plan that was applied.

    Raises:
        ConflictError: `change_refused` where a change cannot be made; `stale_plan` where another apply came between.
    """
    done = dict(plan if plan is not None else client.plan(packed.spec.to_data()))
    refused = [change for change in done.get("changes") or [] if change.get("refused")]
    if refused:
        said = "\n".join(f"  {c['kind']} {c['name']}: {c['refused']}" for c in refused)
        raise ConflictError(f"these changes cannot be made:\n{said}", code="change_refused")
    if done.get("changes"):
        for data in packed.artifacts.values():
            client.put_artifact(data)
        client.apply(packed.spec.to_data(), base=str(done.get("base", "")))
    return done


def save_plan(path: Path, packed: Packed, plan: Mapping[str, Any]) -> None:
    """A plan as a file that holds all it needs: what is applied later is exactly what was seen."""
    artifacts = {name: base64.b64encode(data).decode() for name, data in packed.artifacts.items()}
    body = {"plan": {**plan, "spec": packed.spec.to_data()}, "artifacts": artifacts}
    write_document(path, PLAN_FORMAT, body)


def read_plan(path: Path) -> tuple[Packed, dict[str, Any]]:
    """What `save_plan` wrote; artifacts that are not what their names say are refused."""
    from flyball.define.spec import project_from_data

    body = read_document(path, PLAN_FORMAT)
    artifacts = {name: base64.b64decode(text) for name, text in body["artifacts"].items()}
    for name, data in artifacts.items():
        if digest(data) != name:
            raise InvalidError(f"{path.name} was changed after it was saved", code="bad_plan")
    return Packed(spec=project_from_data(body["plan"]["spec"]), artifacts=artifacts), body["plan"]
