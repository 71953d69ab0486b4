"""A disk that fails: what was not acknowledged is not in the log, whoever opens it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ingest.sources import make_ingest, payment

SHIM = Path(__file__).parents[1] / "storage" / "failing_disk.c"


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs a C compiler on Linux")
@pytest.mark.parametrize(("what", "code"), [("sync", "event_log_unavailable"), ("full", "disk_full")])
def test_after_failed_commits_and_a_kill_the_log_holds_exactly_what_was_acknowledged(
    tmp_path: Path, what: str, code: str
) -> None:
    library = tmp_path / "failing_disk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "FAIL_FLAG": str(tmp_path / "flag")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ingest.failer", str(tmp_path / "state"), what],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    said = {int(number): word for number, word in (line.split() for line in done.stdout.splitlines())}
    acknowledged = [f"p{number}" for number, word in said.items() if word == "ok"]
    assert len(said) == 24
    assert set(said.values()) == {"ok", code}
    assert len(acknowledged) == 16, "a disk that works again takes pushes again"
    ingest = make_ingest(tmp_path / "state")
    ingest.apply()
    assert ingest.events("Payments")["id"].to_list() == acknowledged
    for number, word in said.items():
        receipt = ingest.append("Payments", [payment(number)], idempotency_key=f"k{number // 10}-{number % 10}")
        assert receipt.replayed == (word == "ok"), "what was refused is stored by its repetition, the rest is not again"
