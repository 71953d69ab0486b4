"""The open-loop generator: requests at a constant rate whatever the server does, as callers who do not know each other
send them.

Each request has its time before the run begins, and its latency counts from that time, not from when a connection was
free for it: a server that stalls does not stall the clock ("coordinated omission", which closed loops suffer). A
connection has one request on its way. A request that finds none free for a tenth of its deadline is given up, as a pool
of connections does: it counts as offered and not as answered.

    python load.py CONFIGURATION.json

One thread over plain sockets and epoll: at these rates an event loop's own bookkeeping would be the limit. It spins
while a request is due soon, so that it is on time; it needs a core of its own.
"""

from __future__ import annotations

import gc
import json
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.serving.data import read_bodies

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
UNSENT, UNANSWERED, BROKEN = 0, 1, 2  # in the place of a status
REFUSED = (429, 503)
SPIN_NS = 1_500_000
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


class _Connection:
    """A socket with at most one request on its way: `index`; -1: none."""

    __slots__ = ("buffer", "index", "port", "socket", "stream")

    def __init__(self, stream: int, port: int) -> None:
        self.stream, self.port, self.index, self.buffer = stream, port, -1, b""
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def answered(self) -> int:
        """The status of the answer once it is there as a whole; 0: not yet, `BROKEN`: the server closed."""
        try:
            part = self.socket.recv(65_536)
        except BlockingIOError:
            return 0
        except ConnectionError:
            return BROKEN
        if not part:
            return BROKEN
        data = self.buffer + part if self.buffer else part
        end = data.find(b"\r\n\r\n")
        length = LENGTH.search(data, 0, end) if end >= 0 else None
        if length is None or len(data) < end + 4 + int(length[1]):
            self.buffer = data
            return 0
        self.buffer = b""
        return int(data[9:12])


class _Run:
    """One run over all streams."""

    def __init__(self, streams: Sequence[Stream], seconds: float) -> None:
        self._requests = [stream.requests() for stream in streams]
        self._patience = [int(PATIENCE * stream.deadline_ms * 1e6) for stream in streams]
        due, of = schedule([stream.rate for stream in streams], seconds)
        self.due, self.of = due, of
        self._due, self._of = due.tolist(), of.tolist()
        self.sent, self.done = np.zeros(len(due), np.int64), np.zeros(len(due), np.int64)
        self.status = np.zeros(len(due), np.int64)
        self._backlog: list[deque[int]] = [deque() for _ in streams]
        self._free: list[deque[_Connection]] = [deque() for _ in streams]
        self._by_fd: dict[int, _Connection] = {}
        self._epoll = select.epoll()
        self._on_way = 0
        for i, stream in enumerate(streams):
            for _ in range(stream.connections):
                self._join(_Connection(i, stream.port))

    def run(self) -> None:
        due, of, at, n = self._due, self._of, 0, len(self._due)
        last = due[-1] + int(LAST_SECONDS * 1e9)
        self._began = time.perf_counter_ns()
        while True:
            now = time.perf_counter_ns() - self._began
            while at < n and due[at] <= now:
                self._backlog[of[at]].append(at)
                at += 1
            for stream, waiting in enumerate(self._backlog):
                if waiting:
                    self._send(stream, waiting)
            if at == n and ((not self._on_way and not any(self._backlog)) or now > last):
                return
            soon = at < n and due[at] - now < SPIN_NS
            for fd, _ in self._epoll.poll(0 if soon else 0.001):
                self._receive(self._by_fd[fd])

    def close(self) -> None:
        for connection in self._by_fd.values():
            connection.socket.close()
        self._epoll.close()

    def _send(self, stream: int, waiting: deque[int]) -> None:
        free, requests, patience = self._free[stream], self._requests[stream], self._patience[stream]
        while waiting and free:
            index = waiting.popleft()
            now = time.perf_counter_ns() - self._began
            if now - self._due[index] > patience:
                continue  # it stays unsent
            connection = free.popleft()
            connection.index = index
            self.sent[index], self.status[index] = now, UNANSWERED
            self._on_way += 1
            request = requests[index % len(requests)]
            try:
                if connection.socket.send(request) != len(request):
                    raise SystemExit("a request did not fit into the socket's buffer")
            except ConnectionError:
                self._broken(connection)

    def _receive(self, connection: _Connection) -> None:
        status = connection.answered()
        if status == BROKEN:
            self._broken(connection)
        elif status and connection.index >= 0:
            self._finish(connection, status)
            self._free[connection.stream].append(connection)

    def _finish(self, connection: _Connection, status: int) -> None:
        if connection.index >= 0:
            self.done[connection.index] = time.perf_counter_ns() - self._began
            self.status[connection.index] = status
            self._on_way -= 1
            connection.index = -1

    def _broken(self, connection: _Connection) -> None:
        """Another connection in its place; the request is not sent again. One that was free is no request's loss."""
        idle = connection.index < 0
        self._finish(connection, BROKEN)
        self._epoll.unregister(connection.socket)
        del self._by_fd[connection.socket.fileno()]
        connection.socket.close()
        if idle:
            self._free[connection.stream].remove(connection)
        connection.buffer = b""
        connection.open()
        self._join(connection)

    def _join(self, connection: _Connection) -> None:
        self._by_fd[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN)
        self._free[connection.stream].append(connection)


def load(streams: Sequence[Stream], *, seconds: float, warm_up: float) -> dict[str, dict[str, float]]:
    """Send all streams side by side, each at its own rate; the summary of each by its name."""
    one = _Run(streams, seconds)
    gc.collect()
    gc.disable()
    try:
        one.run()
    finally:
        gc.enable()
        one.close()
    found = {}
    for i, stream in enumerate(streams):
        mine = one.of == i
        parts = (one.due[mine], one.sent[mine], one.done[mine], one.status[mine])
        found[stream.name] = summary(*parts, deadline_ms=stream.deadline_ms, warm_up=warm_up, seconds=seconds)
    return found


def main(path: Path) -> None:
    told: dict[str, Any] = json.loads(path.read_text())
    streams = [Stream(**stream) for stream in told["streams"]]
    print(json.dumps(load(streams, seconds=told["seconds"], warm_up=told["warm_up"])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
