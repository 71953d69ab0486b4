"""The conformance kit of the Open Inference Protocol on a worker of our own, with the kit's reference models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.serving import TOKEN, run_kit, worker

pytestmark = pytest.mark.slow

SKIPPED = {
    f"test_bytes_and_json_are_the_same_tensor[{kind}-FP16]": "FP16 has no JSON form in the protocol"
    for kind in ("plain", "edges", "empty")
}


def test_a_worker_passes_the_whole_kit(tmp_path: Path) -> None:
    with worker(tmp_path) as url:
        run = run_kit(url, tmp_path, "--header", f"Authorization: Bearer {TOKEN}")
    assert run.of("failed") == {}, run.output[-6000:]
    assert {name: why.removeprefix("Skipped: ") for name, why in run.of("skipped").items()} == SKIPPED
    assert len(run.of("passed")) > 250
    assert run.code == 0
