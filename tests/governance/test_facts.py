"""Facts carry who, when (on both clocks), what, and from what to what."""

from __future__ import annotations

from flyball.governance.facts import Recorder, fact_data
from flyball.kernel.clock import ManualClock
from flyball.kernel.facts import Actor, Fact


class Memory:
    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def add(self, fact: Fact) -> None:
        self.facts.append(fact)

    def list(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[Fact]:
        return self.facts[::-1][:limit]


def test_a_fact_is_stamped_with_both_clocks_and_the_request() -> None:
    store = Memory()
    recorder = Recorder(ManualClock(42), wall=lambda: 99, ids=lambda prefix: f"{prefix}_1")
    actor = Actor(name="ann", request_id="req_9")
    fact = recorder.record(store, actor, "service.release", "service:tip", before={"version": "tip/1"}, note="go")
    assert store.list() == [fact]
    assert fact_data(fact) == {
        "id": "fact_1",
        "at": 42,
        "wall": 99,
        "actor": "ann",
        "request_id": "req_9",
        "kind": "service.release",
        "subject": "service:tip",
        "before": {"version": "tip/1"},
        "after": None,
        "note": "go",
        "details": {},
    }
