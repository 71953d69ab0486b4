"""Settings: the one place where the environment is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flyball.kernel.errors import InvalidError

DEFAULT_PORT = 7700


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Where a platform keeps its state and where it listens.

    Ports: control is `port`, ingest `port + 1`, inference `port + 2`; 0 picks free ones (see `endpoints.json`).
    """

    state: Path = field(default_factory=lambda: Path(".flyball"))
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    workers: int | str = 1  # a number, or bounds such as "1:4"
    drain_window: float = 0.0  # seconds for which workers that are asked to end go on, while readiness says so
    replay_from: int | None = None  # domain time of a replay clock at first start; None: the wall clock
    log_level: str = "info"
    audit_share: float = 0.05  # of the entities, with which the skew audit begins; it adapts to what it has time for

    def __post_init__(self) -> None:
        if self.port and not 1 <= self.port <= 65_533:
            raise InvalidError(
                f"port {self.port} is out of range; use 1 to 65533, or 0 for a free one", code="bad_port"
            )
        worker_bounds(self.workers)
        if not 0 <= self.audit_share <= 1:
            raise InvalidError(
                f"the share of entities that are audited is {self.audit_share:g}; use 0 (none) to 1 (all)",
                code="bad_audit_share",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSettings:
    """Where a client finds the platform, and the token it shows."""

    url: str = f"http://127.0.0.1:{DEFAULT_PORT}"
    token: str = ""


def worker_bounds(workers: int | str) -> tuple[int, int]:
    """The least and the most workers that `2` or `1:4` asks for.

    >>> worker_bounds(2), worker_bounds("1:4")
    ((2, 2), (1, 4))
    """
    low, _, high = str(workers).partition(":")
    try:
        minimum = int(low)
        maximum = int(high) if high else minimum
    except ValueError:
        minimum = maximum = 0
    if not 1 <= minimum <= maximum:
        raise InvalidError(
            f"workers must be a number from 1 on, or bounds MIN:MAX, not {str(workers)!r}",
            code="bad_workers",
            hint="use --workers 2, or --workers 1:4 to let the load decide",
        )
    return minimum, maximum


def client_settings(environment: Mapping[str, str] | None = None, *, state: Path | None = None) -> ClientSettings:
    """Read `FLYBALL_URL` and `FLYBALL_TOKEN`; without a token, the one in `STATE/token`, where it is readable."""
    env = os.environ if environment is None else environment
    token = env.get("FLYBALL_TOKEN", "")
    folder = state or Path(env.get("FLYBALL_STATE", ".flyball"))
    if not token:
        try:
            token = (folder / "token").read_text().strip()
        except OSError:
            token = ""
    return ClientSettings(url=env.get("FLYBALL_URL", ClientSettings().url).rstrip("/"), token=token)


def secret_value(name: str, environment: Mapping[str, str] | None = None) -> str:
    """The value behind `fb.secret(name)`; read as late as possible, never stored."""
    env = os.environ if environment is None else environment
    value = env.get(name)
    if value is None:
        raise InvalidError(
            f"the secret {name!r} is not set", code="secret_missing", hint=f"export {name}=… where the platform starts"
        )
    return value
