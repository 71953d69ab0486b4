"""A server as a tree of processes on a core of its own: started, waited for, measured and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CORE = "0"
START_SECONDS = 120.0
END_SECONDS = 15.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(kw_only=True)
class Server:
    """A running server. `seconds`: from its start to its first answer."""

    process: subprocess.Popen[bytes]
    port: int
    seconds: float = float("nan")
    seen: set[int] = field(default_factory=set)

    def tree(self) -> list[int]:
        """The server's processes, its children's children with them."""
        found = descendants(self.process.pid)
        self.seen.update(found)
        return found

    def cpu(self) -> float:
        """Seconds of processor time that the tree has used."""
        return sum(cpu_seconds(pid) for pid in self.tree())


@contextmanager
def started(
    command: Sequence[str],
    port: int,
    *,
    answers: Callable[[], bool],
    environment: Mapping[str, str],
    folder: Path,
    core: str | None = CORE,
) -> Iterator[Server]:
    """Start a server pinned to a core, and wait until it answers; what is left of it at the end is killed.

    Args:
        answers: whether a first request was answered as it should be; an `OSError` means not yet.
        folder: where it is started, and where its output goes.
    """
    pinned = ["taskset", "-c", core] if core is not None else []
    output = folder / "output.txt"
    with output.open("wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*pinned, *command], env=dict(environment), cwd=folder, stdout=out, stderr=out, start_new_session=True
        )
        server = Server(process=process, port=port)
        try:
            _wait(server, answers, output)
            server.seconds = time.perf_counter() - began
            yield server
        finally:
            _end(server)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def descendants(root: int) -> list[int]:
    """A process and all below it that live."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))) is not None:
            parents.setdefault(int(stat[1]), []).append(int(entry))
    found, following = [], [root]
    while following:
        pid = following.pop()
        found.append(pid)
        following.extend(parents.get(pid, ()))
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, its ended threads with it; 0 where it is gone."""
    stat = _stat(pid)
    return 0.0 if stat is None else (int(stat[11]) + int(stat[12])) / TICKS


def pss_mb(pid: int) -> float:
    """A process's proportional set size: its own pages, and its share of those that it shares."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        (line,) = [line for line in file if line.startswith("Pss:")]
    return int(line.split()[1]) / 1024


def _stat(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the state on; None where the process is gone. proc_pid_stat(5)"""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def _wait(server: Server, answers: Callable[[], bool], output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise SystemExit(f"the server ended with {server.process.returncode}:\n{_last(output)}")
        try:
            if answers():
                return
        except OSError:
            pass
        time.sleep(0.001)
    raise SystemExit(f"the server did not answer within {START_SECONDS:g} s:\n{_last(output)}")


def _end(server: Server) -> None:
    """Ask it to end, then kill what is left of all processes that were ever seen below it."""
    server.tree()
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        server.tree()
    for pid in server.seen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    server.process.wait()


def _last(output: Path) -> str:
    return output.read_text(errors="replace")[-3_000:]
