"""A core that remembers what it was asked, for tests of the shells around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flyball.define.spec import ProjectSpec, RolloutSpec
from flyball.kernel.errors import NotFoundError
from flyball.kernel.facts import Actor

Data = dict[str, Any]


class FakeCore:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def plan(self, project: ProjectSpec) -> Data:
        return {"base": "b", "changes": []}

    def apply(self, project: ProjectSpec, *, base: str, actor: Actor) -> Data:
        self.asked.append(("apply", project.name, base, actor))
        return {"digest": "d"}

    def project(self, name: str) -> ProjectSpec:
        if name == "known":
            return ProjectSpec(name=name)
        raise NotFoundError(f"no project {name!r}", code="project_not_found", hint="flyball apply")

    def put_artifact(self, data: bytes) -> str:
        self.asked.append(("put_artifact", data))
        return "stored"

    def train(self, model: str, *, actor: Actor, reason: str = "", params: Data | None = None) -> Data:
        self.asked.append(("train", model, actor, reason, params))
        return {"run": "run_1"}

    def runs(self, *, model: str = "", kind: str = "", limit: int = 50) -> list[Data]:
        return []

    def run(self, run: str) -> Data:
        return {"run": run}

    def run_logs(self, run: str, after: int = 0) -> Data:
        return {"lines": [], "next": after, "final": True}

    def versions(self, model: str) -> Data:
        return {"model": model, "versions": [{"number": 9, "version": "m/9"}, {"number": 10, "version": "m/10"}]}

    def service(self, name: str) -> Data:
        if name == "broken":
            raise ZeroDivisionError("secret-marker")
        return {"service": name, "model": "m", "awaiting": {"version": "m/10"} if name == "waits" else None}

    def release(self, service: str, *, version: int | str, strategy: RolloutSpec | None = None, actor: Actor) -> Data:
        self.asked.append(("release", service, version, strategy.kind if strategy else None, actor.name))
        return {}

    def rollback(self, service: str, *, actor: Actor) -> Data:
        return {}

    def approve(self, service: str, *, version: int | str, actor: Actor) -> Data:
        self.asked.append(("approve", service, version))
        return {}

    def quality(self, service: str) -> Data:
        return {}

    def drift(self, service: str) -> Data:
        return {}

    def skew(self, service: str) -> Data:
        return {"service": service, "compared": 0}

    def views(self) -> list[Data]:
        return [{"view": "V"}]

    def view_sql(self, view: str, *, kind: str = "delta", table: str = "") -> Data:
        return {"view": view, "sql": f"{kind} {table}"}

    def explain(
        self, view: str, feature: str, *, entity: Mapping[str, Any], at: int | None = None, prediction: str = ""
    ) -> Data:
        self.asked.append(("explain", view, feature, dict(entity), at, prediction))
        return {"view": view}

    def prediction(self, prediction: str) -> Data:
        return {}

    def batch(self, name: str) -> Data:
        return {}

    def erase(
        self,
        source: str,
        column: str,
        value: str,
        *,
        also: Sequence[tuple[str, str]] = (),
        actor: Actor,
        dry_run: bool = False,
    ) -> Data:
        self.asked.append(("erase", source, column, value, list(also), actor.name, dry_run))
        return {"erasure": "erasure_1", "step": "requested"}

    def erasure(self, erasure: str) -> Data:
        return {"erasure": erasure, "step": "done"}

    def erasures(self, *, limit: int = 100) -> list[Data]:
        return []

    def facts(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[Data]:
        return [{"subject": subject, "kind": kind, "limit": limit}]

    def status(self) -> Data:
        return {"at": 5_000_000, "sources": [{"name": 'a"b', "rows": 3}], "projects": ["p"]}

    def advance_clock(self, at: int, actor: Actor) -> Data:
        return {"at": at}
