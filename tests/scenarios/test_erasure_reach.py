"""An erasure reaches what was made of a value: sources derived from its source, by which names they are now or were."""

from __future__ import annotations

import logging
import types
from typing import Any

import polars as pl
import pytest

import flyball as fb
from flyball.kernel.times import HOUR, MINUTE, show_time
from flyball.testing import TestPlatform, platform
from tests.scenarios.test_erasure import MARKER, NOW, holds, in_log

IBAN = 4111222233334444


class Accounts(fb.Source, event_time="time", key="id"):
    id = fb.String()
    account = fb.String()
    iban = fb.Integer(pii=True)
    time = fb.Timestamp()


class Account(fb.LatestView, source=Accounts, entity=Accounts.account):
    iban = fb.latest(Accounts.iban)


class Orders(fb.Source, event_time="time", key="id"):
    id = fb.String()
    account = fb.String()
    amount = fb.Integer()
    time = fb.Timestamp()


class Joined(fb.Derived, source=Orders):
    paid_from = fb.derive(Account.iban)


class Large(fb.Derived, source=Joined, where=Joined.amount > 1):
    pass


class Spent(fb.WindowView, source=Large, entity=Large.account):
    orders = fb.count("7d")


SHOP = fb.Project("shop", services=[fb.Service("shop", rows=Orders, features=[Spent])])


def open_account(p: TestPlatform) -> None:
    time = show_time(NOW - HOUR)
    p.push(
        "Accounts", [{"id": f"e{a}", "account": a, "iban": iban, "time": time} for a, iban in (("A", IBAN), ("B", 7))]
    )
    p.advance(MINUTE)
    order(p, "A", "B")


def order(p: TestPlatform, *accounts: str) -> None:
    now = p.clock.now()
    p.push("Orders", [{"id": f"{a}{now}", "account": a, "amount": 5, "time": show_time(now)} for a in accounts])
    p.tick()
    p._ingest.flush()


def looked_up(p: TestPlatform) -> dict[str, list[tuple[Any, ...]]]:
    names = {name.partition("@")[0]: name for name in p._ingest._derivations.names}
    return {s: p._ingest.events(names[s])["account", "paid_from"].rows() for s in ("Joined", "Large")}


def test_what_was_looked_up_goes_under_its_other_name_and_a_later_event_does_not_bring_it_back() -> None:
    with platform(SHOP, at=NOW) as p:
        open_account(p)
        assert looked_up(p)["Large"] == [("A", IBAN), ("B", 7)]
        done = p.erase("Accounts", iban=IBAN)
        assert done["step"] == "done"
        columns = [(t["source"].partition("@")[0], t["column"]) for t in done["targets"]]
        assert columns == [("Accounts", "iban"), ("Joined", "paid_from"), ("Large", "paid_from")]
        p.advance(MINUTE)
        order(p, "A", "B")
        assert looked_up(p) == {name: [("B", 7), ("A", None), ("B", 7)] for name in ("Joined", "Large")}
        assert holds(p._folder, str(IBAN)) == []
        assert not in_log(p, str(IBAN))


def test_a_derivation_that_fails_keeps_no_erasure_waiting(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "flyball.ingest.derive")
    with platform(SHOP, at=NOW) as p:
        open_account(p)
        p.advance(MINUTE)
        running = p._ingest._derivations._running
        name = next(name for name in running if name.startswith("Joined"))
        working = running[name].derivation

        class Failing:
            inputs = working.inputs

            def feed(self, source: str, frame: pl.DataFrame) -> None: ...

            def derive(self, frame: pl.DataFrame) -> pl.DataFrame:
                raise RuntimeError("no")

        running[name].derivation = Failing()
        time = show_time(p.clock.now())
        p.push("Orders", [{"id": f"o{n}", "account": n, "amount": 5, "time": time} for n in ("gone", "stays")])
        p.tick()
        assert running[name].code == "internal"
        assert p.erase("Orders", account="gone")["step"] == "done"
        running[name].derivation = working
        p.tick()
        assert [account for account, _ in looked_up(p)["Large"]] == ["A", "B", "stays"]


def market(*, least: int = 1, card: bool = True, pay: bool = True) -> fb.Project:
    """A project whose derived source has a definition for each `least`; without the source's column, or the source."""
    columns = {"__module__": __name__, "id": fb.String(), "shop": fb.String(), "amount": fb.Integer()}
    columns |= {"card": fb.String(pii=True, nullable=True)} if card else {}
    columns |= {"time": fb.Timestamp()}
    options = {"event_time": "time", "key": "id"}
    Payments: Any = types.new_class("Payments", (fb.Source,), options, lambda body: body.update(columns))

    class Big(fb.Derived, source=Payments, where=Payments.amount > least):
        pass

    class Sold(fb.WindowView, source=Big, entity=Big.shop):
        count = fb.count("7d")

    other = fb.Service("other", rows=Orders, features=[Orders.amount])
    services = [fb.Service("sold", rows=Payments, features=[Sold])] if pay else []
    return fb.Project("market", services=[*services, other])


def pay(p: TestPlatform) -> None:
    time = show_time(p.clock.now() - MINUTE)
    rows = [{"id": f"p{n}", "shop": "s", "card": c, "amount": 5, "time": time} for n, c in enumerate((MARKER, "other"))]
    p.push("Payments", [*rows, {**rows[0], "id": "refused", "amount": "much"}])
    p.tick()
    p._ingest.flush()


@pytest.mark.parametrize("now", [{"least": 2}, {"least": 2, "card": False}, {"card": False}, {"pay": False}], ids=str)
def test_what_a_source_took_under_an_earlier_declaration_is_erased(now: dict[str, Any]) -> None:
    with platform(market(), at=NOW) as p:
        pay(p)
        p.apply(market(**now))
        p.advance(HOUR)
        assert [path for path in holds(p._folder, MARKER) if path.startswith("lake/Big@")]
        done = p.erase("Payments", card=MARKER)
        assert done["step"] == "done"
        assert (done["targets"][0]["rows"], done["targets"][0]["quarantined"]) == (1, 1)
        assert holds(p._folder, MARKER) == []
        assert not in_log(p, MARKER)
        lake: Any = p._ingest._lake
        assert [lake.count(t) for t in lake.tables() if t.startswith(("Pay", "Big")) and "__" not in t] in (
            [1, 1],
            [1, 1, 1],
        )
        p.apply(market())
        p.push("Payments", [{"id": "n", "shop": "s", "card": "n", "amount": 5, "time": show_time(p.clock.now())}])
        p.advance(MINUTE)
        assert p.predict("sold", id="r", shop="s", card="x", amount=1)["values"]["Sold.count"] == 2.0


class Ask(fb.Source, event_time="time", key="id"):
    id = fb.String()
    account = fb.String()
    time = fb.Timestamp()


class Calls(fb.Source, event_time="time", key="id"):
    id = fb.String()
    account = fb.String()
    phone = fb.Integer()
    plan = fb.Category("small", "large")
    time = fb.Timestamp()


class Caller(fb.LatestView, source=Calls, entity=Calls.account):
    phone = fb.latest(Calls.phone)
    plan = fb.latest(Calls.plan)


class Longest(fb.WindowView, source=Calls, entity=Calls.account):
    largest = fb.max(Calls.phone, "1d")


class Owner(fb.LatestView, source=Accounts, entity=Accounts.account):
    iban = fb.latest(Accounts.iban)


@pytest.mark.parametrize(
    ("source", "value"),
    [("Calls", {"phone": 4711}), ("Calls", {"plan": "large"}), ("Accounts", {"iban": IBAN})],
    ids=str,
)
def test_a_prediction_that_showed_the_value_goes_though_its_request_named_another(
    source: str, value: dict[str, Any]
) -> None:
    project = fb.Project("calls", services=[fb.Service("ask", rows=Ask, features=[Caller, Longest, Owner])])
    with platform(project, at=NOW) as p:
        time = show_time(NOW - HOUR)
        for name, phone, plan, iban in (("A", 4711, "large", IBAN), ("B", 4712, "small", 7)):
            p.push("Calls", [{"id": name, "account": name, "phone": phone, "plan": plan, "time": time}])
            p.push("Accounts", [{"id": name, "account": name, "iban": iban, "time": time}])
        p.advance(MINUTE)
        first, second = (p.predict("ask", id="r", account=name)["prediction_id"] for name in "AB")
        assert p.prediction(first)["prediction"]["features"]["Caller.phone"] == 4711.0
        assert p.erase(source, **value)["predictions"] == 1
        assert p.prediction(first)["prediction"]["features"] == {}
        assert p.prediction(second)["prediction"]["features"]["Caller.phone"] == 4712.0
