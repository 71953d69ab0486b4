"""What the network and time do to a worker: idle crowds, bodies without end, versions that come and go."""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.support import Bench, payment, plan, tree_version
from tests.serving.test_process import Process

CROWD = 10_000


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < CROWD + 500:
        pytest.skip(f"this system lets a process open {hard} files; the test needs {CROWD + 500}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CROWD + 500), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
def test_ten_thousand_idle_connections_hold_up_nobody_and_cost_little(process: Process) -> None:
    pid = process.acknowledged()["worker-0"]["pid"]
    before = memory_of(pid)
    crowd = []
    try:
        for _ in range(CROWD):
            crowd.append(socket.create_connection(("127.0.0.1", process.port), timeout=30))
        assert process.ask().status_code == 200
        assert (memory_of(pid) - before) / CROWD < 16_384
    finally:
        for connection in crowd:
            connection.close()
    assert process.ask().status_code == 200


@pytest.mark.slow
def test_a_body_of_a_gigabyte_is_refused_by_its_head_and_one_without_length_where_it_is_too_much(
    process: Process,
) -> None:
    head = (
        f"POST /v2/models/{process.model.service}/infer HTTP/1.1\r\nhost: localhost\r\n"
        f"authorization: Bearer {process.model.token}\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as connection:
        connection.sendall(head + b"content-length: 1073741824\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    pid = process.acknowledged()["worker-0"]["pid"]
    before, grown = memory_of(pid), 0
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as connection:
        connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):  # it is cut where the sender does not heed the answer
            for _ in range(1024):
                connection.sendall(piece)
                grown = max(grown, memory_of(pid) - before)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert grown < 256 * 2**20
    assert process.ask().status_code == 200


def test_a_thousand_plans_leave_nothing_of_their_versions_behind(bench: Bench, tmp_path: Path) -> None:
    versions = [tree_version(tmp_path, seed) for seed in range(2)]
    for epoch in range(1, 51):
        turn(bench, versions, epoch)
    try:
        before = memory_of("self")
        for epoch in range(51, 1_051):
            turn(bench, versions, epoch)
        grown = memory_of("self") - before
    finally:
        gc.unfreeze()
    assert grown < 8 * 2**20, f"{grown / 2**20:.1f} MiB more after 1,000 plans"


def turn(bench: Bench, versions: list[tuple[str, Path]], epoch: int) -> None:
    ref = f"fraud/{epoch % 2}"
    bench.worker.load_plan(plan({ref: versions[epoch % 2]}, epoch=epoch))
    (reply,) = bench.worker.predict("fraud", [payment(20.0)])
    assert reply["version"] == ref
    gc.collect()
    gc.freeze()  # as a worker does: what served a plan and ends up in a cycle later is never found


def memory_of(pid: int | str) -> int:
    """Bytes that a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
