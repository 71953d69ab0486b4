"""Rules in the body of a source: how they are written, what they become, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest

import flyball as fb
from flyball.define.rule import spelled, told
from flyball.define.spec import SourceSpec
from flyball.kernel.errors import InvalidError


class Trips(fb.Source, event_time=fb.epoch("at"), key="id"):
    id = fb.String()
    fare = fb.Decimal(2, ge=0, on_violation="warn")
    tips = fb.Decimal(2, nullable=True)
    paid = fb.Category("cash", "card")
    ended = fb.Timestamp()

    tips_at_most_fare = fb.check(tips <= fare)
    card_tips = fb.check((paid == "card") | tips.is_null() | ~(tips > 0.5 * fare), action="warn")
    in_time = fb.check(ended > fb.row_time(), action="reject_batch")
    once = fb.unique(fare, "paid")
    recent = fb.fresh("10m")
    size = fb.volume(min=1, max=10_000, action="reject_batch")


def test_rules_become_data_under_the_names_of_their_attributes() -> None:
    spec: SourceSpec = Trips._spec
    assert [rule.name for rule in spec.rules] == [
        "tips_at_most_fare", "card_tips", "in_time", "once", "recent", "size",
    ]  # fmt: skip
    check, warned, timed, once, recent, size = spec.rules
    assert check.expr == ["le", ["col", "Trips", "tips"], ["col", "Trips", "fare"]]
    assert (check.action, warned.action, timed.action) == ("reject_row", "warn", "reject_batch")
    assert timed.expr == ["gt", ["col", "Trips", "ended"], ["time"]]
    assert once.columns == ("fare", "paid")
    assert (recent.max_age, recent.action) == (600_000_000, "warn")
    assert (size.min_rows, size.max_rows) == (1, 10_000)
    assert [c.name for c in spec.columns] == ["id", "fare", "tips", "paid", "ended"]
    assert spec.column("fare").on_violation == "warn"


def test_a_rule_is_told_as_it_is_written() -> None:
    assert [told(rule) for rule in Trips._spec.rules] == [
        "tips <= fare",
        "((paid == 'card') | tips.is_null()) | ~(tips > (0.5 * fare))",
        "ended > fb.row_time()",
        "no two rows of a push are alike in fare, paid",
        "the newest event of a push is at most 10m old",
        "a push has at least 1 and at most 10,000 rows",
    ]
    expr = fb.where(Trips.paid.isin("cash"), -Trips.fare, fb.coalesce(Trips.tips, 1)).to_data()
    assert spelled(expr) == "fb.where(paid.isin('cash'), -fare, fb.coalesce(tips, 1))"


def test_a_rule_may_come_from_a_class_that_is_mixed_in() -> None:
    class Positive:
        amount = fb.Float()
        positive = fb.check(amount > 0)

    class Sales(Positive, fb.Source, event_time=fb.epoch("at"), key=fb.row_key()):
        shop = fb.String()

    (rule,) = Sales._spec.rules
    assert rule.expr == ["gt", ["col", "Sales", "amount"], ["lit", 0]]


def declared(**body: Any) -> Any:
    columns = {"id": fb.String(), "fare": fb.Float()}
    keywords = {"event_time": fb.epoch("at"), "key": body.pop("key", "id"), **body.pop("keywords", {})}
    make: Any = type(fb.Source)
    return make("Rides", (fb.Source,), columns | body, **keywords)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fb.check(True), "fb.check takes a condition"),  # type: ignore[arg-type]
        (lambda: fb.check(fb.Float() + 1), "fb.check takes a condition"),
        (lambda: fb.check(fb.Float() > 1, action="explode"), "'explode' is none of 'reject_row'"),  # type: ignore[arg-type]
        (lambda: fb.fresh("10m", action="reject_row"), "'reject_row' is none of 'reject_batch', 'warn'"),  # type: ignore[arg-type]
        (lambda: fb.fresh("0s"), "must be longer than 0"),
        (lambda: fb.unique(), "fb.unique needs the columns"),
        (lambda: fb.volume(), "is no range"),
        (lambda: fb.volume(min=5, max=4), "is no range"),
        (lambda: fb.Float(on_violation="warn"), "has nothing to warn of"),
        (lambda: fb.Category("a", on_violation="warn"), "has nothing to warn of"),
        (lambda: fb.Float(on_violation="shout"), "'shout' is none of"),  # type: ignore[arg-type]
        (lambda: declared(null=fb.check(fb.Boolean())), "the name 'null' is reserved"),
        (lambda: declared(ok=fb.check(fb.Float() > 1)), "columns of its own source only"),
        (lambda: declared(ok=fb.check(Trips.fare > 1)), "columns of its own source only"),
        (lambda: declared(ok=fb.unique("fair")), "did you mean 'fare'?"),
        (lambda: declared(ok=fb.unique(fb.Float())), "is not a column of this source"),
        (lambda: declared(key=fb.row_key(), keywords={"corrections": True}), "corrections=True needs a key"),
    ],
)
def test_a_wrong_rule_says_what_is_wrong(make: Any, says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        make()
    assert says in caught.value.message


def test_a_source_with_corrections_says_so() -> None:
    assert declared(keywords={"corrections": True})._spec.corrections
    assert not Trips._spec.corrections


def test_a_rule_without_a_name_is_not_silently_lost() -> None:
    with pytest.raises(InvalidError, match=r"fb\.check stands there without a name, and would be lost"):

        class Lost(fb.Source, event_time=fb.epoch("at"), key=fb.row_key()):
            fare = fb.Float()
            fb.check(fare > 0)

    with pytest.raises(InvalidError, match=r"fb\.volume stands there without a name"):

        class Gone(fb.Source, event_time=fb.epoch("at"), key=fb.row_key()):
            fare = fb.Float()
            fb.volume(min=1)
