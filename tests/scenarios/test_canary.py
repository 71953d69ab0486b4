"""Promise 4, of the whole: a canary whose model fails is taken back, at a stated false-alarm rate."""

from __future__ import annotations

from pathlib import Path

import flyball as fb
from flyball.testing import platform
from tests.scenarios import lookup_model
from tests.scenarios.market.stream import NOW


class Ask(fb.Request):
    x = fb.Integer(ge=0)


def project(file: Path, alpha: float) -> fb.Project:
    model = fb.Pretrained(file, name="lookup", task=fb.Regression(), rows=Ask, features=[Ask.x])
    rollout = fb.Canary(steps=(20, 100), hold="10m", min_requests=20, alpha=alpha)
    return fb.Project("lookup", services=[fb.Service("lookup", model=model, rollout=rollout, default=0.0)])


def test_a_canary_whose_model_fails_is_aborted_and_the_fact_states_the_rate_it_was_run_at(tmp_path: Path) -> None:
    good = lookup_model.write(tmp_path / "good.onnx", size=100)
    bad = lookup_model.write(tmp_path / "bad.onnx", size=5)  # loads, and fails for most of what is asked
    with platform(project(good, alpha=0.005), at=NOW) as running:
        assert running.predict("lookup", x=50)["prediction"] == 0.5
        running.apply(project(bad, alpha=0.005))
        assert running.service("lookup")["rollout"]["version"] == "lookup/2"
        replies = running.predict("lookup", [{"x": 10 + n % 80} for n in range(300)])
        rungs = {(reply["version"], reply["rung"]) for reply in replies}
        assert rungs == {("lookup/1", "model"), ("lookup/2", "default")}, "a failing model's rows get the default"
        running.advance("1m")  # less than the step is held

        service = running.service("lookup")
        assert service["rollout"] is None
        assert service["routes"] == [{"version": "lookup/1", "weight": 10_000, "arm": "stable"}]
        assert {reply["rung"] for reply in running.predict("lookup", [{"x": n} for n in range(50)])} == {"model"}
        (fact,) = running.facts(kind="rollout.abort")
        assert fact["actor"] == "loop:rollout"
        assert "with probability at most 0.005" in fact["note"], fact
        (started,) = [f for f in running.facts(kind="rollout.start") if f["after"]["version"] == "lookup/2"]
        assert started["after"]["spec"]["alpha"] == 0.005


def test_a_canary_that_does_not_fail_takes_all_traffic_and_says_what_that_proves(tmp_path: Path) -> None:
    first = lookup_model.write(tmp_path / "first.onnx", size=100)
    second = lookup_model.write(tmp_path / "second.onnx", size=200)
    with platform(project(first, alpha=0.01), at=NOW) as running:
        running.apply(project(second, alpha=0.01))
        for _ in range(4):
            running.predict("lookup", [{"x": n} for n in range(150)])
            running.advance("10m")
        service = running.service("lookup")
        assert (service["version"], service["rollout"]) == ("lookup/2", None)
        (fact,) = running.facts(kind="rollout.promote")
        assert "e-value" in fact["note"]
