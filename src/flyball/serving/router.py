"""Which version answers a request: by weight, and always the same one for the same key.

A key's place among 10 000 is the hash of (salt, key); versions take consecutive ranges of places in the plan's order.
So while a canary's weight grows, keys only move towards it, and the chance with which a request went where it went
(its propensity) is known exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from flyball.serving.plan import TOTAL_WEIGHT, Route, ServicePlan


def choose(service: ServicePlan, unit: bytes) -> Route:
    """The route of a request that is identified by `unit`: its key, or a random id."""
    if len(service.routes) == 1:
        return service.routes[0]
    place = _place(service.salt, unit)
    for route in service.routes:
        place -= route.weight
        if place < 0:
            return route
    raise AssertionError("weights sum to less than the whole; `plan.decode` refuses such a plan")


def propensity(route: Route) -> float:
    return route.weight / TOTAL_WEIGHT


def key_of(service: ServicePlan, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request's key, or None where the service has none or a part of it is missing."""
    if not service.key:
        return None
    key = {name: row.get(name) for name in service.key}
    return key if all(isinstance(value, str | int | float) for value in key.values()) else None


def unit_of(key: Mapping[str, Any] | None, prediction: str) -> bytes:
    """What is hashed: the key's values in the plan's order, or the prediction's own id."""
    text = prediction if key is None else "\x1f".join(str(value) for value in key.values())
    return text.encode("utf-8", "surrogatepass")


def _place(salt: str, unit: bytes) -> int:
    hashed = hashlib.blake2b(unit, digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(hashed, "little") % TOTAL_WEIGHT
