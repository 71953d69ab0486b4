"""A view in use does not change under a version: old and new live side by side while any served version needs them."""

from __future__ import annotations

import re
from typing import Any

import flyball as fb
from flyball.kernel.times import HOUR, MINUTE, parse_time, show_time
from flyball.testing import TestPlatform, platform

NOW = parse_time("2026-03-01T12:00:00Z")
KINDS = ("chip", "online")


def shop(
    window: str = "1h", *, kinds: tuple[str, ...] = KINDS, rollout: Any = None, view: bool = True, **service: Any
) -> fb.Project:
    """One service that answers the features of a card; every change of a view makes a version of it."""

    class Payments(fb.Source, event_time="time", key="id", known=fb.delay("0s")):
        id = fb.String()
        card = fb.String()
        kind = fb.Category(*kinds)
        amount = fb.Decimal(2)
        time = fb.Timestamp()

    class Card(fb.WindowView, source=Payments, entity=Payments.card):
        seen = fb.count(window)

    class Newest(fb.LatestView, source=Payments, entity=Payments.card):
        newest = fb.latest(Payments.kind)

    class Other(fb.WindowView, source=Payments, entity=Payments.card):
        seen = fb.count(window)
        total = fb.sum(Payments.amount, "1d")

    return fb.Project(
        "shop",
        services=[
            fb.Service(
                "look",
                rows=Payments,
                features=[Card if view else Other, Newest],
                rollout=rollout or fb.Full(),
                **service,
            )
        ],
    )


def pay(p: TestPlatform, number: int, *, ago: int, kind: str = "chip", card: str = "x") -> None:
    at = show_time(p.clock.now() - ago)
    p.load("Payments", [{"id": f"p{number}", "card": card, "kind": kind, "amount": "2.50", "time": at}])


def ask(p: TestPlatform, number: int = 0, card: str = "x") -> dict[str, Any]:
    """A reply, its values by the features' own names."""
    reply = dict(p.predict("look", id=f"r{number}", card=card, kind="chip", amount="1.00"))
    return reply | {"values": {re.split(r"[._]", name)[-1]: value for name, value in reply["values"].items()}}


def definitions(p: TestPlatform) -> int:
    """How many window views have online state; the latest view is always there."""
    with p._worker._reader._opened().read() as look:  # type: ignore[attr-defined]
        return len([key for key, _ in look.items("meta") if key.startswith(b"view/")]) - 1


def test_old_and_new_definitions_answer_side_by_side_and_a_rollback_finds_its_state() -> None:
    canary = fb.Canary(steps=(50, 100), hold="1m", min_requests=5)
    with platform(shop(rollout=canary), at=NOW) as p:
        for number, ago in enumerate((MINUTE, 30 * MINUTE, 90 * MINUTE, 3 * HOUR)):
            pay(p, number, ago=ago)
        before = ask(p)
        assert (before["version"], before["values"]["seen"]) == ("look/1", 2.0)
        p.apply(shop("2h", rollout=canary))
        p.advance("1s")
        replies = [ask(p, number) for number in range(60)]
        by_version = {reply["version"]: reply["values"]["seen"] for reply in replies}
        assert by_version == {"look/1": 2.0, "look/2": 3.0}
        assert {reply["features"] for reply in replies} == {"fresh"}
        assert definitions(p) == 2
        pay(p, 9, ago=1)
        assert {r["version"]: r["values"]["seen"] for r in (ask(p, n) for n in range(60))} == {
            "look/1": 3.0,
            "look/2": 4.0,
        }
        p.rollback("look")
        assert (ask(p)["version"], ask(p)["values"]["seen"]) == ("look/1", 3.0)


def test_state_goes_when_no_version_needs_it() -> None:
    with platform(shop(), at=NOW) as p:
        pay(p, 1, ago=MINUTE)
        p.apply(shop("2h"))
        p.advance("1s")
        assert (ask(p)["version"], definitions(p)) == ("look/2", 2)  # the first is what a rollback would serve
        p.rollback("look")
        assert ask(p)["values"]["seen"] == 1.0
        p.release("look", 2)
        p.apply(shop("3h"))
        p.advance("1s")
        assert (ask(p)["version"], definitions(p)) == ("look/3", 2)
        p.apply(shop("4h"))
        p.advance("1s")
        assert definitions(p) == 2


def test_a_view_that_left_its_project_is_kept_up_for_the_version_that_reads_it() -> None:
    with platform(shop(), at=NOW) as p:
        pay(p, 1, ago=MINUTE)
        p.apply(shop("2h", view=False))
        p.advance("1s")
        pay(p, 2, ago=MINUTE)
        p.rollback("look")
        reply = ask(p)
        assert (reply["version"], reply["features"], reply["values"]["seen"]) == ("look/1", "fresh", 2.0)


def test_categories_that_are_declared_anew_do_not_change_what_a_version_reads() -> None:
    with platform(shop(), at=NOW) as p:
        pay(p, 1, ago=MINUTE, kind="online")
        assert ask(p)["values"]["newest"] == 1.0
        p.apply(shop(kinds=("swipe", *KINDS)))
        p.advance("1s")
        reply = ask(p)
        assert (reply["version"], reply["features"], reply["values"]["newest"]) == ("look/2", "fresh", 2.0)
        p.rollback("look")
        reply = ask(p)
        assert (reply["version"], reply["features"], reply["values"]["newest"]) == ("look/1", "fresh", 1.0)
        pay(p, 2, ago=1, kind="chip")
        assert ask(p)["values"]["newest"] == 0.0


def test_a_plan_tells_what_its_backfill_takes() -> None:
    with platform(shop(), at=NOW) as p:
        for number in range(3):
            pay(p, number, ago=MINUTE)
        plan = p.apply(shop("2h"))
        causes = next(c["causes"] for c in plan["changes"] if c["kind"] == "view")
        assert causes[1].startswith("reads 3 rows, about less than a second and 150 bytes of online state (assumed")


def test_state_that_stood_still_is_stale_by_what_the_service_declares() -> None:
    with platform(shop(max_staleness="1m"), at=NOW) as p:
        pay(p, 1, ago=MINUTE)
        assert ask(p)["features"] == "fresh"
        p.clock.advance_to(p.clock.now() + 2 * MINUTE)  # and ingest does not turn
        reply = ask(p)
        assert (reply["features"], reply["features_behind_us"]) == ("stale", 2 * MINUTE)
        record = p.prediction(reply["prediction_id"])["prediction"]
        assert record["feature_state"] == "stale"
        assert ask(p)["features"] == "fresh"  # looking it up let ingest turn
