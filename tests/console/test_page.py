import copy
import re
from typing import cast
from xml.etree import ElementTree

import pytest

from flyball.console import SECURITY_HEADERS, loop_picture, page, static
from flyball.console.page import LINE
from flyball.console.view import Status
from flyball.kernel.errors import NotFoundError
from tests.console.example import BUSY


def picture(status: Status) -> ElementTree.Element:
    found = re.search(r"<svg class=\"loop\".*?</svg>", loop_picture(status), re.S)
    assert found is not None
    return ElementTree.fromstring(found.group())


@pytest.mark.parametrize("status", [BUSY, {}], ids=["busy", "empty"])
def test_the_picture_is_well_formed_and_has_a_box_and_an_arrow_for_each_stage(status: Status) -> None:
    svg = picture(status)
    assert len(svg.findall("g")) == 8
    assert len([p for p in svg.findall("path") if p.get("class") == "arrow"]) == 8


def test_the_page_holds_the_refreshed_part_and_its_numbers() -> None:
    html = page(BUSY)
    assert loop_picture(BUSY).strip() in html
    for text in ("payments", "2026-03-14T10:30:00Z", "p99 6.4 ms", "fraud/2", "uncalibrated", "Replay clock"):
        assert text in html


def test_a_source_shows_its_contract_and_a_view_how_far_it_is_built() -> None:
    html = loop_picture(BUSY)
    for text in ("not_late broken", "the newest event is 2h old", "Views being built", "ShopPayments", "40 k", "3.6"):
        assert text in html
    assert "Views being built" not in loop_picture({"views": [{"name": "Card", "ready": True}]})


def test_skew_is_told_with_its_causes_and_its_bound() -> None:
    html = loop_picture(BUSY)
    for text in ("ttl 36", "≤ 0.0004 at 95 %", "over the limit"):
        assert text in html
    within = cast(Status, {"skew": [{"service": "s", "compared": 5, "mismatched": 0, "bound": 0.5, "limit": None}]})
    assert "over the limit" not in loop_picture(within)


def test_what_users_named_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    status = cast(
        Status,
        {
            "projects": [evil],
            "sources": [{"name": evil}],
            "services": [{"name": evil, "routes": [{"version": evil, "weight": 1.0}]}],
            "versions": [{"model": evil, "version": 1, "metrics": {evil: 0.5}, "aliases": [evil]}],
            "runs": [{"run": evil, "model": evil, "state": evil, "reason": evil}],
            "alerts": [{"kind": evil, "message": evil, "open": True}],
            "processes": [{"name": evil, "state": evil, "error": evil}],
            "rollouts": [{"service": evil, "reason": evil, "state": evil}],
            "quality": [{"service": evil, "metric": evil}],
            "drift": [{"service": evil, "feature": evil}],
        },
    )
    assert "<script>alert" not in page(status)


def test_no_asset_comes_from_another_host_and_nothing_is_inline() -> None:
    html = page(BUSY)
    assert set(re.findall(r"(?:src|href)=\"([^\"]*)\"", html)) == {
        "data:,", "/console/static/console.css", "/console/static/console.js",
    }  # fmt: skip
    assert "style=" not in html
    assert "<style" not in html
    assert "http" not in (static("console.css")[0] + static("console.js")[0]).decode()
    assert "default-src 'none'" in SECURITY_HEADERS["Content-Security-Policy"]


def test_only_the_consoles_own_files_are_served() -> None:
    assert static("console.css")[1].startswith("text/css")
    for file in ("../page.py", "page.html", ""):
        with pytest.raises(NotFoundError):
            static(file)


def test_a_long_line_stays_within_its_box_and_is_whole_in_the_title() -> None:
    status = copy.deepcopy(BUSY)
    status["retrain"] = [
        {"service": "fraud", "count": 1, "state": "not now: " + "cooling down " * 9, "trigger": "drift"}
    ]
    drawn = loop_picture(status)
    assert "…<title>not now: cooling down" in drawn
    assert all(len(line) <= LINE for line in re.findall(r'<text class="line"[^>]*>([^<]*)<', drawn))
