"""A server under a closed loop of wrk: `closed.py NAME CONNECTIONS:SECONDS…`, such as `closed.py fastapi 1:3 64:4`.

Every answer was checked before it is timed, and one request that fails ends the run. Prints, for each number of
connections `N`: `cN_rate` (requests/s), `cN_rows` (predictions/s), `cN_p50_ms`, `cN_p99_ms`, and `cN_cpu_us`, the
processor time of the server's processes for a request.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from benchmarks.serving.targets import Running, running
from benchmarks.serving.wrk import CORE, Closed, closed

WARM_UP = 2.0


def load(one: Running, connections: int, seconds: float, *, core: str | None = CORE) -> Closed:
    """Load a server; fail where it did not answer everything."""
    found = closed(one.url, one.load.bodies, one.load.headers, connections=connections, seconds=seconds, core=core)
    if found.failed or not found.requests:
        raise SystemExit(f"{found.failed} requests failed, {found.requests} were answered")
    return found


def measured(one: Running, plan: Sequence[tuple[int, float]], *, core: str | None = CORE) -> dict[str, float]:
    figures: dict[str, float] = {}
    for connections, seconds in plan:
        load(one, connections, WARM_UP, core=core)
        before = one.server.cpu()
        found = load(one, connections, seconds, core=core)
        cpu = one.server.cpu() - before
        figures |= {
            f"c{connections}_rate": found.rate,
            f"c{connections}_rows": found.rate * one.load.rows,
            f"c{connections}_p50_ms": found.p50_ms,
            f"c{connections}_p99_ms": found.p99_ms,
            f"c{connections}_cpu_us": cpu / found.requests * 1e6,
        }
    return figures


def main(name: str, plan: Sequence[tuple[int, float]]) -> None:
    with running(name) as one:
        figures = measured(one, plan)
        figures["start_seconds"] = one.server.seconds
    print(json.dumps(figures))


if __name__ == "__main__":
    pairs = [argument.split(":") for argument in sys.argv[2:]]
    main(sys.argv[1], [(int(connections), float(seconds)) for connections, seconds in pairs])
