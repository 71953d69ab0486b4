"""Documents of the Open Inference Protocol: metadata, the index, and statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flyball.kernel.errors import NotFoundError
from flyball.serving.cells import CellFile
from flyball.serving.counting import Counters
from flyball.serving.oip_documents import index_document, model_document, models_document, server_document
from flyball.serving.oip_statistics import statistics_document
from flyball.serving.state import State
from tests.serving.support import Bench, plan, tree_version


@pytest.fixture
def state(bench: Bench, tmp_path: Path) -> State:
    versions = {f"fraud/{number}": tree_version(tmp_path, number) for number in (9, 10)}
    bench.worker.load_plan(plan(versions))
    return bench.worker.state


def stats(file: CellFile, state: State, *which: Any) -> list[dict[str, Any]]:
    return list(statistics_document(dict(file.values()), state, *which)["model_stats"])


def test_a_service_is_described_as_a_model_with_its_versions_in_order(state: State) -> None:
    document = model_document(state.service("fraud"))
    assert (document["name"], document["versions"], document["platform"]) == ("fraud", ["9", "10"], "flyball_trees")
    assert {"name": "channel", "datatype": "BYTES", "shape": (-1,)} in document["inputs"]
    assert models_document(state) == {"models": ["fraud"]}
    assert server_document()["extensions"] == ["binary_tensor_data", "schedule_policy", "statistics"]
    with pytest.raises(NotFoundError):
        model_document(state.service("fraud"), "11")


def test_the_index_has_a_line_a_version_and_says_why_one_is_not_ready(state: State) -> None:
    assert index_document(state, only_ready=True) == [
        {"name": "fraud", "version": "9", "state": "READY", "reason": ""},
        {"name": "fraud", "version": "10", "state": "READY", "reason": ""},
    ]
    assert index_document(state, only_ready=True, not_ready="it is stopping") == []
    assert index_document(state, only_ready=False, not_ready="it is stopping")[1] == {
        "name": "fraud",
        "version": "10",
        "state": "UNAVAILABLE",
        "reason": "it is stopping",
    }


def test_statistics_count_rows_and_batches_by_version(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.5)
    counters = Counters(file := CellFile(None))
    version = counters.version("fraud", "fraud/9")
    version.answered("model", [0.0002] * 3, within=3)
    version.failed("model_failed", [0.0002])
    version.waited([0.001] * 4)
    version.scored(3, 0.00015)
    version.scored(70, 0.0004)
    version.looked_up(hits=1, misses=3)
    nine, ten = stats(file, state)
    assert (nine["name"], nine["version"], nine["last_inference"]) == ("fraud", "9", 1_700_000_000_500)
    assert (nine["inference_count"], nine["execution_count"]) == (2, 2)
    parts = nine["inference_stats"]
    assert parts["success"] == {"count": 3, "ns": pytest.approx(600_000, abs=1)}
    assert parts["fail"] == {"count": 1, "ns": pytest.approx(200_000, abs=1)}
    assert parts["queue"] == {"count": 4, "ns": pytest.approx(4_000_000, abs=1)}
    assert parts["compute_infer"] == {"count": 2, "ns": pytest.approx(550_000, abs=1)}
    assert (parts["cache_hit"]["count"], parts["cache_miss"]["count"]) == (1, 3)
    found = [(b["batch_size"], b["compute_infer"]["count"], b["compute_infer"]["ns"]) for b in nine["batch_stats"]]
    assert found == [(4, 1, pytest.approx(150_000, abs=1)), (128, 1, pytest.approx(400_000, abs=1))]
    assert (ten["version"], ten["last_inference"], ten["inference_count"], ten["batch_stats"]) == ("10", 0, 0, [])


def test_statistics_are_of_everything_of_a_service_or_of_a_version(state: State) -> None:
    nothing = CellFile(None)
    assert [one["version"] for one in stats(nothing, state, "fraud")] == ["9", "10"]
    assert [one["version"] for one in stats(nothing, state, "fraud", "10")] == ["10"]
    with pytest.raises(NotFoundError):
        stats(nothing, state, "fraud", "11")
    with pytest.raises(NotFoundError):
        stats(nothing, state, "freud")
