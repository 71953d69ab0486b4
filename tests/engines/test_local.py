"""Local processes: identity, restart of the parent, stop, no zombies."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from flyball.engines.local import LocalEngine, identity
from flyball.training.ports import Engine, Handle, PollState

CHILD = """
import os, signal, sys, time
from pathlib import Path
from flyball.engines.local import record_identity
run_dir = Path(sys.argv[-1])
mode = (run_dir / "mode").read_text()
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
record_identity(run_dir)
print("hello", flush=True)
fd = os.open(run_dir / "ready", os.O_WRONLY)  # a FIFO: the test waits at its other end
os.write(fd, b"1")
os.close(fd)
if mode == "exit":
    sys.exit(3)
time.sleep(60)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    engine = LocalEngine(command=[sys.executable, str(script)])
    yield engine
    for child in engine._children.values():
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def start(engine: Engine, tmp_path: Path, mode: str) -> tuple[Path, Handle]:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "mode").write_text(mode)
    os.mkfifo(run_dir / "ready")
    handle = engine.launch(run_dir)
    assert (run_dir / "ready").read_bytes() == b"1"
    return run_dir, handle


def wait_for_exit(pid: int) -> None:
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    assert poll.poll(20_000), "the process did not end"
    os.close(watch)


def test_a_run_leads_its_own_session_steps_back_and_writes_to_files(engine: LocalEngine, tmp_path: Path) -> None:
    run_dir, handle = start(engine, tmp_path, "wait")
    assert engine.poll(handle).running
    assert os.getsid(handle.pid) == handle.pid
    assert os.getpriority(os.PRIO_PROCESS, handle.pid) == 10
    assert (run_dir / "stdout.log").read_text() == "hello\n"
    assert engine.find(run_dir) == handle
    engine.stop(handle)


def test_launching_a_running_directory_again_gives_the_same_process(engine: LocalEngine, tmp_path: Path) -> None:
    run_dir, handle = start(engine, tmp_path, "wait")
    assert engine.launch(run_dir) == handle
    assert LocalEngine(command=["/bin/false"]).launch(run_dir) == handle
    engine.stop(handle)


def test_the_exit_status_is_told_and_no_zombie_is_left(engine: LocalEngine, tmp_path: Path) -> None:
    _, handle = start(engine, tmp_path, "exit")
    wait_for_exit(handle.pid)
    poll = engine.poll(handle)
    assert (poll.state, poll.code) == (PollState.EXITED, 3)
    assert identity(handle.pid) != handle
    assert engine.poll(handle) == poll


def test_another_parent_polls_and_stops_the_run_from_its_stored_identity(engine: LocalEngine, tmp_path: Path) -> None:
    run_dir, handle = start(engine, tmp_path, "wait")
    restarted = LocalEngine()
    found = restarted.find(run_dir)
    assert found == handle
    assert restarted.poll(found).running
    stopped = restarted.stop(found, grace=20)
    assert (stopped.state, stopped.code) == (PollState.EXITED, None)
    assert engine.poll(handle).code == -signal.SIGTERM


def test_a_reused_pid_is_not_taken_for_the_run(engine: LocalEngine) -> None:
    own = identity(os.getpid())
    assert own is not None
    for other in (
        msgspec.structs.replace(own, started=own.started - 1),
        msgspec.structs.replace(own, boot="another boot"),
    ):
        assert not engine.poll(other).running
        assert not engine.stop(other).running  # and this test process is still here to see it


def test_a_run_that_ignores_sigterm_is_killed(engine: LocalEngine, tmp_path: Path) -> None:
    _, handle = start(engine, tmp_path, "stubborn")
    assert engine.stop(handle, grace=0.05).code == -signal.SIGKILL
    assert engine.stop(handle).code == -signal.SIGKILL


def test_a_process_that_ended_unreaped_counts_as_exited(engine: LocalEngine, tmp_path: Path) -> None:
    _, handle = start(engine, tmp_path, "exit")
    wait_for_exit(handle.pid)
    assert not LocalEngine().poll(handle).running
