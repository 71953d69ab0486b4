"""Runs as child processes of this machine (`training.ports.Engine`), for Linux.

A child leads a session of its own, so signals to the platform do not reach it and it outlives its parent. Who it is is
kept as (boot id, pid, start time): a pid that was reused is never taken for it. The child records that identity in its
run directory itself (`record_identity`), after it has locked the directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flyball.kernel.errors import UnavailableError
from flyball.kernel.files import write_atomic
from flyball.training.ports import Handle, Poll, PollState

IDENTITY = "process.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LocalEngine:
    """Starts `command RUN_DIR` with standard output and error in `stdout.log` and `stderr.log` of the directory.

    Args:
        command: what is started; by default the trainer, importing nothing from the current directory (-P).
        nice: how far a run steps back behind serving; 0 to 19.
        environment: variables added to this process's own.
    """

    def __init__(
        self, *, command: Sequence[str] = (), nice: int = 10, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = tuple(command) or (sys.executable, "-P", "-m", "flyball.trainer")
        self._nice = nice
        self._environment = dict(environment or {})
        self._children: dict[Handle, subprocess.Popen[bytes]] = {}

    def launch(self, run_dir: Path) -> Handle:
        running = self.find(run_dir)
        if running is not None and self.poll(running).running:
            return running
        with (run_dir / "stdout.log").open("ab") as out, (run_dir / "stderr.log").open("ab") as err:
            child = subprocess.Popen(
                [*self._command, str(run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env=os.environ | self._environment,
            )
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, child.pid, self._nice)
        handle = identity(child.pid)
        assert handle is not None  # a child that we have not reaped has an entry, even when it has ended
        self._children[handle] = child
        return handle

    def find(self, run_dir: Path) -> Handle | None:
        try:
            data = json.loads((run_dir / IDENTITY).read_bytes())
        except FileNotFoundError:
            return None
        return Handle(**data)

    def poll(self, handle: Handle) -> Poll:
        child = self._children.get(handle)
        if child is not None:  # ours: reaping it here is what leaves no zombie
            code = child.poll()
            return Poll(state=PollState.RUNNING) if code is None else Poll(state=PollState.EXITED, code=code)
        alive = identity(handle.pid) == handle and not _is_zombie(handle.pid)
        return Poll(state=PollState.RUNNING if alive else PollState.EXITED)

    def stop(self, handle: Handle, *, grace: float = 10.0) -> Poll:
        if not self.poll(handle).running:
            return self.poll(handle)
        try:
            watch = os.pidfd_open(handle.pid)
        except ProcessLookupError:
            return self.poll(handle)
        try:
            if identity(handle.pid) == handle:
                _signal_group(handle.pid, signal.SIGTERM)
                _wait(watch, grace)
                _signal_group(handle.pid, signal.SIGKILL)  # the leader if it is still there, and what it left behind
                _wait(watch, 5.0)
        finally:
            os.close(watch)
        child = self._children.get(handle)
        if child is not None:
            child.wait()
        return self.poll(handle)


def identity(pid: int) -> Handle | None:
    """Who `pid` is now; None if there is no such process."""
    fields = _stat(pid)
    return None if fields is None else Handle(boot=_BOOT_ID.read_text().strip(), pid=pid, started=int(fields[19]))


def record_identity(run_dir: Path) -> None:
    """Called by the process that executes `run_dir`, once it holds the directory's lock."""
    own = identity(os.getpid())
    if own is None:
        raise UnavailableError("/proc is not mounted; local runs need it to tell processes apart", code="no_proc")
    write_atomic(run_dir / IDENTITY, json.dumps(own.to_data()).encode())


def _stat(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the state on: [0] is the state, [19] the start time in ticks since boot."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()  # the name before it may hold anything, parentheses and spaces too


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[0] in ("Z", "X")


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _wait(watch: int, seconds: float) -> None:
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    poll.poll(seconds * 1_000)
