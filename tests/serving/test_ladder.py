"""What answers when the model cannot: an older version, the default, or an error; always labelled, always logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flyball.engines.runtimes import open_runtime
from flyball.serving.manifest import Manifest
from flyball.serving.ports import Runtime
from flyball.serving.replies import outcomes
from flyball.serving.request import Ask
from tests.serving.support import Bench, FailingRuntime, payment, plan, tree_version


class Desk:
    """Two versions, of which each can be broken."""

    def __init__(self, root: Path, **service: Any) -> None:
        self.runtimes: dict[str, FailingRuntime] = {}
        self.versions = {"fraud/1": tree_version(root), "fraud/2": tree_version(root, 1)}

        def opened(kind: str, folder: Path, manifest: Manifest) -> Runtime:
            found = FailingRuntime(open_runtime(kind, folder, manifest))
            self.runtimes[folder.name] = found
            return found

        self.bench = Bench(root, runtime=opened)
        self.bench.worker.load_plan(plan(self.versions, weights={"fraud/2": 10_000}, **service))

    def runtime(self, ref: str) -> FailingRuntime:
        return self.runtimes[self.versions[ref][0]]


def test_an_older_version_answers_the_rows_that_the_asked_one_failed(tmp_path: Path) -> None:
    desk = Desk(tmp_path, older=["fraud/2", "fraud/1"], default=0.3)
    alone = desk.bench.worker.predict("fraud", [payment(20.0)], version="1")[0]
    desk.runtime("fraud/2").always = True
    good, bad = desk.bench.worker.predict("fraud", [payment(20.0), payment("x")])  # type: ignore[arg-type]
    assert (good["rung"], good["version"], good["routed"]) == ("older", "fraud/1", "fraud/2")
    assert good["score"] == alone["score"]
    assert bad["error"]["code"] == "bad_field"
    record = desk.bench.records()[-1]
    assert (record["version"], record["rung"], record["usage"]["answered_by"]) == ("fraud/2", "older", "fraud/1")
    assert record["error"]["code"] == "model_failed"
    desk.bench.log.close()


def test_where_the_older_version_fails_too_the_default_answers(tmp_path: Path) -> None:
    desk = Desk(tmp_path, older=["fraud/1"], default=0.3)
    for ref in desk.versions:
        desk.runtime(ref).always = True
    (reply,) = desk.bench.worker.predict("fraud", [payment(20.0)])
    assert (reply["rung"], reply["score"], reply["version"]) == ("default", 0.3, "fraud/2")
    desk.bench.log.close()


def test_a_version_that_is_left_alone_is_answered_for_without_being_asked(tmp_path: Path) -> None:
    desk = Desk(tmp_path, older=["fraud/1"])
    desk.runtime("fraud/2").always = True
    for _ in range(5):
        desk.bench.worker.predict("fraud", [payment(20.0)])
    asked = desk.runtime("fraud/2").calls
    (reply,) = desk.bench.worker.predict("fraud", [payment(20.0)])
    assert reply["rung"] == "older"
    assert desk.runtime("fraud/2").calls == asked
    assert desk.bench.records()[-1]["error"]["code"] == "version_failing"
    desk.bench.log.close()


@pytest.mark.parametrize("default", [None, 0.9])
def test_a_request_that_is_too_late_gets_the_default_or_an_error(tmp_path: Path, default: float | None) -> None:
    now = [50.0]
    bench = Bench(tmp_path, monotonic=lambda: now[0])
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}, deadline_us=10_000, default=default))
    ask = Ask("fraud", [payment(20.0)], arrived=now[0] - 1)
    bench.worker.answer([ask])
    if default is None:
        assert ask.error is not None
        assert ask.error.code == "deadline_passed"
        assert bench.records() == []
    else:
        (reply,) = outcomes(ask)
        assert isinstance(reply, dict)
        assert (reply["rung"], reply["score"], reply["features"]) == ("default", 0.9, "default")
        assert bench.records()[-1]["error"]["code"] == "deadline_passed"
    bench.log.close()
