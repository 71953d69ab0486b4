"""One real platform with the help desk's project, for all scenarios of this folder."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from flyball.client.project import apply, pack
from flyball.kernel.times import SECOND
from tests.cli.run_cli import Ran, flyball
from tests.scenarios.live import LivePlatform, eventually

PROJECT = Path(__file__).parent / "helpdesk" / "project.py"
PII = "pii7marker3f"  # stands in every value of the pii column
SECRET = "postgres://desk:secret9marker1d@db/desk"
HISTORY = 400


def ticket(number: int, at: int, **fields: Any) -> dict[str, Any]:
    draw = random.Random(number)
    hours = draw.uniform(0, 40)
    row = {
        "id": f"ticket-{number}",
        "team": draw.choice(["red", "blue", None]),
        "channel": draw.choice(["mail", "phone", "chat"]),
        "hours": f"{hours:.2f}",
        "email": f"{PII}-{draw.randrange(9)}@example.com",
        "escalated": hours > 20,
        "time": at,
    }
    return {**row, **fields}


def now() -> int:
    return time.time_ns() // 1_000


@dataclass(kw_only=True)
class Desk:
    """The platform, and everything that it told anybody."""

    platform: LivePlatform
    said: list[str] = field(default_factory=list)
    endpoints: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.platform.layout.root

    def cli(self, *arguments: object) -> Ran:
        """A command of the user's, on this platform."""
        ran = flyball(*arguments, "--state", self.state)
        self.said += [ran.out, ran.err]
        return ran

    def url(self, process: str) -> str:
        if not self.endpoints:
            with self.platform.client() as client:
                self.endpoints = client.endpoints()
        return str(self.endpoints[process])

    def http(self, process: str, method: str, path: str, **more: Any) -> httpx.Response:
        token = self.platform.layout.token.read_text().strip()
        headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
        answer = httpx.request(method, self.url(process) + path, headers=headers, timeout=30.0, **more)
        self.said.append(answer.text)
        return answer

    def sent(self, source: str = "Tickets") -> dict[str, Any]:
        with self.platform.client() as client:
            (found,) = [one for one in client.sources() if one["name"] == source]
            return found


@pytest.fixture(scope="package")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    os.environ["DESK_DSN"] = SECRET
    try:
        with LivePlatform(tmp_path_factory.mktemp("desk") / "state") as platform:
            platform.start()
            with platform.client() as client:
                packed = pack(PROJECT)
                plan = apply(client, packed)
                eventually(lambda: any(s["name"] == "Tickets" for s in client.sources()), "the plan's way to ingest")
                start = now()
                rows = [ticket(-n, start - n * 600 * SECOND) for n in range(1, HISTORY + 1)]
                assert client.push("Tickets", rows, idempotency_key="history")["accepted"] == HISTORY
                client.train("escalation")
                client.train("careless")
                eventually(
                    lambda: client.predict("escalation", team="red", channel="mail", hours=1, email=f"{PII}@x"),
                    "a served version",
                )
            yield Desk(platform=platform, said=[json.dumps(plan)])
            assert platform.stop() == 0
    finally:
        del os.environ["DESK_DSN"]
