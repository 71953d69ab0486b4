"""A core that remembers what it was asked, for tests of the shells around it."""

from __future__ import annotations

from typing import Any

from flyball.kernel.errors import NotFoundError
from flyball.kernel.facts import Actor

Data = dict[str, Any]


class FakeCore:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def plan(self, spec: Data) -> Data:
        return {"base": "b", "changes": []}

    def apply(self, spec: Data, *, base: str, actor: Actor) -> Data:
        self.asked.append(("apply", spec, base, actor))
        return {"digest": "d"}

    def project(self, name: str) -> Data:
        raise NotFoundError(f"no project {name!r}", code="project_not_found", hint="flyball apply")

    def put_artifact(self, data: bytes) -> str:
        self.asked.append(("put_artifact", data))
        return "stored"

    def train(self, model: str, *, actor: Actor, reason: str = "", params: Data | None = None) -> Data:
        self.asked.append(("train", model, actor, reason, params))
        return {"id": "run_1"}

    def runs(self, *, model: str = "", limit: int = 50) -> list[Data]:
        return []

    def run(self, run: str) -> Data:
        return {"id": run}

    def run_logs(self, run: str, after: int = 0) -> list[Data]:
        return [{"n": after}]

    def versions(self, model: str) -> list[Data]:
        return []

    def service(self, name: str) -> Data:
        raise ZeroDivisionError("secret-marker")

    def release(self, service: str, *, version: str | None, strategy: str | None = None, actor: Actor) -> Data:
        self.asked.append(("release", service, version, strategy, actor.name))
        return {}

    def rollback(self, service: str, *, actor: Actor) -> Data:
        return {}

    def approve(self, service: str, *, version: str | None, actor: Actor) -> Data:
        return {}

    def quality(self, service: str) -> Data:
        return {}

    def drift(self, service: str) -> Data:
        return {}

    def prediction(self, prediction: str) -> Data:
        return {}

    def batch(self, name: str) -> Data:
        return {}

    def facts(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[Data]:
        return [{"subject": subject, "kind": kind, "limit": limit}]

    def status(self) -> Data:
        return {"at": 5_000_000, "sources": [{"name": 'a"b', "rows": 3}], "projects": ["p"]}

    def advance_clock(self, at: int, actor: Actor) -> int:
        return at
