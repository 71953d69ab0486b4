"""wrk (https://github.com/wg/wrk), the closed-loop generator: as many connections as told, each with one request on
its way. One thread, on the core that the server does not have."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("post.lua")
CORE = "1"
TIMEOUT = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """What wrk saw. Its p99 is of latencies that it filled up for pauses: one request that waits long counts as all
    that would have been sent meanwhile."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int  # answers other than 2xx and 3xx, and broken or late connections

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def command(
    url: str, bodies: Path, headers: Mapping[str, str], *, connections: int, seconds: float, core: str | None = CORE
) -> list[str]:
    """The command line. `core` None: wherever the system puts it."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed; `apt-get install wrk`")
    pinned = ["taskset", "-c", core] if core is not None else []
    load = [f"-t1 -c{connections} -d{seconds:g}s --timeout {TIMEOUT}s".split(), ["-s", str(SCRIPT), url, "--"]]
    return [*pinned, wrk, *load[0], *load[1], str(bodies), *(f"{name}: {value}" for name, value in headers.items())]


def closed(
    url: str, bodies: Path, headers: Mapping[str, str], *, connections: int, seconds: float, core: str | None = CORE
) -> Closed:
    """Load a server for some seconds."""
    asked = command(url, bodies, headers, connections=connections, seconds=seconds, core=core)
    done = subprocess.run(asked, text=True, stdout=subprocess.PIPE, check=True)
    return parse(done.stdout)


def parse(output: str) -> Closed:
    """Read the line that the script prints at the end."""
    lines: Sequence[str] = [line for line in output.splitlines() if line.startswith("wrk ")]
    if not lines:
        raise SystemExit(f"wrk printed no result:\n{output}")
    found = json.loads(lines[-1].removeprefix("wrk "))
    return Closed(
        requests=found["requests"],
        seconds=found["microseconds"] / 1e6,
        p50_ms=found["p50_us"] / 1e3,
        p99_ms=found["p99_us"] / 1e3,
        failed=sum(found[name] for name in ("bad_status", "connect", "read", "write", "timeout")),
    )
