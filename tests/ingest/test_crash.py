"""Promise 2: what was acknowledged survives SIGKILL at any moment, and is in the lake exactly once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyball.storage.lake import DeltaLake
from tests.ingest.retrier import WIDER
from tests.ingest.sources import make_ingest

ROOT = Path(__file__).parents[2]
KILLS = 12


def run_and_kill(
    folder: Path, seed: int, first: int, after_lines: int, module: str = "tests.ingest.crasher"
) -> list[str]:
    """Start the process, kill it once it has said `after_lines` lines; everything that it said."""
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "POLARS_MAX_THREADS": "2"}
    command = [sys.executable, "-m", module, str(folder), str(seed), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after_lines)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()  # said before it died, while it was in the middle of something
    assert process.returncode == -signal.SIGKILL, "it failed by itself"
    return [line for line in lines if line.endswith("\n")]


@pytest.mark.slow
def test_every_acknowledged_row_is_in_the_lake_once_after_sigkill_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(20_261_124)
    acknowledged: set[str] = set()
    first, quarantined = 0, 0
    for kill in range(KILLS):
        for line in run_and_kill(tmp_path, kill, first, chance.randint(1, 30)):
            if line.startswith("acknowledged"):
                _, number, size = line.split()
                acknowledged |= {f"p{i}" for i in range(int(number), int(number) + int(size))}
                quarantined += 1
                first = int(number) + int(size)
            elif line.startswith("loaded"):
                acknowledged.add(f"p{line.split()[1]}")
                first = max(first, int(line.split()[1]) + 1)
            elif line.startswith("load "):
                quarantined += 1
        first += 25  # beyond what the process may have committed and not said
    ingest = make_ingest(tmp_path)
    horizon = ingest.flush()["Payments"]
    ids = DeltaLake(tmp_path / "lake").read("Payments", ["id"])["id"]
    assert len(acknowledged) > 200
    assert acknowledged <= set(ids)
    assert ids.n_unique() == len(ids) == horizon.rows
    assert len(ids) - len(acknowledged) <= KILLS * 25, "more than what was in flight"
    rejected = DeltaLake(tmp_path / "lake").count("Payments__quarantine")
    assert quarantined <= rejected <= quarantined + KILLS
    status = next(s for s in ingest.status()["sources"] if s["name"] == "Payments")
    assert (status["lag"], status["lake_lag"], status["pending_batches"]) == (0, 0, 0)


@pytest.mark.slow
def test_every_quarantined_row_is_taken_once_by_retries_that_are_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: set[str] = set()
    first = 0
    for kill in range(6):
        for line in run_and_kill(tmp_path, kill, first, chance.randint(2, 12), "tests.ingest.retrier"):
            if line.startswith("acknowledged"):
                _, number, size = line.split()
                acknowledged |= {f"p{i}" for i in range(int(number), int(number) + int(size))}
                first = int(number) + int(size)
        first += 7  # beyond what the process may have committed and not said
    ingest = make_ingest(tmp_path, sources=[WIDER])
    ingest.retry("Payments")
    ingest.flush()
    frame = DeltaLake(tmp_path / "lake").read("Payments", ["id", "_key"])
    assert acknowledged <= set(frame["id"])
    assert frame["id"].n_unique() == frame.height
    status = next(s for s in ingest.status()["sources"] if s["name"] == "Payments")
    assert status["lsn"] == frame.height, "no row was even logged twice"
    assert status["quarantine_open"] == 0
    assert status["quarantined"] == frame.height
