"""What `Control.status()` tells: the shape that the console, `flyball status` and the demonstration read.

Every part may be missing or empty: a reader shows what is there. Times are microseconds of domain time unless the name
says otherwise, durations and latencies microseconds, rates per second of real time, shares from 0 to 1.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Health = Literal["ok", "busy", "idle", "warn", "bad"]


class SourceStatus(TypedDict, total=False):
    name: str
    rows: int  # accepted events, all time
    rate: float  # accepted events per second, lately
    quarantined: int  # rows that broke their contract, all time
    quarantine_open: int  # those that wait to be retried or dropped
    warnings: dict[str, int]  # by rule: rows or pushes that were accepted all the same, all time
    contract: list[dict[str, Any]]  # the rules on freshness and volume: `rule`, `ok` (None: not judged yet), `text`
    lag: int  # events in the log that online state does not show yet
    lsn: int  # the last one given
    last_event: int | None  # event time of the newest event
    pull: dict[str, Any] | None  # of a source with an origin, with `error`
    derive: dict[str, Any] | None  # of a derived source, with `error`


class ViewStatus(TypedDict, total=False):
    name: str
    source: str
    entities: int
    ready: bool  # False while it is being built from lake and log
    build: dict[str, Any]  # while it is: `rows` of `of` done, `seconds_left`


class RunStatus(TypedDict, total=False):
    run: str  # its id
    model: str
    state: str  # queued, running, succeeded, failed, …
    reason: str  # who or what started it
    created: int
    finished: int | None
    rows: int
    metrics: dict[str, float]
    version: int | None  # what it registered
    error: str


class VersionStatus(TypedDict, total=False):
    model: str
    version: int
    digest: str
    created: int
    run: str
    metrics: dict[str, float]
    aliases: list[str]


class RouteStatus(TypedDict, total=False):
    version: str  # "model/7"
    weight: float  # share of the traffic, 0 to 1
    arm: str


class ServiceStatus(TypedDict, total=False):
    name: str
    model: str
    routes: list[RouteStatus]
    requests: int  # predictions logged, all time
    rate: float
    p50: int
    p99: int
    errors: float  # share of failed predictions, lately
    labels: int  # predictions whose label came back


class RolloutStatus(TypedDict, total=False):
    service: str
    version: int
    previous: int | None
    kind: str  # full, canary
    state: str  # running, done, aborted, waiting (for an approval)
    step: int
    steps: int
    weight: float
    since: int
    reason: str


class DriftStatus(TypedDict, total=False):
    service: str
    state: Literal["ok", "drift", "unknown"]
    score: float
    threshold: float
    feature: str  # the one that moved most
    calibrated: bool
    at: int


class QualityStatus(TypedDict, total=False):
    service: str
    metric: str
    value: float | None
    baseline: float | None
    labels: int
    dropped: bool


class SkewStatus(TypedDict, total=False):
    service: str
    version: str
    compared: int  # served values, lately
    mismatched: int
    causes: dict[str, int]
    bound: float  # the rate of mismatches that is not ruled out at 95 %
    told: str  # the bound in words
    limit: float | None  # the service's max_skew
    effect: float | None  # the largest change of a score


class AlertStatus(TypedDict, total=False):
    id: str
    kind: str
    subject: str
    message: str
    at: int
    open: bool


class RetrainStatus(TypedDict, total=False):
    service: str
    count: int
    last: int | None
    trigger: str
    state: str  # idle, running, cooling down, waiting (for an approval)
    next: int | None


class ProcessStatus(TypedDict, total=False):
    name: str  # control, ingest, worker-0
    state: str  # running, starting, down
    pid: int
    since_wall: int
    restarts: int
    epoch: int  # of the plan it has loaded
    error: str


class Status(TypedDict, total=False):
    version: str
    at: int
    replay: bool  # True: domain time is a replay clock
    projects: list[str]
    sources: list[SourceStatus]
    views: list[ViewStatus]
    runs: list[RunStatus]  # newest first
    versions: list[VersionStatus]  # newest first
    services: list[ServiceStatus]
    rollouts: list[RolloutStatus]  # newest first
    drift: list[DriftStatus]
    skew: list[SkewStatus]
    quality: list[QualityStatus]
    alerts: list[AlertStatus]  # newest first
    retrain: list[RetrainStatus]
    processes: list[ProcessStatus]
    details: dict[str, Any]  # what no page shows, for machines
