"""The open-loop generator: what is due when, what is counted, and that a stalled server does not stall the clock."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from benchmarks.serving.data import write_bodies
from benchmarks.serving.load import BROKEN, UNANSWERED, UNSENT, Stream, load, percentile, schedule, summary

MS = 1_000_000


def test_a_stream_is_due_at_even_intervals() -> None:
    due, of = schedule([4.0], 2.0)
    assert (due / 1e9).tolist() == [0.125, 0.375, 0.625, 0.875, 1.125, 1.375, 1.625, 1.875]
    assert of.tolist() == [0] * 8


def test_streams_are_merged_in_the_order_of_time() -> None:
    due, of = schedule([2.0, 3.0], 1.0)
    assert of.tolist() == [1, 0, 1, 0, 1]
    assert (np.diff(due) >= 0).all()


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = np.arange(1.0, 101.0)
    assert percentile(values, 50) == 50.0
    assert percentile(values, 99) == 99.0
    assert percentile(values[:1], 99) == 1.0
    assert math.isnan(percentile(values[:0], 99))


def test_each_request_is_counted_once_and_only_answers_in_time_are_good() -> None:
    status = np.array([200, 200, 429, 503, 504, 500, UNSENT, UNANSWERED, BROKEN, 200])
    due = np.arange(10) * 100 * MS
    took = np.array([1, 60, 2, 4, 50, 1, 0, 0, 1, 50]) * MS
    found = summary(due, due, due + took, status, deadline_ms=50, warm_up=0.0, seconds=1.0)
    assert (found["goodput"], found["answered"], found["late"]) == (2.0, 3.0, 1)
    assert (found["refused"], found["timed_out"], found["other"]) == (2, 1, 1)
    assert (found["unsent"], found["unanswered"], found["broken"]) == (1, 1, 1)
    assert (found["refused_p50_ms"], found["refused_p99_ms"]) == (2.0, 4.0)


def test_what_was_due_during_the_warm_up_is_left_out() -> None:
    due = np.arange(10) * 100 * MS
    found = summary(due, due, due + MS, np.full(10, 200), deadline_ms=50, warm_up=0.5, seconds=1.0)
    assert (found["offered"], found["goodput"]) == (10.0, 10.0)


@contextmanager
def server(answer: Callable[[int], bytes]) -> Iterator[int]:
    """A server of one connection at a time; `answer` is called with the number of the request."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            count = 0
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    while connection.recv(65_536):
                        connection.sendall(answer(count))
                        count += 1

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def stream(port: int, tmp_path: Path, *, rate: float, deadline_ms: float) -> Stream:
    write_bodies(tmp_path / "bodies.bin", [b"{}", b"[1]"])
    return Stream(
        name="one",
        port=port,
        path="/",
        bodies=str(tmp_path / "bodies.bin"),
        headers={},
        rate=rate,
        connections=1,
        deadline_ms=deadline_ms,
    )


def test_answers_are_read_by_status_and_length(tmp_path: Path) -> None:
    def answer(count: int) -> bytes:
        status = b"429 Too Many Requests" if count % 4 == 3 else b"200 OK"
        return b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}"

    with server(answer) as port:
        found = load([stream(port, tmp_path, rate=200, deadline_ms=20_000)], seconds=0.4, warm_up=0.0)["one"]
    assert found["answered"] * 0.4 == 60
    assert found["refused"] == 20


def test_a_stall_counts_against_all_that_was_due_meanwhile(tmp_path: Path) -> None:
    def answer(count: int) -> bytes:
        if count == 10:
            time.sleep(0.2)
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    with server(answer) as port:
        found = load([stream(port, tmp_path, rate=200, deadline_ms=10_000)], seconds=0.5, warm_up=0.0)["one"]
    assert found["answered"] * 0.5 == 100
    assert found["ok_p99_ms"] > 150


def test_a_request_that_finds_no_connection_in_time_is_given_up(tmp_path: Path) -> None:
    def answer(count: int) -> bytes:
        if count == 10:
            time.sleep(0.2)
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    with server(answer) as port:
        found = load([stream(port, tmp_path, rate=200, deadline_ms=100)], seconds=0.5, warm_up=0.0)["one"]
    assert found["unsent"] >= 20
    assert found["unsent"] + found["answered"] * 0.5 == 100


def test_a_connection_that_closes_is_replaced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65_536)
            connection, _ = listening.accept()
            with connection:
                while connection.recv(65_536):
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = int(listening.getsockname()[1])
        found = load([stream(port, tmp_path, rate=100, deadline_ms=20_000)], seconds=0.2, warm_up=0.0)["one"]
    assert (found["broken"], found["answered"] * 0.2) == (2, 18)
