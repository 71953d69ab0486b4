"""A pool of real workers under load: scaled, drained, killed; and what its clients see of it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from flyball.serving.standalone import Standalone
from tests.serving.test_process import Process, environment, eventually

pytestmark = pytest.mark.slow


class Served(Protocol):
    """Where a model is served, and what a client must know of it."""

    @property
    def port(self) -> int: ...

    @property
    def model(self) -> Standalone: ...


class Load:
    """Clients that ask again and again on connections that they keep, each in a thread, until they are refused."""

    def __init__(self, served: Served, clients: int) -> None:
        self.seen: Counter[str] = Counter()
        self._served = served
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self) -> None:
        path = f"/v2/models/{self._served.model.service}/infer"
        body = json.dumps(self._served.model.example)
        headers = {"authorization": f"Bearer {self._served.model.token}"}
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._served.port, timeout=30)
            try:
                connection.connect()
            except ConnectionRefusedError:
                self.seen["refused"] += 1
                return
            with contextlib.closing(connection):
                self._ask_on(connection, path, body, headers)

    def _ask_on(self, connection: http.client.HTTPConnection, path: str, body: str, headers: dict[str, str]) -> None:
        while not self._stop.is_set():
            try:
                connection.request("POST", path, body, headers)
                reply = connection.getresponse()
                reply.read()
            except (OSError, http.client.HTTPException) as error:
                self.seen[type(error).__name__] += 1
                return
            self.seen[str(reply.status)] += 1
            if reply.will_close:
                self.seen["closed in order"] += 1
                return

    def stop(self) -> Counter[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.seen


@contextlib.contextmanager
def pool(root: Path, workers: int | str, *options: str) -> Iterator[Process]:
    made = Process(root, workers=workers, options=options)
    try:
        yield made
    finally:
        made.client.close()
        if made.popen.poll() is None:
            made.popen.terminate()
        made.popen.communicate(timeout=60)


def metric(process: Process, name: str) -> float:
    """The value of a metric without labels, or the sum of one with labels."""
    lines = process.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split(" ")[0].split("{")[0] == name)


def is_unready(process: Process) -> bool:
    reply = httpx.get(f"http://127.0.0.1:{process.port}/v2/health/ready")
    return reply.status_code == 503 and "stopping" in reply.text


def begun(process: Process) -> socket.socket:
    """A request whose body is on its way: it is in flight."""
    client = socket.create_connection(("127.0.0.1", process.port), timeout=30)
    path = f"/v2/models/{process.model.service}/infer"
    body = len(json.dumps(process.model.example))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {process.model.token}\r\n"
    client.sendall(f"{head}Content-Length: {body}\r\n\r\n".encode())
    return client


def test_load_adds_workers_up_to_the_bound_and_says_what_it_would_need(tmp_path: Path) -> None:
    with pool(tmp_path, "1:2") as process, contextlib.ExitStack() as clients:
        assert metric(process, "flyball_workers_wanted") == 1
        load = [clients.enter_context(begun(process)) for _ in range(300)]
        eventually(lambda: metric(process, "flyball_workers_demand") == 3)
        eventually(lambda: metric(process, "flyball_workers_ready") == 2)
        assert metric(process, "flyball_workers_wanted") == 2
        eventually(lambda: set(process.acknowledged()) == {"worker-0", "worker-1"})
        body = json.dumps(process.model.example).encode()
        for client in load:
            client.sendall(body)
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
        assert metric(process, "flyball_predictions_total") == 300


def test_a_drain_under_load_loses_no_request_and_refuses_only_when_it_is_over(tmp_path: Path) -> None:
    with pool(tmp_path, 2, "--drain-window", "1") as process:
        load = Load(process, 8)
        try:
            eventually(lambda: load.seen["200"] > 200)
            process.popen.terminate()
            eventually(functools.partial(is_unready, process))
            assert process.ask().status_code == 200, "in the window requests are served"
            process.popen.communicate(timeout=60)
            assert process.popen.returncode == 0
        finally:
            seen = load.stop()
        assert set(seen) == {"200", "refused", "closed in order"}, "never a reset, never half a reply"
        assert seen["refused"] == 8


def test_a_killed_worker_costs_its_own_connections_only(tmp_path: Path) -> None:
    with pool(tmp_path, 2) as process:
        load = Load(process, 8)
        try:
            for _ in range(3):
                before = load.seen["200"]
                eventually(lambda before=before: load.seen["200"] > before + 100)  # type: ignore[misc]
                victim = process.acknowledged()["worker-0"]["pid"]
                os.kill(victim, signal.SIGKILL)
                eventually(functools.partial(process.replaced, victim))
        finally:
            seen = load.stop()
        broken = sum(count for outcome, count in seen.items() if outcome != "200")
        assert "refused" not in seen
        assert broken <= 3 * 8
        assert metric(process, "flyball_worker_restarts_total") == 3
        assert metric(process, "flyball_predictions_total") >= seen["200"]


def test_a_second_signal_ends_a_drain_at_once(tmp_path: Path) -> None:
    with pool(tmp_path, 2, "--drain-window", "600") as process:
        process.popen.terminate()
        eventually(functools.partial(is_unready, process))
        process.popen.terminate()
        process.popen.communicate(timeout=30)
        assert process.popen.returncode == 0


def test_ctrl_c_reaches_workers_through_the_zygote_alone(tmp_path: Path) -> None:
    with pool(tmp_path, 2) as process:
        load = Load(process, 2)
        try:
            eventually(lambda: load.seen["200"] > 20 and len(process.acknowledged()) == 2)
            pids = {ack["pid"] for ack in process.acknowledged().values()}
            for _ in range(2):  # as a terminal does, which would be a second signal to each
                for pid in pids:
                    os.kill(pid, signal.SIGINT)
            before = load.seen["200"]
            eventually(lambda: load.seen["200"] > before + 20)
            assert {ack["pid"] for ack in process.acknowledged().values()} == pids
            process.popen.send_signal(signal.SIGINT)
            process.popen.communicate(timeout=60)
            assert process.popen.returncode == 0
        finally:
            load.stop()


SCALED = """
import pathlib, signal, sys, time
from flyball.serving.board import Board
from flyball.serving.scaling import ScalingConfig
from flyball.serving.zygote import Zygote

folder = pathlib.Path(sys.argv[1])
board = Board(3)

def child(slot, parent):
    page = board.slots[slot]
    page.ready(time.monotonic_ns())
    (folder / f"run-{slot}-{time.monotonic_ns()}").touch()
    ending = []
    stuck = slot == 2
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stuck else lambda number, frame: ending.append(number))
    while not ending:
        page.in_flight = int((folder / "load").read_text())
        time.sleep(0.01)
    (folder / f"end-{slot}").touch()

def released():
    (folder / "released").touch()

config = ScalingConfig(minimum=1, maximum=3, rows_per_worker=100, short_seconds=0.1, long_seconds=0.5, step_seconds=0.1)
Zygote(child, config, board, grace=1.0, leaving=released).run()
"""


def test_surplus_workers_leave_or_are_killed_after_the_grace_and_are_not_started_again(tmp_path: Path) -> None:

    def load(rows: int) -> None:
        (tmp_path / "new").write_text(str(rows))
        (tmp_path / "new").replace(tmp_path / "load")

    load(90)
    popen = subprocess.Popen([sys.executable, "-c", SCALED, str(tmp_path)], env=environment())

    def found(name: str) -> int:
        return len(list(tmp_path.glob(f"{name}-*")))

    try:
        eventually(lambda: found("run") == 1)
        load(1_000)
        eventually(lambda: found("run") == 3)
        load(0)
        eventually(lambda: found("end") == 1)
        assert (tmp_path / "end-1").exists(), "the highest slots go first; the third does not hear"
        (children,) = Path(f"/proc/{popen.pid}/task").glob("*/children")
        eventually(lambda: len(children.read_text().split()) == 1)
        assert found("run") == 3
        assert not (tmp_path / "released").exists(), "the port is kept while a worker stays"
    finally:
        popen.terminate()
        popen.wait(30)
    assert popen.returncode == 0
    assert {path.name for path in tmp_path.glob("end-*")} == {"end-0", "end-1"}
    assert (tmp_path / "released").exists()
