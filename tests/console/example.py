"""A status as a busy platform gives it."""

from flyball.console.view import Status
from flyball.kernel.times import parse_time

AT = parse_time("2026-03-14T10:30:00Z")

BUSY: Status = {
    "version": "0.1.0",
    "at": AT,
    "replay": True,
    "projects": ["payments"],
    "sources": [
        {"name": "Payments", "rows": 184_233, "rate": 412.5, "quarantined": 40, "quarantine_open": 31, "lag": 120,
         "last_event": AT, "warnings": {"contactless_limit": 265},
         "contract": [{"rule": "not_late", "ok": False, "text": "the newest event is 2h old; at most 1h"}]},
        {"name": "Chargebacks", "rows": 1_204, "rate": 2.0, "quarantined": 0, "lag": 0},
    ],
    "views": [
        {"name": "CardPayments", "source": "Payments", "entities": 5_012, "ready": True},
        {"name": "ShopPayments", "source": "Payments", "ready": False,
         "build": {"rows": 40_000, "of": 184_233, "seconds_left": 3.6}},
    ],
    "runs": [
        {"run": "run_01hzy3", "model": "fraud", "state": "running", "reason": "drift", "created": AT},
        {"run": "run_01hzx1", "model": "fraud", "state": "succeeded", "reason": "cli", "created": AT - 10**10},
    ],
    "versions": [
        {"model": "fraud", "version": 2, "created": AT, "metrics": {"auc": 0.9342, "logloss": 0.0811}},
        {"model": "fraud", "version": 1, "created": AT - 10**10, "metrics": {"auc": 0.921}, "aliases": ["live"]},
    ],
    "services": [
        {
            "name": "fraud",
            "model": "fraud",
            "routes": [{"version": "fraud/1", "weight": 0.75}, {"version": "fraud/2", "weight": 0.25}],
            "requests": 88_001,
            "rate": 203.1,
            "p50": 1_210,
            "p99": 6_400,
            "errors": 0.0,
            "labels": 4_210,
        }
    ],
    "rollouts": [
        {"service": "fraud", "version": 2, "kind": "canary", "state": "running", "step": 3, "steps": 4, "weight": 0.25}
    ],
    "drift": [{"service": "fraud", "state": "drift", "score": 0.41, "threshold": 0.2, "feature": "n_1h",
               "calibrated": False}],
    "quality": [{"service": "fraud", "metric": "auc", "value": 0.871, "baseline": 0.921, "labels": 4_210,
                 "dropped": True}],
    "skew": [{"service": "fraud", "version": "fraud/1", "compared": 120_000, "mismatched": 36, "causes": {"ttl": 36},
              "bound": 0.0004, "told": "≤ 0.0004 at 95 %", "limit": 0.0001, "effect": 0.02}],
    "alerts": [{"id": "a1", "kind": "drift", "subject": "service:fraud", "message": "n_1h moved: 0.41 > 0.2",
                "at": AT, "open": True}],
    "retrain": [{"service": "fraud", "count": 1, "last": AT, "trigger": "drift", "state": "running"}],
    "processes": [
        {"name": "control", "state": "running", "pid": 4101, "restarts": 0},
        {"name": "ingest", "state": "running", "pid": 4102, "restarts": 0, "epoch": 3},
        {"name": "workers", "state": "running", "pid": 4103, "restarts": 1, "epoch": 9},
    ],
}  # fmt: skip
