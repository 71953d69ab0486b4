import io

import pytest
from rich.console import Console

from flyball.demo.events import told
from flyball.demo.show import Show


def test_without_a_terminal_a_stage_is_one_plain_line() -> None:
    out = io.StringIO()
    with Show(Console(file=out, width=60)) as show, show.stage("history") as stage:
        stage.at(1, 2, "bytes")
        stage.tell("[half] way")
        stage.outcome("65,112 rows ingested, 43 quarantined, and a line that is longer than the console is wide")
    lines = out.getvalue().splitlines()
    assert lines[0] == "    [half] way"
    assert lines[1].startswith("  history                65,112 rows ingested")
    assert len(lines) == 2


def test_on_a_terminal_a_stage_has_a_bar_that_is_gone_in_the_end() -> None:
    out = io.StringIO()
    with Show(Console(file=out, force_terminal=True, width=100)) as show, show.stage("training") as stage:
        stage.at(3, 5, "evaluation")
        stage.outcome("done")
    assert "training" in out.getvalue()


def test_a_stage_that_fails_has_no_outcome() -> None:
    out = io.StringIO()
    with pytest.raises(RuntimeError), Show(Console(file=out)) as show, show.stage("live traffic"):
        raise RuntimeError
    assert out.getvalue() == ""


def test_facts_are_told_as_lines_and_dull_ones_are_not() -> None:
    drift = {"kind": "drift", "details": {"reason": "Merchant.x moved by 0.31 (ks)"}}
    assert told({"kind": "alert.open", "after": drift}) == "drift alarm (uncalibrated): Merchant.x moved by 0.31 (ks)"
    drop = {"kind": "quality_drop", "details": {"reason": "auc is 0.6"}}
    assert told({"kind": "alert.open", "after": drop}) == "quality alarm (uncalibrated): auc is 0.6"
    step = {"kind": "rollout.advance", "after": {"version": "fraud/2", "weight": 5_000}, "note": "to 50 %"}
    assert told(step) == "rollout of fraud/2: advance at 50 %  to 50 %"
    assert told({"kind": "run.queue", "after": None}) == ""
