"""Views: what a declaration becomes, how it is looked up, and what a wrong one says."""

from __future__ import annotations

import types
from typing import Any

import pytest

import flyball as fb
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import DAY, HOUR, MINUTE
from tests.define.payments_project import Chargebacks, Everything, LastOut, Out, Pair, Payments, Seen


def test_a_window_view_becomes_its_aggregates() -> None:
    spec = Out._spec
    assert (spec.kind, spec.source, spec.entity) == ("window", "Payments", ("payer",))
    assert spec.where == ["gt", ["col", "Payments", "amount"], ["lit", 1]]
    assert spec.description == "What an account paid."
    by_name = {a.name: a for a in spec.aggregates}
    n = by_name["n_1h"]
    assert (n.op, n.value, n.window, n.hop, n.type, n.default) == ("count", None, HOUR, MINUTE // 2, "integer", 0.0)
    assert by_name["abroad_1d"].where == ["col", "Payments", "abroad"]
    total = by_name["sum_1d"]
    assert (total.value, total.hop, total.type, total.scale) == (["col", "Payments", "amount"], HOUR, "decimal", 2)
    assert by_name["items_max_7d"].type == "integer"
    assert (by_name["spread_30d"].type, by_name["spread_30d"].hop) == ("float", DAY)
    assert Seen.last_at.type == "timestamp"


def test_an_expression_of_exact_columns_is_a_float() -> None:
    assert fb.sum(Payments.amount * 2, "1d").type == "float"
    assert fb.sum(Payments.abroad, "1d").type == "float"
    assert fb.mean(Payments.amount, "1d").type == "float"
    assert fb.first(Payments.amount, "1d").type == "decimal"
    assert fb.mean(fb.row_time().hour(), "1d").type == "float"


def test_entities_are_one_column_several_or_none() -> None:
    assert Pair._spec.entity == ("payer", "payee")
    assert Everything._spec.entity == ()
    assert Everything.n_1h.to_data() == ["view", "Everything", "n_1h", []]


def test_a_latest_view_becomes_its_columns() -> None:
    spec = LastOut._spec
    assert (spec.kind, spec.ttl) == ("latest", 90 * DAY)
    amount, method = spec.latest
    assert (amount.column, amount.type, amount.scale, amount.default) == ("amount", "decimal", 2, None)
    assert (method.type, method.categories, method.default) == ("category", ("chip", "online", "swipe"), "chip")


def test_a_feature_is_looked_up_by_the_columns_of_its_entity_or_of_its_role() -> None:
    assert Out.n_1h.to_data() == ["view", "Out", "n_1h", ["payer"]]
    role = Out.by(Payments.payee)
    assert role.n_1h.to_data() == ["view", "Out", "n_1h", ["payee"]]
    assert (Out.n_1h.full_name, role.n_1h.full_name) == ("Out.n_1h", "Out.by_payee.n_1h")
    assert (role.n_1h + 1).to_data() == ["add", ["view", "Out", "n_1h", ["payee"]], ["lit", 1]]
    assert repr(role) == "Out.by(Payments.payee)"


def test_a_view_means_the_same_under_another_name() -> None:
    class Renamed(fb.WindowView, source=Payments):
        n_1h = fb.count("1h")

    assert Renamed._spec.definition == Everything._spec.definition
    assert Renamed._spec.hash != Everything._spec.hash


def declare(kind: type, body: dict[str, Any], **keywords: Any) -> Any:
    given = {"source": Payments, "entity": Payments.payer} | keywords
    return types.new_class("Some", (kind,), given, lambda namespace: namespace.update(body))


N = {"n": fb.count("1h")}


@pytest.mark.parametrize(
    ("body", "keywords", "says"),
    [
        ({}, {}, "Some declares no features"),
        ({"by": fb.count("1h")}, {}, "the name 'by' is reserved"),
        ({"n": fb.count}, {}, "Some.n is a function, not a feature"),
        ({"n": fb.latest(Payments.amount)}, {}, "Some.n is a Latest, not a feature"),
        (N, {"source": fb.Source}, "not a class that extends fb.Source"),
        (N, {"entity": "payer"}, "write entity=Payments.column"),
        (N, {"entity": Chargebacks.payment}, "may read columns of Payments only"),
        (N, {"entity": Payments.score}, "an entity is a text, a number or a category"),
        (N, {"entity": (Payments.payer, Payments.payer)}, "stands twice in entity"),
        (N, {"where": Payments.amount}, "is not a condition"),
        ({"n": fb.sum(Payments.amount, "1d", where=Chargebacks.reason == "fraud")}, {}, "reads Chargebacks.reason"),
        ({"n": fb.mean(Out.n_1h, "1d")}, {}, "Some.n reads Out.n_1h"),
    ],
)
def test_a_wrong_window_view_says_what_is_wrong(body: dict[str, Any], keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidError) as error:
        declare(fb.WindowView, body, **keywords)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fb.count("0s"), "must be longer than 0"),
        (lambda: fb.count("7 days"), "is not a duration"),
        (lambda: fb.sum(3, "1d"), "aggregates a column or an expression"),  # type: ignore[arg-type]
        (lambda: fb.mean(Payments.payee, "1d"), "takes numbers, and Payments.payee is a string"),
        (lambda: fb.last(Payments.method, "1d"), "use fb.LatestView"),
        (lambda: fb.latest(Payments.amount + 1), "takes a column"),  # type: ignore[arg-type]
        (lambda: fb.latest(Payments.payee), "declare it with fb.Category"),
        (lambda: fb.latest(Payments.method, default="chop"), "did you mean 'chip'?"),
        (lambda: fb.latest(Payments.amount, default="x"), "does not fit"),
        (lambda: Out.by(Payments.payee, Payments.id), "takes 1 columns (for payer), not 2"),
        (lambda: Out.by(Payments.items), "is a integer and Payments.payer a string"),
        (lambda: Pair.by(Payments.payee, Chargebacks.payment), "columns of one source"),
        (lambda: Out.n_2h, "did you mean 'n_1h'?"),  # type: ignore[attr-defined]
        (lambda: Out.by(Payments.payee).n_2h, "did you mean 'n_1h'?"),  # type: ignore[attr-defined]
    ],
)
def test_a_wrong_feature_says_what_is_wrong(make: Any, says: str) -> None:
    with pytest.raises(InvalidError) as error:
        make()
    assert says in str(error.value)


def test_the_last_k_values_are_features_of_their_own() -> None:
    class Card(fb.WindowView, source=Payments, entity=Payments.payer):
        recent = fb.last_k(Payments.amount, 2, "7d")
        payees = fb.distinct(Payments.payee, "1d", cap=50)

    assert Card._spec.features == ("recent_1", "recent_2", "payees")
    assert [(a.op, a.nth, a.cap) for a in Card._spec.aggregates] == [
        ("nth_last", 1, 1000),
        ("nth_last", 2, 1000),
        ("distinct", 1, 50),
    ]
    assert Card.recent[2].to_data() == Card.recent.nth(2).to_data() == ["view", "Card", "recent_2", ["payer"]]
    assert (Card.recent[1].type, Card.payees.type) == ("decimal", "integer")
    assert Card.by(Payments.payee).recent[1].to_data() == ["view", "Card", "recent_1", ["payee"]]
    assert [f.full_name for f in Card.recent] == ["Card.recent_1", "Card.recent_2"]
    with pytest.raises(InvalidError, match=r"has the values 1 \(the newest\) to 2, not 3"):
        Card.recent[3]


def test_a_feature_of_last_k_cannot_be_declared_twice() -> None:
    with pytest.raises(InvalidError, match="stands for recent_1"):

        class Card(fb.WindowView, source=Payments, entity=Payments.payer):
            recent_1 = fb.count("7d")
            recent = fb.last_k(Payments.amount, 2, "7d")


@pytest.mark.parametrize("k", [0, 101, True, "3"])
def test_last_k_keeps_a_few_values(k: Any) -> None:
    with pytest.raises(InvalidError, match="1 to 100"):
        fb.last_k(Payments.amount, k, "7d")
