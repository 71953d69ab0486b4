"""An alert is an episode."""

from __future__ import annotations

from flyball.monitoring.alerts import Finding, follow
from flyball.monitoring.ports import Alert


def finding(firing: bool | None, version: str = "tip/1") -> Finding:
    return Finding(kind="drift", service="tip", version=version, firing=firing, details={"why": 1})


def test_an_alert_opens_once_and_is_silent_while_it_lasts() -> None:
    opened = follow(None, finding(True), now=5, new_id=lambda: "alert_1")
    assert opened == Alert(id="alert_1", service="tip", version="tip/1", kind="drift", opened_at=5, details={"why": 1})
    assert follow(opened, finding(True), now=6, new_id=lambda: "alert_2") is None
    assert follow(opened, finding(None), now=6, new_id=lambda: "alert_2") is None


def test_an_alert_closes_when_it_is_quiet_or_its_version_is_replaced() -> None:
    opened = follow(None, finding(True), now=5, new_id=lambda: "alert_1")
    quiet = follow(opened, finding(False), now=9, new_id=lambda: "alert_2")
    assert quiet is not None
    assert quiet.closed_at == 9
    replaced = follow(opened, finding(True, version="tip/2"), now=9, new_id=lambda: "alert_2")
    assert replaced is not None
    assert (replaced.id, replaced.closed_at) == ("alert_1", 9)


def test_nothing_happens_without_a_cause() -> None:
    assert follow(None, finding(False), now=9, new_id=lambda: "alert_2") is None
    assert follow(None, finding(None), now=9, new_id=lambda: "alert_2") is None
