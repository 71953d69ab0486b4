from pathlib import Path
from typing import Any

from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import ConflictError
from flyball.kernel.files import read_document, write_document
from flyball.kernel.layout import Layout
from flyball.loop.plans import ACKNOWLEDGEMENT_FORMAT, FORMATS, PlanFiles
from flyball.platform.plans import PlanFollower


class Taker:
    def __init__(self) -> None:
        self.plans: list[dict[str, Any]] = []

    def __call__(self, plan: dict[str, Any]) -> None:
        if plan.get("bad") == "ours":
            raise ConflictError("a column changed its type", code="column_type_changed")
        if plan.get("bad"):
            raise ZeroDivisionError
        self.plans.append(plan)


def follower(folder: Path, taker: Taker) -> PlanFollower:
    return PlanFollower(
        folder / "plan.json", "flyball.p", take=taker, acknowledgement=folder / "ack.json", wall=ManualClock(7)
    )


def acknowledged(folder: Path) -> dict[str, Any]:
    return read_document(folder / "ack.json", ACKNOWLEDGEMENT_FORMAT)


def test_a_new_plan_is_taken_once_and_acknowledged(tmp_path: Path) -> None:
    taker = Taker()
    following = follower(tmp_path, taker)
    assert not following.step()
    write_document(tmp_path / "plan.json", "flyball.p", {"epoch": 1, "digest": "a"})
    assert following.step()
    assert not following.step()
    assert [plan["epoch"] for plan in taker.plans] == [1]
    assert acknowledged(tmp_path) | {"pid": 0} == {"epoch": 1, "digest": "a", "error": None, "pid": 0, "at": 7}


def test_an_acknowledgement_counts_whatever_domain_time_it_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    write_document(layout.ingest_plan, FORMATS["ingest"], {"epoch": 4, "digest": "d"})
    ack = layout.acknowledgements / "ingest.json"
    PlanFollower(layout.ingest_plan, FORMATS["ingest"], take=Taker(), acknowledgement=ack).step()
    assert [(a.process, a.epoch) for a in PlanFiles(layout).acknowledgements()] == [("ingest", 4)]


def test_a_plan_that_cannot_be_loaded_is_refused_by_name_and_the_next_good_one_taken(tmp_path: Path) -> None:
    taker = Taker()
    following = follower(tmp_path, taker)
    for number, bad in enumerate(["ours", "other"], 1):
        write_document(tmp_path / "plan.json", "flyball.p", {"epoch": number, "digest": "a", "bad": bad})
        assert following.step()
        assert acknowledged(tmp_path)["epoch"] == number
        assert acknowledged(tmp_path)["error"] == following.error != ""
    write_document(tmp_path / "plan.json", "flyball.p", {"epoch": 3, "digest": "c"})
    assert following.step()
    assert acknowledged(tmp_path)["error"] is None
    assert [plan["epoch"] for plan in taker.plans] == [3]


def test_a_broken_plan_file_is_refused_and_nothing_is_taken(tmp_path: Path) -> None:
    taker = Taker()
    following = follower(tmp_path, taker)
    (tmp_path / "plan.json").write_bytes(b"{")
    assert following.step()
    assert "not a flyball.p document" in acknowledged(tmp_path)["error"]
    assert taker.plans == []
