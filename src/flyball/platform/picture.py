"""What control knows, in the shape that the console shows (`flyball.console.view.Status`)."""

from __future__ import annotations

from typing import Any, Protocol

from flyball.kernel.errors import FlyballError

Data = dict[str, Any]
WEIGHT = 10_000  # of all traffic
RUNS = 20
ROLLOUT_STATES = {
    "stepping": "running",
    "promoting": "running",
    "aborting": "aborting",
    "promoted": "done",
    "aborted": "aborted",
    "superseded": "superseded",
}


class Core(Protocol):
    def status(self) -> Data: ...
    def runs(self, *, model: str = "", kind: str = "", limit: int = 50) -> list[Data]: ...
    def versions(self, model: str) -> Data: ...
    def service(self, name: str) -> Data: ...
    def quality(self, service: str) -> Data: ...
    def drift(self, service: str) -> Data: ...
    def skew(self, service: str) -> Data: ...
    def facts(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[Data]: ...


def picture(core: Core) -> Data:
    """Control's part of the status. What it tells beyond the shape stays, under `details`."""
    status = core.status()
    names = [service["service"] for service in status["services"]]
    services = [core.service(name) for name in names]
    runs = core.runs(limit=RUNS)
    models = dict.fromkeys([service["model"] for service in services] + [run["model"] for run in runs])
    versions = [version for model in models for version in versions_of(core, model)]
    histories = [rollout_of(state) for service in services for state in service["history"]]
    waiting = [waiting_of(service) for service in services if service.get("awaiting")]
    return {
        "at": status["at"],
        "projects": [project["name"] for project in status["projects"]],
        "services": [service_of(service) for service in services],
        "runs": [run_of(run, versions) for run in runs],
        "versions": sorted(versions, key=lambda version: -version["created"]),
        "rollouts": waiting + sorted(histories, key=lambda rollout: -rollout["since"]),
        "drift": [drift_of(core.drift(name)) for name in names],
        "skew": [skew_of(core.skew(name)) for name in names],
        "quality": [quality_of(core.quality(name)) for name in names],
        "alerts": [alert_of(alert) for service in services for alert in service["alerts"]],
        "retrain": [retrain_of(service, runs) for service in services if service["spec"].get("retrain")],
        "predictions": status["predictions"],
        "erasures": status.get("erasures", []),
        "details": {key: status[key] for key in ("plans", "loops") if key in status},
    }


def versions_of(core: Core, model: str) -> list[Data]:
    try:
        answer = core.versions(model)
    except FlyballError:
        return []  # a run of a model that left the project
    aliases: dict[str, list[str]] = {}
    for alias, version in (answer.get("aliases") or {}).items():
        aliases.setdefault(str(version), []).append(alias)
    return [
        {
            "model": model,
            "version": version["number"],
            "digest": version["digest"],
            "created": version["created"],
            "run": version["run"],
            "metrics": {name: value for name, value in version["metrics"].items() if isinstance(value, int | float)},
            "evaluation": version["evaluation"],
            "aliases": aliases.get(str(version["number"]), []) + aliases.get(version["version"], []),
        }
        for version in answer["versions"]
    ]


def service_of(service: Data) -> Data:
    routes = [{**route, "weight": route["weight"] / WEIGHT} for route in service["routes"]]
    return {"name": service["service"], "model": service["model"], "version": service["version"], "routes": routes}


def run_of(run: Data, versions: list[Data]) -> Data:
    result = run.get("result") or {}
    error = run.get("error") or {}
    registered = next((version["version"] for version in versions if version["run"] == run["run"]), None)
    kept = ("run", "kind", "model", "state", "created", "started", "finished", "cause")
    return {key: run.get(key) for key in kept} | {
        "reason": run.get("reason") or run.get("cause") or "",
        "not_yet": run.get("not_yet") or "",
        "rows": result.get("rows"),
        "metrics": result.get("metrics") or {},
        "version": registered,
        "error": error.get("message", ""),
    }


def rollout_of(state: Data) -> Data:
    steps = state["spec"].get("steps") or ()
    return {
        "service": state["service"],
        "version": state["version"].rpartition("/")[2],
        "previous": state["previous"],
        "kind": state["spec"].get("kind", "full"),
        "state": ROLLOUT_STATES.get(state["phase"], state["phase"]),
        "phase": state["phase"],
        "step": state["step"] + 1,
        "steps": len(steps),
        "weight": state["weight"] / WEIGHT,
        "since": state["started_at"],
        "reason": state["reason"],
    }


def waiting_of(service: Data) -> Data:
    awaiting = service["awaiting"]
    return {
        "service": service["service"],
        "version": awaiting["version"].rpartition("/")[2],
        "state": "waiting",
        "weight": 0.0,
        "since": awaiting["since"],
        "reason": f"flyball approve {service['service']}",
    }


def drift_of(answer: Data) -> Data:
    judged = next((period for period in answer["periods"] if period["enough"]), None)
    told = {"service": answer["service"], "threshold": answer["rule"]["threshold"], "calibrated": False}
    if judged is None:
        return told | {"state": "unknown"}
    worst = judged["features"][0] if judged["features"] else {"feature": "", "distance": 0.0}
    return told | {
        "state": "drift" if judged["drifted"] else "ok",
        "score": worst["distance"],
        "feature": worst["feature"],
        "at": judged["start"],
    }


def skew_of(answer: Data) -> Data:
    kept = ("service", "version", "compared", "mismatched", "causes", "bound", "told", "limit")
    return {name: answer[name] for name in kept} | {"effect": answer["effect"]["max"]}


def quality_of(answer: Data) -> Data:
    """The newest period of the serving version that has a value; labels are those of all its periods."""
    periods = [period for period in answer["periods"] if period["version"] == answer["version"]]
    newest = next((period for period in periods if period["value"] is not None), None)
    return {
        "service": answer["service"],
        "metric": answer["metric"],
        "value": newest["value"] if newest else None,
        "baseline": answer["baseline"],
        "labels": sum(period["labelled"] for period in periods),
        "dropped": any(alert["closed_at"] is None for alert in answer["alerts"]),
    }


def alert_of(alert: Data) -> Data:
    uncalibrated = " (uncalibrated)" if alert["details"].get("uncalibrated") else ""
    return {
        "id": alert["id"],
        "kind": alert["kind"],
        "subject": f"service:{alert['service']}",
        "message": f"{alert['version']}: {alert['details'].get('reason', '')}{uncalibrated}",
        "at": alert["opened_at"],
        "open": alert["closed_at"] is None,
    }


def retrain_of(service: Data, runs: list[Data]) -> Data:
    mine = [run for run in runs if run.get("cause") == "retrain" and run["model"] == service["model"]]
    return {
        "service": service["service"],
        "count": len(mine),
        "last": mine[0]["created"] if mine else None,
        "trigger": mine[0]["reason"] if mine else "",
        "state": "running" if any(run["state"] in ("queued", "running") for run in mine) else service["retrain"],
        "next": None,
    }
