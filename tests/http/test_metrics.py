"""The metrics of all workers, whichever is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flyball.http.metrics import GAUGES, InferenceMetrics
from flyball.serving.board import Board
from flyball.serving.counting import FAMILIES

OF = 'service="tip",version="tip/7"'


def lines(metrics: InferenceMetrics) -> list[str]:
    return metrics.render().decode().splitlines()


def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    workers = [InferenceMetrics(tmp_path, f"worker-{slot}") for slot in range(3)]
    for number, worker in enumerate(workers):
        for _ in range(number + 1):
            worker.counters.version("tip", "tip/7").answered("model", [0.0004], within=1)
        worker.counters.refused("bad_json")
    for worker in workers:
        shown = lines(worker)
        assert f'flyball_predictions_total{{{OF},rung="model"}} 6' in shown
        assert f'flyball_prediction_seconds_bucket{{{OF},le="0.00025"}} 0' in shown
        assert f'flyball_prediction_seconds_bucket{{{OF},le="0.0005"}} 6' in shown
        assert f'flyball_prediction_seconds_bucket{{{OF},le="+Inf"}} 6' in shown
        assert f"flyball_prediction_seconds_count{{{OF}}} 6" in shown
        assert 'flyball_refused_total{code="bad_json"} 3' in shown


def test_no_counter_falls_when_a_worker_starts_again(tmp_path: Path) -> None:
    other = InferenceMetrics(tmp_path, "worker-1")
    for time in (1, 2, 3):
        InferenceMetrics(tmp_path, "worker-0").counters.version("tip", "tip/7").answered("model", [400 / 1e6], within=1)
        assert f'flyball_predictions_total{{{OF},rung="model"}} {time}' in lines(other)


def test_gauges_are_of_the_workers_that_live(tmp_path: Path) -> None:
    board = Board(3)
    for number in (0, 1):
        board.slots[number].forked(1)
    workers = [InferenceMetrics(tmp_path, f"worker-{slot}", board=board) for slot in range(3)]
    for worker in workers:
        worker.counters.version("tip", "tip/7").lane("thread")
    assert f'flyball_lane_workers{{{OF},mode="thread"}} 2' in lines(workers[0])
    workers[1].close()
    assert f'flyball_lane_workers{{{OF},mode="thread"}} 1' in lines(workers[0])


def test_versions_that_are_served_no_longer_are_not_shown(tmp_path: Path) -> None:
    asked, other = InferenceMetrics(tmp_path, "worker-0"), InferenceMetrics(tmp_path, "worker-1")
    for version in ("tip/6", "tip/7"):
        other.counters.version("tip", version).answered("model", [400 / 1e6], within=1)
        asked.counters.version("tip", version).failed("not_scored", [0.0004])
    asked.keep([("tip", "tip/7")])
    text = asked.render().decode()
    assert "tip/6" not in text
    assert f"flyball_prediction_seconds_count{{{OF}}} 2" in text


def test_a_file_that_cannot_be_read_is_named_once_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = InferenceMetrics(tmp_path, "worker-0")
    asked.counters.version("tip", "tip/7").answered("model", [400 / 1e6], within=1)
    (tmp_path / "worker-1.bin").write_bytes(b"something else, of some length" * 10)
    for _ in range(2):
        assert f'flyball_predictions_total{{{OF},rung="model"}} 1' in lines(asked)
    assert [Path(record.__dict__["file"]).name for record in caplog.records] == ["worker-1.bin"]


def test_the_text_is_well_formed_whatever_the_labels_hold() -> None:
    metrics = InferenceMetrics()
    metrics.counters.version('ti"p\\', "tip/7\n").answered("model", [1_234_567 / 1e6], within=1)
    metrics.refused("bad_json")
    for line in metrics.render({"flyball_plan_epoch": 3.0, "flyball_services": 1.0}).decode().splitlines():
        assert re.fullmatch(r"# HELP \w+ .+\.|# TYPE \w+ (counter|histogram|gauge)|\w+(\{.*\})? [-+.\deinf]+", line), (
            line
        )


def test_the_pool_is_shown_as_the_board_has_it() -> None:
    board = Board(3)
    board.desk.wanted, board.desk.demand = 2, 7
    board.slots[0].forked(1_000)
    board.slots[0].ready(500_001_000)
    board.slots[0].epoch, board.slots[0].busy_ns = 4, 1_500_000_000
    board.slots[1].forked(1)
    shown = InferenceMetrics(board=board).render({"flyball_services": 1.0}).decode().splitlines()
    assert {
        "flyball_workers_wanted 2",
        "flyball_workers_demand 7",
        "flyball_workers_ready 1",
        'flyball_workers{state="starting"} 1',
        'flyball_plan_epoch{worker="0"} 4',
        'flyball_worker_busy_seconds_total{worker="0"} 1.5',
        'flyball_worker_load_seconds{worker="0"} 0.5',
    } <= set(shown)
    typed = {line.split()[2] for line in shown if line.startswith("# TYPE")}
    assert typed == set(GAUGES)


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    rows = re.findall(r"^\| `(flyball_\w+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE)
    documented = {name: (kind, labels.strip()) for name, kind, labels in rows}
    known = {
        name: ("gauge" if family.kind == "latest" else family.kind, ", ".join(family.labels))
        for name, family in FAMILIES.items()
    }
    assert {name: documented.get(name) for name in known} == known
    assert {name: documented[name][0] for name in GAUGES} == {name: gauge.kind for name, gauge in GAUGES.items()}
    assert documented.keys() == known.keys() | GAUGES.keys()
    queries = set(re.findall(r"flyball_\w+", page.partition("Questions that they answer")[2]))
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in queries} <= documented.keys()
