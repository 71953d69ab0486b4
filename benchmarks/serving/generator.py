"""Runs the open-loop generator on the core that the server does not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import CACHE
from benchmarks.serving.files import ROOT
from benchmarks.serving.load import Stream
from benchmarks.serving.targets import Load
from benchmarks.serving.wrk import CORE

CONNECTIONS = 512
DEADLINE = "x-request-deadline-ms"


def stream(
    name: str,
    load: Load,
    port: int,
    *,
    rate: float,
    deadline_ms: float,
    header: bool = True,
    connections: int = CONNECTIONS,
) -> Stream:
    """A stream of a load's requests. `header`: each says its deadline; else the service's own holds."""
    headers = dict(load.headers) | ({DEADLINE: f"{deadline_ms:g}"} if header else {})
    return Stream(
        name=name,
        port=port,
        path=load.path,
        bodies=str(load.bodies),
        headers=headers,
        rate=rate,
        connections=connections,
        deadline_ms=deadline_ms,
    )


def offer(streams: Sequence[Stream], *, seconds: float, warm_up: float = 1.0) -> dict[str, dict[str, float]]:
    """Offer all streams at once for some seconds; what came of each."""
    with tempfile.TemporaryDirectory(prefix="load-", dir=CACHE) as folder:
        file = Path(folder) / "streams.json"
        file.write_text(
            json.dumps({"seconds": seconds, "warm_up": warm_up, "streams": [asdict(one) for one in streams]})
        )
        command = ["taskset", "-c", CORE, sys.executable, "-m", "benchmarks.serving.load", str(file)]
        done = subprocess.run(command, cwd=ROOT, env=os.environ, text=True, stdout=subprocess.PIPE, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found
