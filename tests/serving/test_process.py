"""Real worker processes: a zygote, forks, plans as files, signals."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flyball.kernel.files import read_document
from flyball.kernel.layout import Layout
from flyball.serving.log import PredictionReader
from flyball.serving.plan import publish
from flyball.worker import prepare_model
from tests.serving.onnx_models import affine

pytestmark = pytest.mark.slow

HEAVY = (
    "sqlalchemy",
    "fastapi",
    "deltalake",
    "polars",
    "lightgbm",
    "sklearn",
    "pandas",
    "pyarrow",
    "onnxruntime",
    "torch",
)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OPENBLAS_NUM_THREADS": "1"}


def eventually(check: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true answer; the deadline is only for a test that fails."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, FileNotFoundError):
            found = check()
            if found:
                return found
        time.sleep(0.02)
    raise AssertionError("the condition did not come true")


class Process:
    """`python -m flyball.worker` on one ONNX model."""

    def __init__(self, root: Path, *, workers: int | str = 1, options: tuple[str, ...] = ()) -> None:
        model = root / "affine model.onnx"
        model.write_bytes(affine())
        self.state = root / "state"
        self.layout = Layout(self.state)
        self.model = prepare_model(model, self.state)
        command = [
            sys.executable,
            "-m",
            "flyball.worker",
            "--state",
            str(self.state),
            "--workers",
            str(workers),
            *options,
        ]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, self.popen.communicate()[1].decode()
        self.port = json.loads(line)["port"]
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"authorization": f"Bearer {self.model.token}"}
        )
        eventually(self.ready)

    def ready(self) -> bool:
        return self.client.get("/readyz").status_code == 200

    def ask(self) -> Any:
        return self.client.post(f"/v2/models/{self.model.service}/infer", json=self.model.example)

    def acknowledged(self) -> dict[str, dict[str, Any]]:
        folder = self.layout.acknowledgements
        return {path.stem: read_document(path, "flyball.ack") for path in folder.glob("worker-*.json")}

    def replaced(self, pid: int) -> bool:
        return bool(self.acknowledged()["worker-0"]["pid"] != pid)

    def stop(self) -> int:
        self.client.close()
        self.popen.terminate()
        self.popen.communicate(timeout=30)
        return self.popen.returncode


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path, workers=2)
    yield made
    made.client.close()
    if made.popen.poll() is None:
        made.stop()


def logged(state: Path) -> list[str]:
    reader = PredictionReader(state / "predictions")
    return [
        str(record["id"])
        for slot in reader.slots()
        for segment in reader.segments(slot)
        for record in reader.read(slot, segment, 0).records
    ]


def test_a_model_file_is_served_until_sigterm(process: Process) -> None:
    reply = process.ask().json()
    assert reply["model_name"] == "affine_model"
    assert reply["outputs"] == [{"name": "y", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 1.0]}]
    eventually(lambda: set(process.acknowledged()) == {"worker-0", "worker-1"})
    assert process.stop() == 0
    assert len(logged(process.state)) == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{process.port}/healthz")


def test_a_new_plan_is_taken_up_and_acknowledged_and_a_bad_one_is_refused(process: Process) -> None:
    plan = dict(process.model.plan)
    new = publish(process.layout, {**plan, "epoch": 2, "services": {"other": plan["services"]["affine_model"]}})
    eventually(lambda: all(ack["digest"] == new["digest"] for ack in process.acknowledged().values()))
    path = "/v2/models/other/infer"
    assert process.client.post(path, json=process.model.example).status_code == 200
    versions = {"affine_model/1": {"digest": "0" * 64, "path": str(process.state / "nowhere")}}
    route = {"version": "affine_model/1", "digest": "0" * 64, "weight": 10_000}
    publish(process.layout, {**plan, "epoch": 3, "versions": versions, "services": {"x": {"routes": [route]}}})
    acks = eventually(lambda: [a for a in process.acknowledged().values() if a["epoch"] == 3])
    assert "no version" in acks[0]["error"]
    assert process.client.post(path, json=process.model.example).status_code == 200


def test_a_killed_worker_is_replaced_and_nothing_answered_is_lost(process: Process) -> None:
    answered = 0
    for _ in range(3):
        for _ in range(20):
            with contextlib.suppress(httpx.HTTPError):
                answered += process.ask().status_code == 200
        victim = process.acknowledged()["worker-0"]["pid"]
        os.kill(victim, signal.SIGKILL)
        eventually(functools.partial(process.replaced, victim))
        eventually(process.ready)
    assert process.stop() == 0
    ids = logged(process.state)
    assert len(set(ids)) == len(ids) >= answered >= 50


def test_workers_end_when_the_zygote_is_killed(process: Process) -> None:
    pids = [ack["pid"] for ack in process.acknowledged().values()]
    process.popen.kill()
    process.popen.communicate()

    def gone() -> bool:
        for pid in pids:
            with contextlib.suppress(FileNotFoundError):
                if "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                    return False
        return True

    eventually(gone)


def run_worker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flyball.worker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)


def test_a_taken_port_a_used_state_and_a_wide_address_are_named(process: Process, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_worker("--state", str(tmp_path / "other"), "--port", port)
        assert done.returncode == 4
        assert f"port {port}" in done.stderr
    again = run_worker("--state", str(process.state))
    assert again.returncode == 4
    assert "in use by process" in again.stderr
    wide = run_worker("--state", str(tmp_path / "other"), "--host", "0.0.0.0")
    assert wide.returncode != 0
    assert "loopback" in wide.stderr
    assert "Traceback" not in done.stderr + again.stderr + wide.stderr


def test_a_worker_imports_nothing_heavy() -> None:
    code = f"import sys, flyball.worker; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_preparing_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(affine())
    first, second = prepare_model(path, tmp_path / "state"), prepare_model(path, tmp_path / "state")
    assert first == second
    assert (tmp_path / "state" / "token").stat().st_mode & 0o777 == 0o600
