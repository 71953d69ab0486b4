from typing import Any, cast

import pytest

from flyball.console.stages import Stage, contract, milliseconds, number, share, stages, warned
from flyball.console.view import Status
from tests.console.example import BUSY

NAMES = ["Ingest", "Features", "Train", "Register", "Roll out", "Serve", "Monitor", "Retrain"]


def named(status: Status) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages(status)}


def test_the_loop_has_its_eight_stages_in_order_even_where_nothing_is_known() -> None:
    assert [stage.name for stage in stages({})] == NAMES
    assert {stage.health for stage in stages({})} == {"idle"}


def test_a_busy_platform_shows_its_numbers() -> None:
    now = named(BUSY)
    assert (now["Ingest"].value, now["Ingest"].lines[:2]) == ("185 k", ("414 /s", "31 in quarantine"))
    assert now["Register"].value == "fraud/2"
    assert (now["Roll out"].value, now["Roll out"].lines[0]) == ("25 %", "step 3 of 4")
    assert now["Serve"].lines[0] == "p50 1.21 ms · p99 6.4 ms"
    assert (now["Monitor"].value, now["Monitor"].health) == ("0.871", "warn")
    assert now["Retrain"].health == "busy"


def test_a_contract_fails_is_broken_holds_or_was_not_judged() -> None:
    late = {"rule": "not_late", "ok": False, "text": "2h old"}
    fine = {"rule": "volume", "ok": True, "text": "12 rows"}
    unknown = {"rule": "volume", "ok": None, "text": "no push yet"}
    given: list[list[dict[str, Any]]] = [[late, fine], [fine, unknown], [unknown], []]
    words = [contract({"contract": rules}).word for rules in given]
    assert words == ["not_late broken", "holds", "–", "–"]
    failing = contract({"contract": [fine], "pull": {"error": "no such table"}})
    assert (failing.word, failing.tag, failing.text) == ("fails", "failed", "no such table")
    assert warned({"warnings": {"a": 2, "b": 3}}) == 5


def test_a_broken_contract_is_a_warning_of_the_ingest_stage() -> None:
    assert named(BUSY)["Ingest"].health == "warn"


def test_a_failed_run_an_aborted_rollout_and_errors_are_bad() -> None:
    status: Status = {
        "runs": [{"model": "m", "state": "failed"}],
        "rollouts": [{"service": "s", "version": 2, "state": "aborted", "reason": "errors"}],
        "services": [{"name": "s", "errors": 0.2}],
    }
    now = named(status)
    assert [now[name].health for name in ("Train", "Roll out", "Serve")] == ["bad", "bad", "bad"]


@pytest.mark.parametrize("part", [key for key in BUSY if isinstance(BUSY[key], list)])  # type: ignore[literal-required]
def test_any_part_may_be_missing_none_or_hold_empty_entries(part: str) -> None:
    replacements: tuple[object, ...] = (None, [], [{}])
    for replacement in replacements:
        status = cast(Status, {**BUSY, part: replacement})
        if part == "projects" and replacement == [{}]:
            continue
        assert [stage.name for stage in stages(status)] == NAMES
    without = cast(Status, {key: value for key, value in BUSY.items() if key != part})
    assert [stage.name for stage in stages(without)] == NAMES


def test_numbers_are_short() -> None:
    values = [0, 7, 0.25, 9_999, 12_345, 999_999, 4_560_000, 2e9, None]
    assert [number(v) for v in values] == ["0", "7", "0.25", "9999", "12.3 k", "1 M", "4.56 M", "2 G", "–"]
    assert (share(0.055), share(None), milliseconds(1_500), milliseconds(None)) == ("5.5 %", "–", "1.5 ms", "–")
