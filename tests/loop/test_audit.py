from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyball.kernel.errors import ConflictError
from flyball.kernel.times import DAY, MINUTE, SECOND
from flyball.loop.audit import AuditRule
from flyball.storage.metadata.unit import SqlMetadata
from tests.loop.platform import ANN, Platform, project

LIMIT = 0.05


@pytest.fixture
def platform(metadata: SqlMetadata, tmp_path: Path) -> Platform:
    made = Platform(metadata, tmp_path)
    audit_everything(made)
    made.apply(project(max_skew=LIMIT, retrain=None))
    made.train(auc=0.9)
    made.settle()
    return made


def audit_everything(platform: Platform) -> None:
    rule = AuditRule(share=1.0, rows=1_000)
    platform.control._audits = replace(platform.control._audits, rule=rule)
    platform.control._audit._rule = rule


def traffic(platform: Platform, count: int, *, wrong: str = "", by: float = 1.0) -> None:
    """Predictions whose fare is the one that was sent; those of the version `wrong` were computed from another."""
    platform.traffic(count)
    for segments in platform.log.data.values():
        for records in segments.values():
            for record in records[-count:]:
                record["inputs"] = dict(record["features"])
                record["lsn"] = record["known_through"] = {}
                record["key"] = None
                if record["version"] == wrong:
                    record["features"] = {"fare": record["features"]["fare"] + by}
    platform.control.tick()
    platform.advance(2 * MINUTE)


def canary(platform: Platform) -> dict[str, Any]:
    found: dict[str, Any] = platform.control.service("tip")["rollout"] or {}
    return found


def second_version(platform: Platform) -> None:
    platform.control.train("tip", actor=ANN)
    platform.train(auc=0.91)
    platform.control.release("tip", version=2, actor=ANN)
    platform.settle()


def test_a_canary_is_promoted_when_its_own_values_were_audited_and_agree(platform: Platform) -> None:
    traffic(platform, 100)
    assert platform.control.skew("tip")["bound"] < LIMIT
    second_version(platform)
    for _ in range(5):
        traffic(platform, 400)
        platform.advance(6 * MINUTE)
    platform.settle()
    found = platform.control.skew("tip")
    assert found["version"] == "tip/2"
    assert [v["version"] for v in found["versions"]] == ["tip/1", "tip/2"]
    assert found["mismatched"] == 0


def test_a_canary_whose_values_differ_is_not_promoted(platform: Platform) -> None:
    traffic(platform, 100)
    second_version(platform)
    for _ in range(5):
        traffic(platform, 400, wrong="tip/2")
        platform.advance(6 * MINUTE)
    done = platform.control.tick()
    assert "max_skew is 0.05: flyball skew tip" in done["rollout"]["tip"]
    assert canary(platform)["version"] == "tip/2"
    assert platform.control.service("tip")["version"] == "tip/1"
    assert platform.control.rollback("tip", actor=ANN)["phase"] == "aborting"


def test_a_release_is_refused_and_an_alert_opened_while_what_is_served_differs(platform: Platform) -> None:
    traffic(platform, 100, wrong="tip/1")
    found = platform.control.skew("tip")
    assert (found["compared"], found["mismatched"], found["causes"]) == (100, 100, {"unknown": 100})
    assert found["examples"][0]["served"] == found["examples"][0]["recomputed"] + 1.0
    assert "alert.open" in platform.kinds()
    platform.control.train("tip", actor=ANN)
    platform.train(auc=0.95)
    with pytest.raises(ConflictError) as caught:
        platform.control.release("tip", version=2, actor=ANN)
    assert caught.value.code == "skew_too_high"
    platform.advance(8 * DAY)
    for _ in range(3):
        traffic(platform, 100)
    assert platform.control.skew("tip")["mismatched"] == 0, "what is older than the window does not count"
    platform.advance(20 * SECOND)
    assert "alert.close" in platform.kinds()
    platform.control.release("tip", version=2, actor=ANN)


def test_a_difference_of_rounding_is_numeric(platform: Platform) -> None:
    traffic(platform, 50, wrong="tip/1", by=1e-6)
    assert platform.control.skew("tip")["causes"]["numeric"] > 40


def test_predictions_wait_for_the_lake_and_are_let_go_after_a_day(platform: Platform) -> None:
    platform.traffic(20)
    for records in (r for segments in platform.log.data.values() for r in segments.values()):
        for record in records:
            record["lsn"] = {"Trips": 10**9}
    platform.control.tick()
    assert "not yet" in platform.advance(2 * MINUTE)["audit"]["tip"]
    assert platform.control.skew("tip")["sampling"]["waiting"] == 20
    platform.advance(2 * DAY)
    sampling = platform.control.skew("tip")["sampling"]
    assert (sampling["waiting"], sampling["dropped"], sampling["predictions"]) == (0, 20, 0)


def test_a_service_that_cannot_be_audited_is_told_and_its_queue_ends(platform: Platform) -> None:
    def broken(*args: Any, **more: Any) -> None:
        raise ZeroDivisionError

    platform.control._audit._audit = broken  # type: ignore[method-assign,assignment]
    traffic(platform, 20)
    assert not platform.control.health["audit"]["ok"]
    platform.advance(2 * DAY)
    assert platform.control.skew("tip")["sampling"]["waiting"] == 0


def test_values_are_counted_on_the_day_on_which_they_were_served_also_where_days_are_audited_at_once(
    platform: Platform,
) -> None:
    rule = AuditRule(share=1.0, rows=1_000, settle=8 * DAY)
    platform.control._audits = replace(platform.control._audits, rule=rule)
    platform.control._audit._rule = rule
    traffic(platform, 10)
    platform.advance(5 * DAY)
    traffic(platform, 20)
    assert platform.control.skew("tip")["sampling"]["predictions"] == 0
    platform.advance(8 * DAY)
    platform.settle()
    with platform.control._metadata.read() as unit:
        periods = unit.audit.periods("tip")
    assert sum(period.compared for period in periods) == 30
    assert len({period.start for period in periods}) >= 2
    assert platform.control.skew("tip")["compared"] == 0  # of the last seven days
