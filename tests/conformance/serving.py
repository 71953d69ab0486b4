"""The kit's reference models on a real worker, and the kit run on an address."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from conformance.oip import reference

from flyball.http.access import token_digest
from flyball.kernel.layout import Layout
from flyball.serving.plan import publish
from tests.serving.support import write_version
from tests.serving.test_process import environment, eventually

ROOT = Path(__file__).parents[2]
TOKEN = "a-token"
SECONDS = 300


@dataclass(frozen=True, slots=True)
class Run:
    """What the kit found: its exit code, its output, and each test's outcome."""

    code: int
    output: str
    outcomes: list[dict[str, str]]

    def of(self, outcome: str) -> dict[str, str]:
        """The tests of an outcome, each with why."""
        return {one["test"].rpartition("::")[2]: one["why"] for one in self.outcomes if one["outcome"] == outcome}


def run_kit(target: str, folder: Path, *arguments: str, python: str = sys.executable) -> Run:
    report = folder / "report.json"
    command = [python, "-m", "pytest", "conformance/oip", "-p", "no:cacheprovider", "--target", target]
    done = subprocess.run(
        [*command, "--oip-report", str(report), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    outcomes = json.loads(report.read_text()) if report.exists() else []
    return Run(done.returncode, done.stdout + done.stderr, outcomes)


def plan_of_references(root: Path) -> dict[str, Any]:
    """A plan that serves each reference model as a service of its name; `oip_pair` has a second version."""
    services: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    for name, (data, signature) in reference.models().items():
        runtime = {"kind": "onnx", "file": "model.onnx", "input": "tensors", "tensors": signature}
        for number in (1, 2) if name == "oip_pair" else (1,):
            manifest = {"model": name, "task": None, "runtime": runtime, "signature": signature, "created": number}
            digest, folder = write_version(root, {"model.onnx": data}, **manifest)
            versions[f"{name}/{number}"] = {"digest": digest, "path": str(folder)}
        route = {"version": f"{name}/1", "digest": versions[f"{name}/1"]["digest"], "weight": 10_000, "arm": "stable"}
        services[name] = {"routes": [route], "salt": name}
    tokens = {token_digest(TOKEN): ["predict", "read"]}
    return {"epoch": 1, "services": services, "versions": versions, "tokens": tokens}


@contextmanager
def worker(root: Path) -> Iterator[str]:
    """A worker process on the reference models; gives its address."""
    layout = Layout(root / "state")
    layout.create()
    publish(layout, plan_of_references(root / "versions"))
    command = [sys.executable, "-m", "flyball.worker", "--state", str(layout.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        eventually(lambda: httpx.get(url + "/v2/health/ready").status_code == 200)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()
