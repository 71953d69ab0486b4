"""A worker process whose online state goes and comes back: defaults that say so meanwhile, then fresh by itself."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flyball.ingest.service import Ingest
from flyball.kernel.clock import ManualClock, WallClock
from flyball.kernel.files import write_document
from flyball.kernel.layout import Layout
from flyball.kernel.settings import Settings
from flyball.kernel.times import MINUTE
from flyball.platform.wiring import open_ingest
from flyball.serving.plan import publish
from flyball.storage.online import KIND
from tests.serving.support import COLUMNS, SOURCE, fraud_manifest, write_version
from tests.serving.test_process import environment, eventually
from tests.serving.test_worker import FEATURES, VIEW

pytestmark = pytest.mark.slow
PLAN = {"epoch": 1, "digest": "", "sources": [SOURCE], "views": [VIEW]}


class Bench:
    """A worker process, and the ingest core of this one."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root / "state")
        self.layout.create()
        self.now = WallClock().now()
        manifest = fraud_manifest(
            runtime={"kind": "none"},
            task=None,
            features=[spec.to_data() for spec in FEATURES],
            views=[VIEW.to_data()],
            inputs=[column.to_data() for column in COLUMNS],
        )
        digest, path = write_version(self.layout.artifacts / "versions", {}, **manifest)
        route = {"version": "fraud/1", "digest": digest, "weight": 10_000, "arm": "stable"}
        publish(
            self.layout,
            {
                "epoch": 1,
                "services": {"fraud": {"routes": [route]}},
                "versions": {"fraud/1": {"digest": digest, "path": str(path)}},
                "tokens": {hashlib.sha256(b"t").hexdigest(): ["predict", "read"]},
            },
        )
        command = [sys.executable, "-m", "flyball.worker", "--state", str(self.layout.root)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
        assert self.process.stdout is not None
        port = json.loads(self.process.stdout.readline())["port"]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer t"})

    def ask(self) -> tuple[str, float]:
        body = {"rows": [{"amount": "1.00", "channel": "web", "card": "x"}]}
        answer = self.client.post("/v1/services/fraud:predict", json=body)
        if answer.status_code != 200:
            return "", 0.0  # the plan is not loaded yet
        reply: dict[str, Any] = answer.json()["predictions"][0]
        return reply["features"], reply["values"]["n"]

    def ingest(self) -> Ingest:
        core = open_ingest(Settings(state=self.layout.root), clock=ManualClock(self.now + MINUTE))
        core.load_plan(PLAN)
        return core

    def push(self, core: Ingest, number: int) -> None:
        row = {"amount": "2.00", "channel": "web", "card": "x", "payment": str(number), "note": ""}
        assert core.append("Payments", [{**row, "at": self.now - MINUTE}]).accepted == 1

    def stop(self, core: Ingest) -> None:
        core._applier._store.close()  # type: ignore[attr-defined]
        core._log.close()  # type: ignore[attr-defined]

    def close(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def lose_folder(bench: Bench) -> None:
    shutil.rmtree(bench.layout.online)


def lose_boot(bench: Bench) -> None:
    write_document(bench.layout.online / "boot.json", KIND, {"boot": "another"})


def tear(bench: Bench) -> None:
    data = bench.layout.online / "data.mdb"
    data.write_bytes(b"junk" * 2_000)


def test_a_worker_outlives_its_state_and_says_what_it_answers_with(bench: Bench) -> None:
    eventually(lambda: bench.ask() == ("default", 0.0))  # no ingest ever ran
    core = bench.ingest()
    bench.push(core, 1)
    core.apply()
    eventually(lambda: bench.ask() == ("fresh", 1.0))
    core.flush()
    bench.push(core, 2)
    core.apply()
    eventually(lambda: bench.ask() == ("fresh", 2.0))
    bench.stop(core)

    core = bench.ingest()  # the same boot: a hot start
    assert bench.ask() == ("fresh", 2.0)
    for number, lose in enumerate((lose_folder, lose_boot), 3):
        bench.stop(core)
        lose(bench)
        core = bench.ingest()
        bench.push(core, number)  # taken while the state is built again
        eventually(lambda: bench.ask() == ("default", 0.0))
        core.apply()
        eventually(lambda: bench.ask()[0] == "fresh")
        assert bench.ask()[1] == number
    core._applier._store.compact()  # type: ignore[attr-defined]
    eventually(lambda: bench.ask() == ("fresh", 4.0))
    bench.push(core, 11)
    core.apply()
    eventually(lambda: bench.ask() == ("fresh", 5.0))
    bench.stop(core)
    assert bench.process.poll() is None


def test_a_torn_file_is_put_away_when_ingest_starts(bench: Bench) -> None:
    core = bench.ingest()
    bench.push(core, 1)
    core.apply()
    bench.stop(core)
    tear(bench)
    core = bench.ingest()
    core.apply()
    eventually(lambda: bench.ask() == ("fresh", 1.0))
    bench.stop(core)
