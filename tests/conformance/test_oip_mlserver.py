"""The conformance kit on MLServer, where it is installed: what the kit's README says of it is what is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conformance.oip import reference

from flyball.platform.ports import free_ports
from tests.conformance.serving import ROOT, run_kit
from tests.serving.test_process import eventually

pytestmark = pytest.mark.slow

VARIABLE = "FLYBALL_MLSERVER_PYTHON"
PASSED = {  # by clause; the README's table has the rest
    "health": 5,
    "server metadata": 1,
    "model metadata": 4,
    "tensor data": 42,
    "lists of models": 3,
    "HTTP": 12,
}


def mlserver() -> Path:
    """MLServer's command in the environment that the variable names, or in this one; skips where there is none."""
    named = os.environ.get(VARIABLE)
    command = Path(named or sys.executable).parent / "mlserver"
    if named and not command.exists():
        pytest.fail(f"{VARIABLE} is {named}, and there is no mlserver beside it")
    if not command.exists():
        pytest.skip(f"MLServer is not installed here; set {VARIABLE} to a Python that has mlserver and onnxruntime")
    return command


def test_mlserver_does_as_the_readme_says(tmp_path: Path) -> None:
    command = mlserver()
    reference.write(tmp_path)
    ports = free_ports("127.0.0.1")
    http, grpc, metrics = (ports[name] for name in ("control", "ingest", "inference"))
    settings = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0}
    (tmp_path / "settings.json").write_text(json.dumps({"host": "127.0.0.1", **settings}))
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    shutil.copy(ROOT / "conformance" / "oip" / "mlserver_runtime.py", runtime)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(command), "start", str(tmp_path)],
            stdout=log,
            stderr=log,
            env=environment | {"PYTHONPATH": str(runtime)},
        )
    try:
        url = f"http://127.0.0.1:{http}"
        eventually(lambda: httpx.get(url + "/v2/health/ready").status_code == 200, seconds=120)
        run = run_kit(url, tmp_path, "--profile", "protocol")
    finally:
        process.terminate()
        process.wait(30)
    passed = [one["clause"] for one in run.outcomes if one["outcome"] == "passed"]
    assert {clause: passed.count(clause) for clause in PASSED} == PASSED, run.output[-6000:]
