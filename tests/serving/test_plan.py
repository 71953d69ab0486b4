"""The serving plan as a file, and what workers say about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyball.kernel.errors import InvalidError, NotFoundError
from flyball.kernel.files import read_document
from flyball.kernel.layout import Layout
from flyball.serving.plan import PlanFile, acknowledge, decode, publish
from tests.serving.support import plan


def test_a_plan_is_read_when_it_changes(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    file = PlanFile(layout)
    assert file.poll() is None
    first = publish(layout, plan({"m/1": ("d", tmp_path)}))
    assert file.poll() == first
    assert file.poll() is None
    second = publish(layout, plan({"m/1": ("d", tmp_path)}, epoch=2))
    assert file.poll() == second
    assert decode(second).epoch == 2
    layout.serving_plan.write_text("{")
    with pytest.raises(InvalidError, match=r"serving\.json"):
        file.poll()
    assert file.poll() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"services": 3}, "not one"),
        ({"versions": {}}, "does not hold"),
    ],
)
def test_a_plan_that_is_none_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    from flyball.serving.plan import plan_digest

    whole = {**plan({"m/1": ("d", tmp_path)}), **change}
    whole["digest"] = plan_digest(whole)
    with pytest.raises(InvalidError, match=words) as caught:
        decode(whole)
    assert caught.value.code == "bad_plan"


def test_an_unknown_service_is_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'fraud'"):
        decode(plan({"m/1": ("d", tmp_path)})).service("frad")


def test_an_acknowledgement_says_what_is_served_or_why_not(tmp_path: Path) -> None:
    acknowledge(tmp_path, "worker-0", epoch=3, digest="d", error=None)
    assert read_document(tmp_path / "worker-0.json", "flyball.ack")["error"] is None
    acknowledge(tmp_path, "worker-0", epoch=4, digest="e", error=InvalidError("no"))
    body = read_document(tmp_path / "worker-0.json", "flyball.ack")
    assert (body["epoch"], body["digest"], body["error"]) == (4, "e", "no")
