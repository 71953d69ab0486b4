"""The open-loop generator: requests at a constant rate whatever the server does, as callers who do not know each other
send them.

Each request has its time before the run begins, and its latency counts from that time, not from when a connection was
free for it: a server that stalls does not stall the clock ("coordinated omission", which closed loops suffer). A
connection has one request on its way. A request that finds none free for a tenth of its deadline is given up, as a pool
of connections does: it counts as offered and not as answered.

    python load.py CONFIGURATION.json

The loop over sockets is in C (`load.c`, compiled at the first run), because at the rates of a tree model Python's would
be the limit. It spins while a request is due soon, so that it is on time; it needs a core of its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import CACHE
from benchmarks.serving.data import read_bodies

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UNSENT, UNANSWERED, BROKEN = 0, 1, 2  # in the place of a status; load.c has the same
REFUSED = (429, 503)
PATIENCE = 0.1  # of the deadline
LAST_SECONDS = 3.0  # how long answers are waited for when all was sent


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Requests of one kind. `deadline_ms`: what came later is no good to the caller."""

    name: str
    port: int
    path: str
    bodies: str
    headers: dict[str, str]
    rate: float
    connections: int
    deadline_ms: float

    def requests(self) -> list[bytes]:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{lines}Content-Length: "
        return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in read_bodies(Path(self.bodies))]


def schedule(rates: Sequence[float], seconds: float) -> tuple[Ints, Ints]:
    """When each request is to be sent, in nanoseconds from the start, and of which stream it is; in the order of time.

    Streams are spread evenly, each from half an interval on.
    """
    times = [((np.arange(int(rate * seconds)) + 0.5) / rate * 1e9).astype(np.int64) for rate in rates]
    of = [np.full(len(t), i, np.int64) for i, t in enumerate(times)]
    merged, streams = np.concatenate(times), np.concatenate(of)
    order = np.argsort(merged, kind="stable")
    return merged[order], streams[order]


def percentile(values: Floats, share: float) -> float:
    """The smallest value that at least `share` percent of all are not above; NaN without values."""
    if not len(values):
        return float("nan")
    return float(np.percentile(values, share, method="inverted_cdf"))


def summary(
    due: Ints, sent: Ints, done: Ints, status: Ints, *, deadline_ms: float, warm_up: float, seconds: float
) -> dict[str, float]:
    """What came of one stream's requests that were due after the warm-up. Times are nanoseconds from the start.

    `answered`: answers with 200, per second; `goodput`: those within the deadline. Latencies count from when a request
    was due.
    """
    inside = due >= warm_up * 1e9
    due, sent, done, status = due[inside], sent[inside], done[inside], status[inside]
    took = (done - due) / 1e6
    ok, refused = status == 200, np.isin(status, REFUSED)
    good = ok & (took <= deadline_ms)
    length = seconds - warm_up
    return {
        "offered": len(due) / length,
        "sent_share": float((status != UNSENT).mean()) if len(due) else float("nan"),
        "answered": ok.sum() / length,
        "goodput": good.sum() / length,
        "good_share": float(good.mean()) if len(due) else float("nan"),
        "late": int((ok & ~good).sum()),
        "refused": int(refused.sum()),
        "timed_out": int((status == 504).sum()),
        "unsent": int((status == UNSENT).sum()),
        "unanswered": int((status == UNANSWERED).sum()),
        "broken": int((status == BROKEN).sum()),
        "other": int((~ok & ~refused & (status != 504) & (status > BROKEN)).sum()),
        "ok_p50_ms": percentile(took[ok], 50),
        "ok_p99_ms": percentile(took[ok], 99),
        "refused_p50_ms": percentile(took[refused], 50),
        "refused_p99_ms": percentile(took[refused], 99),
        "sent_after_p99_ms": percentile(((sent - due) / 1e6)[status != UNSENT], 99),
    }


def library() -> Path:
    """The compiled loop, made anew where its source changed."""
    source = Path(__file__).with_suffix(".c")
    path = CACHE / f"load-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        made = path.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", made, source], check=True)
        made.rename(path)
    return path


def _drive(streams: Sequence[Stream], due: Ints, of: Ints) -> tuple[Ints, Ints, Ints]:
    """Send everything when it is due; when each was sent and answered, and with which status."""
    requests = [stream.requests() for stream in streams]
    each = [request for some in requests for request in some]
    sent, done, status = (np.zeros(len(due), np.int64) for _ in range(3))
    error = ctypes.CDLL(str(library())).drive(
        ctypes.c_int64(len(due)),
        *(_pointer(array) for array in (due, of, sent, done, status)),
        ctypes.c_int64(len(streams)),
        _pointer(np.array([stream.port for stream in streams], np.int64)),
        _pointer(np.array([stream.connections for stream in streams], np.int64)),
        _pointer(np.array([PATIENCE * stream.deadline_ms * 1e6 for stream in streams], np.int64)),
        b"".join(each),
        _pointer(np.cumsum([0, *map(len, each)], dtype=np.int64)),
        _pointer(np.cumsum([0, *map(len, requests)], dtype=np.int64)),
        ctypes.c_int64(int(LAST_SECONDS * 1e9)),
    )
    if error:
        raise OSError(error, os.strerror(error))
    return sent, done, status


def _pointer(array: Ints) -> Any:
    return np.ascontiguousarray(array).ctypes.data_as(ctypes.c_void_p)  # it holds the array


def load(streams: Sequence[Stream], *, seconds: float, warm_up: float) -> dict[str, dict[str, float]]:
    """Send all streams side by side, each at its own rate; the summary of each by its name."""
    due, of = schedule([stream.rate for stream in streams], seconds)
    sent, done, status = _drive(streams, due, of)
    found = {}
    for i, stream in enumerate(streams):
        mine = of == i
        parts = (due[mine], sent[mine], done[mine], status[mine])
        found[stream.name] = summary(*parts, deadline_ms=stream.deadline_ms, warm_up=warm_up, seconds=seconds)
    return found


def main(path: Path) -> None:
    told: dict[str, Any] = json.loads(path.read_text())
    streams = [Stream(**stream) for stream in told["streams"]]
    print(json.dumps(load(streams, seconds=told["seconds"], warm_up=told["warm_up"])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
