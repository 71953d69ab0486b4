"""Our server with more than it can do: `overload.py padded`, `curve` or `neighbours`. Requests come in open loop.

padded      a model of 500 µs a row, at most 8 rows a batch, at 3 × its capacity, each request with 50 ms to live
curve       the tree model at 0.5 to 3 × its capacity, each request with 50 ms to live
neighbours  two services on one worker, with deadlines of 5 and 200 ms, the slow one at 3 × its capacity

Capacity is what a closed loop gets from the same server just before.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import CACHE
from benchmarks.serving import states
from benchmarks.serving.client import read_oip
from benchmarks.serving.closed import WARM_UP, load
from benchmarks.serving.data import oip_body, single_rows, write_bodies
from benchmarks.serving.files import SERVICE
from benchmarks.serving.generator import offer, stream
from benchmarks.serving.padded import answers, padded
from benchmarks.serving.states import Entry, State
from benchmarks.serving.targets import Load, Running, running, tensor_load, worker

ROW_US, BATCH = 500.0, 8
DEADLINE_MS = 50.0
FAST_MS, SLOW_MS = 5.0, 200.0
FAST_RATE = 1_000.0
OVER = 3.0
FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
CLOSED_SECONDS, SECONDS, CURVE_SECONDS = 3.0, 7.0, 4.0
SLOW = "padded"
LIMIT = 150_000.0  # requests/s that the generator is asked for where its own limit is looked for


def slow_load(state: State, file: Path) -> Load:
    """Requests to the padded model: 256 different rows."""
    matrices = [row[None, :] for row in single_rows()]
    bodies = state.root.parent / "bodies_slow.bin"
    write_bodies(bodies, [oip_body(matrix) for matrix in matrices])
    return Load(
        path=f"/v2/models/{SLOW}/infer",
        bodies=bodies,
        headers=state.headers,
        expected=[answers(file, matrix) for matrix in matrices],
        read=read_oip,
    )


@contextmanager
def slow_state() -> Iterator[tuple[State, Entry, Load, float]]:
    """A state with the padded model in it: its version, its requests, and the microseconds of a row. No plan yet."""
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="slow-", dir=CACHE) as folder:
        state = states.fresh(Path(folder) / "state")
        file, row_us = padded(Path(folder), ROW_US, SLOW)
        yield state, state.tensors(file), slow_load(state, file), row_us


def over() -> dict[str, float]:
    with slow_state() as (state, entry, requests, row_us):
        state.publish({SLOW: (entry, {"deadline_us": 1_000_000, "max_batch": BATCH})})
        with worker(state, requests.first) as server:
            requests.check(server.port)
            one = Running(server=server, load=requests, state=state)
            load(one, 2 * BATCH, WARM_UP)
            capacity = load(one, 2 * BATCH, CLOSED_SECONDS).rate
            offered = stream(SLOW, requests, server.port, rate=OVER * capacity, deadline_ms=DEADLINE_MS)
            found = offer([offered], seconds=SECONDS)[SLOW]
    return {"row_us": row_us, "capacity": capacity, "goodput_share": found["goodput"] / capacity, **found}


def curve() -> dict[str, float]:
    """Goodput at each factor as `xF`, and what the generator can send at all, to nginx: beyond that limit a factor is
    not reached, and `xF_sent_share` falls."""
    with running("nginx") as nginx:
        free = stream("nginx", nginx.load, nginx.server.port, rate=LIMIT, deadline_ms=DEADLINE_MS, connections=64)
        limit = offer([free], seconds=3.0)["nginx"]["answered"]
    with running("tensors") as one:
        load(one, 64, WARM_UP)
        capacity = load(one, 64, CLOSED_SECONDS).rate
        figures = {"generator_limit": limit, "capacity": capacity}
        for factor in FACTORS:
            offered = stream(SERVICE, one.load, one.server.port, rate=factor * capacity, deadline_ms=DEADLINE_MS)
            found = offer([offered], seconds=CURVE_SECONDS)[SERVICE]
            figures |= {f"x{factor:g}": found["goodput"] / capacity, f"x{factor:g}_p99_ms": found["ok_p99_ms"]}
            figures[f"x{factor:g}_sent_share"] = found["sent_share"]
            figures[f"x{factor:g}_lost"] = found["unanswered"] + found["broken"] + found["other"]
    return figures


def neighbours() -> dict[str, float]:
    with slow_state() as (state, entry, requests, _):
        tree = state.tensors(states.tensor_model())
        state.publish(
            {
                SERVICE: (tree, {"deadline_us": int(FAST_MS * 1_000)}),
                SLOW: (entry, {"deadline_us": int(SLOW_MS * 1_000), "max_batch": BATCH}),
            }
        )
        fast = tensor_load(state, tree)
        with worker(state, fast.first) as server:
            fast.check(server.port)
            one = Running(server=server, load=requests, state=state)
            load(one, 2 * BATCH, WARM_UP)
            capacity = load(one, 2 * BATCH, CLOSED_SECONDS).rate
            quick = stream(
                SERVICE, fast, server.port, rate=FAST_RATE, deadline_ms=FAST_MS, header=False, connections=64
            )
            slow = stream(SLOW, requests, server.port, rate=OVER * capacity, deadline_ms=SLOW_MS, header=False)
            alone = offer([quick], seconds=SECONDS)[SERVICE]
            both = offer([quick, slow], seconds=SECONDS)
    beside = both[SERVICE]
    return {
        "alone_p99_ms": alone["ok_p99_ms"],
        "alone_good_share": alone["good_share"],
        "beside_p99_ms": beside["ok_p99_ms"],
        "beside_good_share": beside["good_share"],
        "ratio": beside["ok_p99_ms"] / alone["ok_p99_ms"],
        "slow_goodput_share": both[SLOW]["goodput"] / capacity,
        "sent_after_p99_ms": beside["sent_after_p99_ms"],
    }


WORK: dict[str, Callable[[], dict[str, float]]] = {"padded": over, "curve": curve, "neighbours": neighbours}

if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]]()))
