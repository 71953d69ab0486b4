"""The supervisor: starts control, ingest and the workers, restarts each alone, and stops them in order."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from flyball.kernel.errors import FlyballError, UnavailableError
from flyball.kernel.files import FileLock, read_document, write_document
from flyball.kernel.layout import Layout
from flyball.kernel.memory import keeping
from flyball.kernel.settings import ClientSettings, Settings
from flyball.platform.ports import PROCESSES, check_host, choose_ports
from flyball.platform.state import ensure_clock, ensure_token, show_clock

Say = Callable[[str], None]
LOOK = 0.05  # seconds between two looks at the children
READY = 180.0  # seconds a process may take to its first answer; the very first start compiles kernels
SLOW = 5.0  # seconds after which the wait is told
KEEPING_MEMORY = ("ingest",)  # which goes through much of it when a file is loaded
GRACE = {
    "inference": 17.0,
    "ingest": 30.0,
    "control": 15.0,
}  # to stop, in this order: drain (beside its window), flush, close
HEALTHY_AFTER = 30.0  # seconds up, after which back-off starts anew
LONGEST_PAUSE = 10.0


def silent(line: str) -> None:
    """Says nothing."""


@dataclass
class Child:
    """One process and how often it was started. `due` is when it may start again (monotonic); None while it runs."""

    name: str
    command: list[str]
    error_log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    failures: int = 0  # in a row
    since: float = 0.0
    since_wall: int = 0
    due: float | None = 0.0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def start(self, now: float) -> None:
        """A process in a group of its own (Ctrl-C reaches the supervisor alone), ended when the supervisor is gone."""
        self.close()
        file = self.error_log.open("ab")
        environment = keeping(os.environ) if self.name in KEEPING_MEMORY else None
        try:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True, env=environment
            )
        finally:
            file.close()
        self.since, self.since_wall, self.due = now, time.time_ns() // 1_000, None

    def close(self) -> None:
        """Let go of a process that ended."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def ended(self, now: float) -> int | None:
        """The exit status of a process that ended since the last look, with its next start put off; else None."""
        if self.process is None or self.due is not None or self.process.poll() is None:
            return None
        self.failures = 1 if now - self.since > HEALTHY_AFTER else self.failures + 1
        self.due = now + pause(self.failures)
        self.restarts += 1
        return self.process.returncode

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(self.process.pid, number)
                else:
                    self.process.send_signal(number)

    def to_data(self) -> dict[str, Any]:
        running = self.pid is not None
        return {
            "name": self.name,
            "state": "running" if running else "down",
            "pid": self.pid,
            "since_wall": self.since_wall,
            "restarts": self.restarts,
        }


def pause(failures: int) -> float:
    """Seconds before the next start: 0.2 after the first failure in a row, doubled with each further one."""
    return float(min(LONGEST_PAUSE, 0.2 * 2 ** (failures - 1)))


def last_words(path: Path) -> str:
    """What a child said last on standard error: the message of its error, where it is one of ours."""
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    if not lines:
        return ""
    try:
        data = json.loads(lines[-1])
        return str(data["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return lines[-1]


class Supervisor:
    """The platform on one machine. A context manager: entered when all processes answer, left when all have ended."""

    def __init__(
        self,
        settings: Settings,
        *,
        say: Say = silent,
        commands: Callable[[Supervisor], dict[str, list[str]]] | None = None,
    ) -> None:
        self.settings = settings
        self.layout = Layout(settings.state)
        self.ports: dict[str, int] = {}
        self.children: dict[str, Child] = {}
        self._say = say
        self._commands = commands or default_commands
        self._lock: FileLock | None = None
        self._watcher: threading.Thread | None = None
        self._stop = threading.Event()
        self._force = threading.Event()

    # start

    def __enter__(self) -> Supervisor:
        check_host(self.settings.host)
        self.layout.create()
        self._lock = FileLock(self.layout.lock("platform"), "the platform")
        try:
            stop_orphans(self.layout)
            self.ports = choose_ports(self.settings)
            ensure_clock(self.layout, self.settings.replay_from)
            ensure_token(self.layout)
            for name, command in self._commands(self).items():
                self.children[name] = Child(name, command, self.layout.logs / f"{name}.err")
            for child in self.children.values():
                child.error_log.write_bytes(b"")
                child.start(time.monotonic())
            self._publish()
            self._wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
        self._end()

    def url(self, name: str) -> str:
        return f"http://{self.settings.host}:{self.ports[name]}"

    @property
    def client_settings(self) -> ClientSettings:
        return ClientSettings(url=self.url("control"), token=ensure_token(self.layout))

    def greeting(self) -> list[str]:
        """What a person needs: the address, where the token is, the console, the clock."""
        where = self.layout.root.resolve()
        lines = [
            f"flyball runs at {self.url('control')}  (ingest {self.url('ingest')}, inference {self.url('inference')})",
            f"token in {where / 'token'}, {show_clock(self.layout)}, logs in {where / 'logs'}",
        ]
        if self.settings.state != Path(".flyball") or self.settings.port != Settings().port:
            lines.append(f"for other terminals: export FLYBALL_URL={self.url('control')} FLYBALL_STATE={where}")
        lines.append(f"console {console_address(self.layout, self.url('control'))}")
        return lines

    def _wait_ready(self) -> None:
        begun, told = time.monotonic(), False
        waiting = list(self.children)
        while waiting:
            waiting = [name for name in waiting if not answers(f"{self.url(name)}/healthz")]
            now = time.monotonic()
            for child in self.children.values():
                status = child.ended(now)
                if status is not None:
                    raise UnavailableError(
                        f"{child.name} ended at its start (status {status}): {last_words(child.error_log)}",
                        code="start_failed",
                        hint=f"{child.error_log} has all that it said",
                    )
            if waiting and not told and now > begun + SLOW:
                told = True
                self._say(f"waiting for {', '.join(waiting)}  (the first start on a machine compiles kernels)")
            if now > begun + READY:
                raise UnavailableError(
                    f"{', '.join(waiting)} did not answer within {READY:g} s",
                    code="start_failed",
                    hint=f"see {self.layout.logs}",
                )
            time.sleep(LOOK)

    # run

    def run(self) -> None:
        """Watch over the children until SIGTERM, SIGINT, or Ctrl-C; in the main thread."""
        if self._watcher is not None:
            self._stop_watching()

        def asked(number: int, frame: FrameType | None) -> None:
            self._say("stopping: workers drain, ingest flushes, control closes  (Ctrl-C again to force)")
            self._stop.set()

        with on_signals(asked):
            self._loop()

    def watch(self) -> None:
        """Watch over the children from a thread, while this one does something else."""
        self._watcher = threading.Thread(target=self._loop, name="supervisor", daemon=True)
        self._watcher.start()

    def _stop_watching(self) -> None:
        assert self._watcher is not None
        self._stop.set()
        self._watcher.join()
        self._watcher = None
        self._stop.clear()

    def _loop(self) -> None:
        while not self._stop.wait(LOOK):
            self.step(time.monotonic())

    def step(self, now: float) -> None:
        """One look: note who ended, start who is due."""
        changed = False
        for child in self.children.values():
            status = child.ended(now)
            if status is not None:
                changed = True
                self._say(f"{child.name} ended ({how(status)}); it starts again in {pause(child.failures):g} s")
            if child.due is not None and now >= child.due:
                child.start(now)
                changed = True
        if changed:
            self._publish()

    def _publish(self) -> None:
        """`endpoints.json`: who listens where, and which process is who."""
        body: dict[str, Any] = {name: self.url(name) for name in PROCESSES}
        body["supervisor"] = os.getpid()
        body["processes"] = [child.to_data() for child in self.children.values()]
        write_document(self.layout.endpoints, "flyball.endpoints", body)

    # stop

    def _end(self) -> None:
        """Stop what runs, in order; who does not end in its grace, or when asked again, is killed. Idempotent."""
        with on_signals(lambda number, frame: self._force.set()):
            self._stop_children()
        if self._lock is not None:
            self.layout.endpoints.unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def _stop_children(self) -> None:
        for name in GRACE:
            child = self.children.get(name)
            if child is None or child.process is None:
                continue
            child.signal(signal.SIGTERM)
            deadline = time.monotonic() + GRACE[name] + (self.settings.drain_window if name == "inference" else 0.0)
            while child.process.poll() is None and time.monotonic() < deadline and not self._force.is_set():
                time.sleep(LOOK / 5)
            child.signal(signal.SIGKILL)
            child.process.wait()
            child.close()
        self.children.clear()


@contextlib.contextmanager
def on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT and SIGTERM go to `handler`; only the main thread can arrange that, others leave it as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def default_commands(supervisor: Supervisor) -> dict[str, list[str]]:
    """The command of each process, in the order of their start."""
    settings, ports = supervisor.settings, supervisor.ports

    def command(module: list[str], port: int, *more: str) -> list[str]:
        place = ["--state", str(settings.state.resolve()), "--host", settings.host, "--port", str(port)]
        return [sys.executable, "-m", *module, *place, *more]

    workers = ("--workers", str(settings.workers), "--drain-window", f"{settings.drain_window:g}")
    level = ("--log-level", settings.log_level, "--supervised")
    return {
        "ingest": command(["flyball.platform", "ingest"], ports["ingest"], *level),
        "control": command(
            ["flyball.platform", "control"], ports["control"], *level, "--audit-share", str(settings.audit_share)
        ),
        "inference": command(["flyball.worker"], ports["inference"], *workers),
    }


def stop_orphans(layout: Layout) -> list[int]:
    """Stop what a supervisor that was killed left running on this state directory; the caller holds its lock."""
    try:
        left = read_document(layout.endpoints, "flyball.endpoints").get("processes") or []
    except (FileNotFoundError, FlyballError):
        return []
    pids = [int(process["pid"]) for process in left if process.get("pid")]
    ours = [pid for pid in pids if str(layout.root.resolve()) in command_line(pid)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + max(GRACE.values())
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while any(command_line(pid) for pid in ours) and time.monotonic() < deadline:
            time.sleep(LOOK)
    layout.endpoints.unlink(missing_ok=True)
    return ours


def command_line(pid: int) -> list[str]:
    """The command of a process; empty where there is none, or it has ended and nobody asked how."""
    try:
        return [text.decode(errors="replace") for text in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")][:-1]
    except OSError:
        return []


def how(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):  # nobody there yet, or somebody who does not speak HTTP
        return False


def console_address(layout: Layout, url: str) -> str:
    """A one-time address that opens the console, or the console's own while there is none."""
    try:
        return f"{url}/open?code={(layout.root / 'console').read_text().strip()}"
    except OSError:
        return f"{url}/"
