"""Degraded serving: a store that is gone, slow or stale costs labels, never replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flyball.define.spec import ViewSpec
from flyball.kernel.errors import UnavailableError
from flyball.kernel.times import MINUTE, SECOND
from flyball.serving.plan import plan_digest
from tests.serving.support import NOW, Bench, payment, plan, tree_version

VIEW = ViewSpec(name="Card", kind="window", source="Payments", entity=("card",))


class Stopwatch:
    """Monotonic seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def bench(root: Path, watch: Stopwatch | None = None, **service: Any) -> Bench:
    made = Bench(root, monotonic=watch or Stopwatch())
    made.worker.load_plan(plan({"fraud/1": tree_version(root, views=[VIEW.to_data()])}, **service))
    return made


def two_services(root: Path, watch: Stopwatch) -> Bench:
    """A worker of two services, `bulk` and `live`, each of a version of its own; reading a row may take 2.5 ms."""
    versions = {"fraud/1": tree_version(root, views=[VIEW.to_data()])}
    others = {"fraud/2": tree_version(root, seed=1, views=[VIEW.to_data()])}
    bulk, live = plan(versions, name="bulk", deadline_us=10_000), plan(others, name="live", deadline_us=10_000)
    body = {name: {**bulk[name], **live[name]} for name in ("services", "versions", "tokens")}
    made = Bench(root, monotonic=watch)
    made.worker.load_plan({"epoch": 1, "digest": plan_digest(body), **body})
    return made


def labels(made: Bench, service: str, *, rows: int = 1) -> set[str]:
    return {reply["features"] for reply in made.worker.predict(service, [payment()] * rows)}


def states(made: Bench) -> list[str]:
    return [record["feature_state"] for record in made.records()]


def test_a_store_that_fails_leaves_the_model_its_defaults_and_the_reply_says_so(tmp_path: Path) -> None:
    made = bench(tmp_path)
    made.features.broken = True
    (reply,) = made.worker.predict("fraud", [payment()])
    assert (reply["features"], reply["rung"]) == ("default", "model")
    assert states(made) == ["default"]


def test_a_slow_store_is_left_alone_and_asked_again_by_one_request(tmp_path: Path) -> None:
    watch = Stopwatch()
    made = bench(tmp_path, watch, deadline_us=1_000_000)

    def slow() -> None:
        watch.now += 0.3

    made.features.took = slow
    labels = [made.worker.predict("fraud", [payment()])[0]["features"] for _ in range(5)]
    assert labels == ["fresh", "fresh", "fresh", "default", "default"]
    assert len(made.features.batches) == 3
    assert made.worker.status()["store"] == "resting"
    watch.now += 1.1
    made.worker.predict("fraud", [payment()])  # the probe: still slow
    assert made.worker.predict("fraud", [payment()])[0]["features"] == "default"
    made.features.took = lambda: None
    watch.now += 1.1
    labels = [made.worker.predict("fraud", [payment()])[0]["features"] for _ in range(2)]
    assert labels == ["fresh", "fresh"]
    assert made.worker.status()["store"] == "asked"


def test_big_requests_may_take_long_and_switch_nobodys_features_off(tmp_path: Path) -> None:
    watch = Stopwatch()
    made = two_services(tmp_path, watch)

    def by_the_row() -> None:
        watch.now += made.features.batches[-1] * 20e-6

    made.features.took = by_the_row
    for _ in range(5):
        assert labels(made, "bulk", rows=1_000) == {"fresh"}  # 20 ms, where a read of one row may take 2.5
    assert labels(made, "live") == {"fresh"}
    assert made.worker.status()["store"] == "asked"


def test_big_requests_that_take_too_long_for_their_rows_rest_the_store_for_their_version_alone(tmp_path: Path) -> None:
    watch = Stopwatch()
    made = two_services(tmp_path, watch)

    def by_the_row() -> None:
        watch.now += made.features.batches[-1] * 1e-3

    made.features.took = by_the_row
    assert [labels(made, "bulk", rows=200) for _ in range(4)] == [{"fresh"}] * 3 + [{"default"}]
    assert labels(made, "live") == {"fresh"}
    assert made.worker.status()["store"] == "asked"
    watch.now += 1.1
    made.features.took = lambda: None
    assert [labels(made, "bulk", rows=200) for _ in range(2)] == [{"fresh"}] * 2


def test_a_version_whose_features_fail_rests_the_store_for_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Stopwatch()
    made = two_services(tmp_path, watch)
    bad, read = made.worker.state.services["bulk"].main.manifest, made.features.vectors
    tried: list[float] = []

    def vectors(manifest: Any, *rest: Any) -> Any:
        if manifest is bad and broken:
            tried.append(watch.now)
            raise RuntimeError("division by zero")
        return read(manifest, *rest)

    broken = True
    monkeypatch.setattr(made.features, "vectors", vectors)
    for _ in range(6):
        assert labels(made, "bulk") == {"default"}
        assert labels(made, "live") == {"fresh"}
    assert len(tried) == 3, "then it is left alone for a while"
    watch.now += 1.1
    assert [labels(made, "bulk") for _ in range(2)] == [{"default"}] * 2
    assert len(tried) == 4, "one request probes"
    broken = False
    watch.now += 1.1
    assert [labels(made, "bulk") for _ in range(2)] == [{"fresh"}] * 2


def test_a_store_that_fails_after_a_long_wait_is_slow_for_all(tmp_path: Path) -> None:
    watch = Stopwatch()
    made = two_services(tmp_path, watch)

    def locked() -> None:
        watch.now += 0.5
        raise RuntimeError("the database is locked")

    made.features.took = locked
    for _ in range(3):
        labels(made, "bulk")
    asked = len(made.features.batches)
    assert labels(made, "live") == {"default"}
    assert (len(made.features.batches), made.worker.status()["store"]) == (asked, "resting")


def test_state_that_is_too_far_behind_is_stale_and_says_by_how_much(tmp_path: Path) -> None:
    made = bench(tmp_path, max_staleness=MINUTE)
    made.features.complete_through = NOW - 30 * SECOND
    assert made.worker.predict("fraud", [payment()])[0]["features"] == "fresh"
    made.clock.advance_to(NOW + 40 * SECOND)
    (reply,) = made.worker.predict("fraud", [payment()])
    assert (reply["features"], reply["features_behind_us"]) == ("stale", 70 * SECOND)
    assert made.worker.predict("fraud", [payment()], at=NOW)[0]["features"] == "fresh"  # that time, it does reach
    assert states(made) == ["fresh", "stale", "fresh"]


def test_a_service_that_requires_its_views_answers_its_default(tmp_path: Path) -> None:
    made = bench(tmp_path, views="required", default=0.25)
    made.features.broken = True
    (reply,) = made.worker.predict("fraud", [payment()])
    assert (reply["rung"], reply["features"], reply["score"]) == ("default", "default", 0.25)
    (record,) = made.records()
    assert record["error"]["code"] == "features_unavailable"
    bare = bench(tmp_path / "bare", views="required")
    bare.features.broken = True
    assert bare.worker.predict("fraud", [payment()])[0]["error"]["code"] == "features_unavailable"


def test_tensors_carry_the_labels_as_parameters(tmp_path: Path) -> None:
    made = bench(tmp_path)
    made.features.broken = True
    request = {
        "inputs": [
            {"name": "amount", "datatype": "FP64", "shape": [1], "data": [10.0]},
            {"name": "channel", "datatype": "BYTES", "shape": [1], "data": ["web"]},
        ]
    }
    assert made.worker.infer("fraud", request)["parameters"] == {"features": "default", "rung": "model"}


def test_a_new_version_waits_for_its_views_and_the_old_one_goes_on(tmp_path: Path) -> None:
    made = bench(tmp_path)
    old = tree_version(tmp_path, views=[VIEW.to_data()])
    new = tree_version(tmp_path, seed=1, views=[VIEW.to_data()])
    both = {"fraud/1": old, "fraud/2": new}
    following = plan(both, weights={"fraud/1": 5_000, "fraud/2": 5_000}, epoch=2)
    made.features.missing = "Card"
    with pytest.raises(UnavailableError) as caught:
        made.worker.load_plan(following)
    assert caught.value.code == "view_not_built"
    assert {r["version"] for r in made.worker.predict("fraud", [payment()] * 20)} == {"fraud/1"}
    made.features.missing = ""
    made.worker.load_plan(following)
    assert {r["version"] for r in made.worker.predict("fraud", [payment()] * 40)} == {"fraud/1", "fraud/2"}


def test_a_plan_can_ask_for_a_new_segment_of_the_log(tmp_path: Path) -> None:
    made = bench(tmp_path)
    version = {"fraud/1": tree_version(tmp_path, views=[VIEW.to_data()])}
    made.worker.predict("fraud", [payment()])
    before = made.log.position()["segment"]
    asked = plan(version, epoch=2)
    body = {key: value for key, value in asked.items() if key not in ("epoch", "digest")} | {"segments": 1}
    made.worker.load_plan({"epoch": 3, "digest": plan_digest(body), **body})
    assert made.log.position()["segment"] > before
    assert len(made.records()) == 1
