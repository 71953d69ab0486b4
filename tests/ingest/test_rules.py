"""Rules beyond columns: what they say of a row, and of a push whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from flyball.define.rule import BUILT_IN
from flyball.define.spec import RuleSpec, SourceSpec
from flyball.ingest.receipts import Push, Receipt
from flyball.ingest.rejection import Rule
from flyball.ingest.service import Ingest
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import FlyballError, InternalError, InvalidError
from flyball.kernel.times import MINUTE
from tests.ingest.sources import LIVE_ONLY, NOW, PAYMENTS, SECOND, make_ingest, payment

AT = NOW // SECOND
DEAR = ["ge", ["col", "Payments", "amount"], ["mul", ["lit", 10], ["col", "Payments", "items"]]]


def with_rules(*rules: RuleSpec, **columns: dict[str, Any]) -> SourceSpec:
    found = tuple(msgspec.structs.replace(c, **columns[c.name]) if c.name in columns else c for c in PAYMENTS.columns)
    return msgspec.structs.replace(PAYMENTS, rules=rules, columns=found)


def rule(kind: str, **values: Any) -> RuleSpec:
    return msgspec.convert({"name": f"the_{kind}", "kind": kind, **values}, RuleSpec)


def core(folder: Path, *rules: RuleSpec, **more: Any) -> Ingest:
    return make_ingest(folder, sources=[with_rules(*rules)], **more)


def source(ingest: Ingest) -> dict[str, Any]:
    return next(s for s in ingest.status()["sources"] if s["name"] == "Payments")


def refusal(ingest: Ingest, rows: Any, **more: Any) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        ingest.append("Payments", rows, **more)
    assert caught.value.code == "batch_refused"
    return caught.value


def test_a_check_quarantines_the_row_whose_columns_do_not_fit_and_null_passes(tmp_path: Path) -> None:
    ingest = core(tmp_path, rule("check", expr=DEAR))
    rows = [payment(1, amount=30, items=3), payment(2, amount=29.99, items=3), payment(3, amount=1, items=None)]
    receipt = ingest.append("Payments", rows)
    assert (receipt.accepted, receipt.quarantined, receipt.reasons) == (2, 1, {"the_check": 1})
    (example,) = receipt.examples
    assert (example["rule"], example["value"]) == ("the_check", "amount = '29.99', items = '3'")
    assert "amount >= (10 * items)" in example["message"]


def test_a_check_never_shows_a_pii_value(tmp_path: Path) -> None:
    expr = ["ne", ["col", "Payments", "card"], ["lit", "4711"]]
    receipt = core(tmp_path, rule("check", expr=expr)).append("Payments", [payment(1, card="4711")])
    assert receipt.examples[0]["value"] == "card = [pii]"


def test_a_value_that_could_not_be_read_breaks_its_own_rule_and_no_check(tmp_path: Path) -> None:
    receipt = core(tmp_path, rule("check", expr=DEAR)).append("Payments", [payment(1, amount="x", items=3)])
    assert receipt.reasons == {"wrong_type": 1}


def test_a_rule_that_warns_accepts_and_counts(tmp_path: Path) -> None:
    ingest = core(tmp_path, rule("check", expr=DEAR, action="warn"))
    receipt = ingest.append("Payments", [payment(1, items=9), payment(2), payment(3, items=9, amount="x")])
    assert (receipt.accepted, receipt.quarantined, receipt.warnings) == (2, 1, {"the_check": 1})
    ingest.append("Payments", [payment(4, items=9)])
    assert source(make_ingest(tmp_path))["warnings"] == {"the_check": 2}, "after a restart too"


def test_a_column_that_warns_accepts_values_out_of_bounds_and_none_that_cannot_be_read(tmp_path: Path) -> None:
    spec = with_rules(amount={"on_violation": "warn"})
    ingest = make_ingest(tmp_path, sources=[spec])
    receipt = ingest.append("Payments", [payment(1, amount=-1), payment(2, amount="x"), payment(3, amount=None)])
    assert receipt.accepted == 1
    assert receipt.reasons == {"wrong_type": 1, "null": 1}
    assert receipt.warnings == {"amount.ge": 1}
    ingest.apply()
    assert ingest.events("Payments")["amount"].to_list() == [-100]


def test_of_rows_alike_in_a_push_the_first_is_good_and_another_push_is_another_matter(tmp_path: Path) -> None:
    ingest = core(tmp_path, rule("unique", columns=["card", "kind"]))
    rows = [payment(1, kind="chip"), payment(2, kind="chip"), payment(3, kind=None), payment(4, kind=None)]
    receipt = ingest.append("Payments", rows)
    assert (receipt.accepted, receipt.reasons) == (3, {"the_unique": 1}), "null is like nothing"
    answers = ingest.append_many([Push(source="Payments", rows=[payment(n, kind="chip")]) for n in (5, 6)])
    assert [a.accepted for a in answers if isinstance(a, Receipt)] == [1, 1]


def test_a_refused_push_is_not_stored_and_leaves_the_others_of_its_group_alone(tmp_path: Path) -> None:
    ingest = core(tmp_path, rule("check", expr=DEAR, action="reject_batch"))
    pushes = [
        Push(source="Payments", rows=[payment(1)], idempotency_key="a"),
        Push(source="Payments", rows=[payment(2), payment(3, items=9), payment(4, items=8)], idempotency_key="b"),
        Push(source="Payments", rows=[payment(2, amount=5)], idempotency_key="c"),
        Push(source="Payments", rows=[payment(7, items=9)]),
    ]
    one, two, three, four = ingest.append_many(pushes)
    assert isinstance(one, Receipt)
    assert isinstance(three, Receipt)
    assert (one.first_lsn, three.first_lsn, three.accepted) == (1, 2, 1), "what was refused shadows no key"
    assert isinstance(two, FlyballError)
    assert isinstance(four, FlyballError)
    assert two.code == "batch_refused"
    assert two.message.startswith("2 of 3 rows (row 2, 3) break a rule that refuses the whole batch: the_check: ")
    assert "items = '9'" in two.message
    assert two.details["examples"][0]["position"] == 2
    kept = ingest.quarantine("Payments")
    assert [(r["rule"], r["received"], r["broken"]) for r in kept["refused"]] == [
        ("the_check", 1, 1),
        ("the_check", 3, 2),
    ]
    assert kept["total"] == 0
    assert source(ingest)["refused"] == {"the_check": 2}
    again = ingest.append("Payments", [payment(2), payment(3), payment(4)], idempotency_key="b")
    assert (again.accepted, again.replayed) == (3, False), "its key was not used up"


def test_a_column_may_refuse_the_batch(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path, sources=[with_rules(card={"on_violation": "reject_batch"})])
    error = refusal(ingest, [payment(1), payment(2, card=None)])
    assert error.details["rule"] == "null"
    assert error.details["column"] == "card"
    frame = pl.DataFrame([payment(1, card=None, kind="", score=0.0, items=0, gift=True, due=None)])
    refusal(ingest, frame)


def test_a_stale_push_is_warned_of_or_refused_and_history_is_not(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = core(tmp_path, rule("fresh", max_age=10 * MINUTE, action="warn"), clock=clock)
    assert ingest.append("Payments", [payment(1)]).warnings == {}
    assert ingest.append("Payments", [payment(2, at=AT - 700), payment(3, at=AT - 601)]).warnings == {"the_fresh": 1}
    assert ingest.append("Payments", [payment(4, at=AT - 9_000)], live=False).warnings == {}
    assert source(ingest)["contract"][0]["ok"] is True
    clock.advance_to(clock.now() + 11 * MINUTE)
    state = source(ingest)["contract"][0]
    assert (state["ok"], state["text"]) == (False, "the newest event is 12m old, and may be 10m")
    strict = core(tmp_path / "b", rule("fresh", max_age=10 * MINUTE, action="reject_batch"))
    error = refusal(strict, [payment(3, at=AT - 601)])
    assert "10m1s before now" in error.message
    assert strict.append("Payments", []).received == 0, "nothing is not stale"


def test_the_volume_of_a_push_is_what_came(tmp_path: Path) -> None:
    ingest = core(tmp_path, rule("volume", min_rows=2, max_rows=3, action="reject_batch"))
    assert "1 came" in refusal(ingest, [payment(1)]).message
    assert ingest.append("Payments", [payment(1), payment(2, amount="x")]).accepted == 1
    refusal(ingest, [payment(n) for n in range(4)])
    assert source(ingest)["contract"] == [
        {
            "rule": "the_volume",
            "kind": "volume",
            "ok": True,
            "text": "the last push had 2 rows; a push has at least 2 and at most 3 rows",
        }
    ]


def test_the_volume_of_a_file_is_the_whole_files(tmp_path: Path) -> None:
    from flyball.ingest.service import IngestConfig

    def load(name: str, count: int) -> Receipt:
        ingest = core(
            tmp_path / name,
            rule("volume", min_rows=5, max_rows=8, action="reject_batch"),
            config=IngestConfig(chunk_rows=3),
        )
        file = tmp_path / f"{name}.jsonl"
        file.write_bytes(b"\n".join(msgspec.json.encode(payment(n)) for n in range(count)))
        return ingest.append_file("Payments", file)

    assert load("right", 7).accepted == 7
    with pytest.raises(InvalidError, match="2 came"):
        load("few", 2)
    with pytest.raises(InvalidError, match="9 came") as caught:
        load("many", 9)
    assert "the 6 rows before these are stored" in caught.value.hint


def test_a_core_without_an_evaluator_says_so_instead_of_letting_rows_pass() -> None:
    from flyball.ingest.contract import check
    from flyball.ingest.rows import from_dicts

    spec = with_rules(rule("check", expr=DEAR))
    with pytest.raises(InternalError, match="checks of source Payments"):
        check(from_dicts([payment(1)], spec), spec, now=NOW, live=True)


def test_no_rule_of_a_source_can_be_taken_for_one_that_every_source_has() -> None:
    assert {rule.value for rule in Rule} == BUILT_IN


def test_a_key_of_another_source_does_not_answer_for_a_push_that_comes_with_it(tmp_path: Path) -> None:
    spec = with_rules(rule("check", expr=DEAR, action="reject_batch"))
    ingest = make_ingest(tmp_path, sources=[spec, LIVE_ONLY])
    bad, good = [payment(1, amount=1, items=9)], [payment(2, amount=90, items=9)]
    clicks = Push(source="Clicks", rows=[{"page": "a", "at": AT}], idempotency_key="b7")
    answers = ingest.append_many([
        clicks,
        Push(source="Payments", rows=bad, idempotency_key="b7"),
        Push(source="Payments", rows=bad, idempotency_key="b7"),
        Push(source="Payments", rows=good, idempotency_key="b7"),
        Push(source="Payments", rows=good, idempotency_key="b7"),
        Push(source="Payments", rows=bad, idempotency_key="b7"),
        clicks,
    ])  # fmt: skip
    said = [a.code if isinstance(a, FlyballError) else (a.source, a.accepted, a.replayed) for a in answers]
    assert said == [
        ("Clicks", 1, False),
        "batch_refused",
        "batch_refused",
        ("Payments", 1, False),
        ("Payments", 1, True),
        "batch_refused",
        ("Clicks", 1, True),
    ]
    ingest.flush()
    assert ingest.events("Payments")["id"].to_list() == ["p2"]
    assert source(ingest)["refused"] == {"the_check": 1}, "the same rows again are not judged again"


def test_of_pushes_with_one_key_the_first_that_is_not_refused_takes_it(tmp_path: Path) -> None:
    ingest = core(tmp_path, rule("check", expr=DEAR, action="reject_batch"))
    pushes = [
        Push(source="Payments", rows=rows, idempotency_key="k")
        for rows in (5, [payment(1, amount=1, items=9)], [payment(2, amount=1, items=9)], [payment(3)], [payment(4)])
    ]
    answers = ingest.append_many(pushes)
    said = [a.code if isinstance(a, FlyballError) else a.accepted for a in answers]
    assert said == ["bad_rows", "batch_refused", "batch_refused", 1, "idempotency_key_used"]
    assert source(ingest)["refused"] == {"the_check": 2}
