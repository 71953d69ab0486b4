"""The receipt of a prediction: from its id to the version, the run, the data, the features, the code, the approvals."""

from __future__ import annotations

from typing import Any

from flyball.governance.facts import fact_data
from flyball.kernel.errors import NotFoundError
from flyball.loop.erase import marks
from flyball.loop.ports import Packages, Unit
from flyball.registry.ports import VersionRecord


def receipt(unit: Unit, packages: Packages, record: dict[str, Any]) -> dict[str, Any]:
    """Everything that led to a prediction; `record` is the prediction as it was logged."""
    service, ref = str(record["service"]), str(record["version"])
    found: dict[str, Any] = {"prediction": record, "service": service, "cost": record.get("cost")}
    model, _, number = ref.rpartition("/")
    if not number.isdigit():
        return found  # answered without a version, such as by the service's default
    version = unit.versions.get(model, int(number))
    manifest = packages.manifest(version.digest)
    return found | {
        "version": version_data(version),
        "run": _run(unit, version) | {"erased": marks(unit.erasures.list(limit=10_000), version.run)},
        "snapshot": manifest.get("snapshot") or {},
        "features": [{"name": feature["name"], "expr": feature["expr"]} for feature in manifest.get("features") or []],
        "views": [
            {"name": view["name"], "source": view["source"], "kind": view["kind"]}
            for view in manifest.get("views") or []
        ],
        "code": {"bundle": manifest.get("bundle", ""), "environment": manifest.get("environment") or {}},
        "approvals": approvals(unit, service, ref),
    }


def approvals(unit: Unit, service: str, ref: str) -> list[dict[str, Any]]:
    """Who brought a version to a service: the facts of its releases and approvals, the newest first."""
    facts = unit.facts.list(subject=f"service:{service}", limit=500)
    kinds = ("rollout.start", "rollout.promote", "rollout.finish", "release.approve")
    return [fact_data(f) for f in facts if f.kind in kinds and (f.after or {}).get("version") == ref]


def version_data(version: VersionRecord) -> dict[str, Any]:
    return {
        "version": version.ref,
        "model": version.model,
        "number": version.number,
        "digest": version.digest,
        "run": version.run,
        "created": version.created,
        "metrics": version.metrics,
        "evaluation": version.evaluation,
        "gate": version.gate,
    }


def _run(unit: Unit, version: VersionRecord) -> dict[str, Any]:
    try:
        run = unit.runs.get(version.run)
    except NotFoundError:
        return {"id": version.run}  # made by an apply, not by a run
    return {
        "id": run.id,
        "actor": run.actor,
        "reason": run.reason,
        "created": run.created,
        "started": run.started,
        "finished": run.finished,
        "params": run.spec.params,
        "seed": run.spec.seed,
    }
