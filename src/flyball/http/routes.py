"""The one table of routes: every path of every process, and the permission it needs. What is not here is refused.

Patterns use `{name}` for one path segment. Handlers never decide about access: the process that serves a route checks
the caller's token against `permission` before the handler runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Process = Literal["control", "ingest", "inference", "all"]


class Permission(StrEnum):
    PUBLIC = "public"  # no token
    READ = "read"
    INGEST = "ingest"
    PREDICT = "predict"
    TRAIN = "train"
    RELEASE = "release"
    APPLY = "apply"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    process: Process
    method: str
    path: str
    permission: Permission
    name: str  # the handler's name; unique within a process


def _route(process: Process, method: str, path: str, permission: Permission, name: str) -> Route:
    return Route(process=process, method=method, path=path, permission=permission, name=name)


P = Permission
ROUTES: tuple[Route, ...] = (
    # every process
    _route("all", "GET", "/healthz", P.PUBLIC, "healthz"),
    _route("all", "GET", "/readyz", P.PUBLIC, "readyz"),
    _route("all", "GET", "/metrics", P.READ, "metrics"),
    # ingest
    _route("ingest", "POST", "/v1/events/{source}", P.INGEST, "push_events"),
    _route("ingest", "POST", "/v1/files/{source}", P.INGEST, "push_file"),
    _route("ingest", "POST", "/v1/feedback", P.INGEST, "push_feedback"),
    _route("ingest", "GET", "/v1/sources", P.READ, "list_sources"),
    _route("ingest", "POST", "/v1/sources/{source}/pull", P.INGEST, "pull_source"),
    _route("ingest", "GET", "/v1/sources/{source}/quarantine", P.READ, "list_quarantine"),
    _route("ingest", "POST", "/v1/sources/{source}/quarantine/retry", P.INGEST, "retry_quarantine"),
    _route("ingest", "POST", "/v1/sources/{source}/quarantine/drop", P.INGEST, "drop_quarantine"),
    _route("ingest", "GET", "/v1/quarantine/{id}", P.READ, "show_quarantined"),
    _route("ingest", "POST", "/v1/flush", P.INGEST, "flush"),
    _route("ingest", "POST", "/v1/sources/{source}/erase", P.ADMIN, "erase_rows"),
    # inference
    _route("inference", "GET", "/openapi.json", P.READ, "openapi"),
    _route("inference", "GET", "/v2/health/live", P.PUBLIC, "oip_live"),
    _route("inference", "GET", "/v2/health/ready", P.PUBLIC, "oip_ready"),
    _route("inference", "GET", "/v2", P.PUBLIC, "oip_server"),
    _route("inference", "GET", "/v2/models", P.READ, "oip_models"),
    _route("inference", "GET", "/v2/models/stats", P.READ, "oip_statistics"),
    _route("inference", "GET", "/v2/models/{model}", P.READ, "oip_model"),
    _route("inference", "GET", "/v2/models/{model}/ready", P.PUBLIC, "oip_model_ready"),
    _route("inference", "GET", "/v2/models/{model}/stats", P.READ, "oip_model_statistics"),
    _route("inference", "POST", "/v2/models/{model}/infer", P.PREDICT, "oip_infer"),
    _route("inference", "GET", "/v2/models/{model}/versions/{version}", P.READ, "oip_model_version"),
    _route("inference", "GET", "/v2/models/{model}/versions/{version}/ready", P.PUBLIC, "oip_model_version_ready"),
    _route("inference", "GET", "/v2/models/{model}/versions/{version}/stats", P.READ, "oip_version_statistics"),
    _route("inference", "POST", "/v2/models/{model}/versions/{version}/infer", P.PREDICT, "oip_infer_version"),
    _route("inference", "POST", "/v2/repository/index", P.READ, "oip_index"),
    _route("inference", "POST", "/v1/services/{service}:predict", P.PREDICT, "predict"),
    # control
    _route("control", "GET", "/", P.READ, "console"),
    _route("control", "GET", "/console/loop", P.READ, "console_loop"),
    _route("control", "GET", "/console/static/{file}", P.PUBLIC, "console_static"),
    _route("control", "GET", "/open", P.PUBLIC, "console_open"),
    _route("control", "GET", "/v1/status", P.READ, "status"),
    _route("control", "GET", "/v1/endpoints", P.READ, "endpoints"),
    _route("control", "GET", "/v1/facts", P.READ, "list_facts"),
    _route("control", "POST", "/v1/clock", P.ADMIN, "advance_clock"),
    _route("control", "PUT", "/v1/artifacts/{digest}", P.APPLY, "put_artifact"),
    _route("control", "GET", "/v1/projects/{project}", P.READ, "get_project"),
    _route("control", "POST", "/v1/projects/{project}/plan", P.READ, "plan_project"),
    _route("control", "POST", "/v1/projects/{project}/apply", P.APPLY, "apply_project"),
    _route("control", "POST", "/v1/models/{model}/train", P.TRAIN, "train"),
    _route("control", "GET", "/v1/runs", P.READ, "list_runs"),
    _route("control", "GET", "/v1/runs/{run}", P.READ, "get_run"),
    _route("control", "GET", "/v1/runs/{run}/logs", P.READ, "run_logs"),
    _route("control", "GET", "/v1/models/{model}/versions", P.READ, "list_versions"),
    _route("control", "GET", "/v1/services/{service}", P.READ, "get_service"),
    _route("control", "POST", "/v1/services/{service}/release", P.RELEASE, "release"),
    _route("control", "POST", "/v1/services/{service}/rollback", P.RELEASE, "rollback"),
    _route("control", "POST", "/v1/services/{service}/approve", P.RELEASE, "approve"),
    _route("control", "GET", "/v1/services/{service}/quality", P.READ, "service_quality"),
    _route("control", "GET", "/v1/services/{service}/drift", P.READ, "service_drift"),
    _route("control", "GET", "/v1/services/{service}/skew", P.READ, "service_skew"),
    _route("control", "GET", "/v1/views", P.READ, "list_views"),
    _route("control", "GET", "/v1/views/{view}/sql", P.READ, "view_sql"),
    _route("control", "GET", "/v1/views/{view}/features/{feature}/explain", P.READ, "explain_feature"),
    _route("control", "GET", "/v1/predictions/{prediction}", P.READ, "get_prediction"),
    _route("control", "GET", "/v1/batches/{batch}", P.READ, "get_batch"),
    _route("control", "POST", "/v1/erasures", P.ADMIN, "erase"),
    _route("control", "GET", "/v1/erasures", P.ADMIN, "list_erasures"),
    _route("control", "GET", "/v1/erasures/{erasure}", P.ADMIN, "get_erasure"),
)


def routes_of(process: Process) -> tuple[Route, ...]:
    """The routes that one process serves, the common ones included."""
    return tuple(route for route in ROUTES if route.process in (process, "all"))
