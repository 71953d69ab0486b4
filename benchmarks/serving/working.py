"""Our server at work: `working.py coalesce`, `rollouts`, `memory`, `start` or `workers`.

coalesce   100 connections ask the same new thing at once; how many rows the model computed for them
rollouts   20 plans, each with another version, under full load: failed requests, and the answers before and after
memory     the proportional set size of each of two workers that were loaded, with the zygote beside them
start      from the start of the zygote, and from the death of a worker, to an answer of the model
workers    one worker and two, on all cores, the generator beside them
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import CACHE
from benchmarks.serving import states
from benchmarks.serving.client import Client, read_oip, read_predict
from benchmarks.serving.closed import WARM_UP, load, measured
from benchmarks.serving.data import bodies_path, expected, oip_body, read_bodies, rows, single_rows
from benchmarks.serving.files import MODEL, OTHER, SERVICE
from benchmarks.serving.overload import SLOW, slow_state
from benchmarks.serving.processes import descendants, pss_mb
from benchmarks.serving.targets import TOLERANCE, Load, Running, running, worker
from benchmarks.serving.wrk import command, parse

TOGETHER = 100
ROLLOUTS = 20
PAUSE = 0.4  # seconds between rollouts
CLOSED_SECONDS = 4.0
LIVED = 5.5  # seconds after which the zygote starts a dead worker again without a pause
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def counted(metrics: str, name: str, service: str) -> float:
    """The sum of a metric's samples of a service, in Prometheus' text format."""
    total = 0.0
    for line in metrics.splitlines():
        found = SAMPLE.match(line)
        if found and found[1] == name and f'service="{service}"' in (found[2] or ""):
            total += float(found[3])
    return total


def coalesce() -> dict[str, float]:
    with slow_state() as (state, entry, requests, _):
        state.publish({SLOW: (entry, {"deadline_us": 1_000_000, "cache": True})})
        with worker(state, requests.first) as server:
            client = Client(server.port, requests.headers)
            body = oip_body(rows(1, 10_000 + os.getpid()))
            before = client.get("/metrics").decode()
            answers = _at_once(server.port, requests, body)
            after = client.get("/metrics").decode()
            client.close()
    if len(set(answers)) != 1:
        raise SystemExit(f"equal requests were answered with {sorted(set(answers))[:5]}")
    computed = [counted(text, "flyball_batch_rows_sum", SLOW) for text in (before, after)]
    return {"answers": len(answers), "computed": computed[1] - computed[0]}


def _at_once(port: int, requests: Load, body: bytes) -> list[float]:
    """The scores that so many connections get for the same request, sent before any answer is read."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in requests.headers.items())
    head = f"POST {requests.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(TOGETHER)]
    for one in sockets:
        one.sendall(head.encode() + body)
    scores = []
    for one in sockets:
        data = b""
        while b"\r\n\r\n" not in data or len(data) < _whole(data):
            select.select([one], [], [], 30.0)
            part = one.recv(65_536)
            if not part:
                raise SystemExit(f"a connection was closed: {data!r}")
            data += part
        if not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"a request was not answered: {data!r}")
        scores += read_oip({}, data.partition(b"\r\n\r\n")[2])
        one.close()
    return scores


def _whole(data: bytes) -> int:
    head = data.partition(b"\r\n\r\n")[0]
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    return len(head) + 4 + (int(length[1]) if length else 0)


def rollouts() -> dict[str, float]:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rollouts-", dir=CACHE) as folder:
        state = states.fresh(Path(folder) / "state")
        models = (MODEL, OTHER)
        entries = [states.all_fields(state, model) for model in models]
        answers = [[expected(row[None, :], model) for row in single_rows()] for model in models]
        state.publish({SERVICE: (entries[0], {})})
        loads = [
            Load(
                path=f"/v1/services/{SERVICE}:predict",
                bodies=bodies_path("fields"),
                headers=state.headers,
                expected=found,
                read=read_predict,
            )
            for found in answers
        ]
        with worker(state, loads[0].first) as server:
            one = Running(server=server, load=loads[0], state=state)
            load(one, 64, WARM_UP)
            asked = command(one.url, loads[0].bodies, state.headers, connections=64, seconds=ROLLOUTS * (PAUSE + 0.5))
            took = []
            with subprocess.Popen(asked, text=True, stdout=subprocess.PIPE) as wrk:
                client = Client(server.port, state.headers)
                for i in range(1, ROLLOUTS + 1):
                    time.sleep(PAUSE)
                    began = time.monotonic()
                    epoch = state.publish({SERVICE: (entries[i % 2], {})})
                    _wait(lambda epoch=epoch: state.acknowledged() >= epoch)  # type: ignore[misc]
                    took.append(time.monotonic() - began)
                    _says(client, loads[i % 2])
                if wrk.poll() is not None:
                    raise SystemExit("the load ended before the last rollout")
                output = wrk.communicate()[0]
            client.close()
            found = parse(output)
    return {
        "failed": found.failed,
        "requests": found.requests,
        "rate": found.rate,
        "p99_ms": found.p99_ms,
        "swap_seconds": max(took),
    }


def _says(client: Client, load: Load) -> None:
    """After a rollout, an answer is the new version's."""
    status, headers, body = client.post(load.path, read_bodies(load.bodies)[0])
    if status != 200 or not np.allclose(load.read(headers, body), load.expected[0], rtol=0, atol=TOLERANCE):
        raise SystemExit(f"after a rollout the answer was {status} {body!r}, not the new version's")


def _wait(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"what was waited for did not come within {seconds:g} s")
        time.sleep(0.005)


def memory() -> dict[str, float]:
    """The model is not taken off: its text has 350 kB, and what is in memory of it is of that size."""
    with running("fields", workers=2) as one:
        load(one, 64, CLOSED_SECONDS)
        zygote, *workers = descendants(one.server.process.pid)
        sizes = [pss_mb(pid) for pid in workers]
        return {"workers": len(workers), "worker_mb": max(sizes), "zygote_mb": pss_mb(zygote)}


def start() -> dict[str, float]:
    with running("fields"):
        pass  # compiled code is on the disk, as an installation leaves it
    with running("fields") as one:
        cold = one.server.seconds
        time.sleep(LIVED)
        before = descendants(one.server.process.pid)[1:]
        began = time.perf_counter()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        while True:
            try:
                if one.load.first(one.server.port):
                    break
            except OSError:
                time.sleep(0.001)
        again = time.perf_counter() - began
        if set(descendants(one.server.process.pid)[1:]) & set(before):
            raise SystemExit("the worker that was killed still lives")
    return {"cold_seconds": cold, "fork_seconds": again}


def workers() -> dict[str, float]:
    figures = {}
    for n in (1, 2):
        with running("tensors", workers=n, core=None) as one:
            figures[f"rate_{n}"] = measured(one, [(64, CLOSED_SECONDS)], core=None)["c64_rate"]
    return figures | {"efficiency": figures["rate_2"] / (2 * figures["rate_1"])}


WORK: dict[str, Callable[[], dict[str, float]]] = {
    "coalesce": coalesce,
    "rollouts": rollouts,
    "memory": memory,
    "start": start,
    "workers": workers,
}

if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]]()))
