"""The ingest core: exactly once from a push to the lake, and what the plan may change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pytest

from flyball.define.spec import AggregateSpec, ColumnSpec, SourceSpec, ViewSpec
from flyball.ingest.plan import FEEDBACK
from flyball.ingest.receipts import Push, Receipt
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import ConflictError, ExhaustedError, FlyballError, InvalidError, NotFoundError
from flyball.storage.event_log import SqliteEventLog
from flyball.storage.lake import DeltaLake
from tests.ingest.sources import DAY, LIVE_ONLY, NOW, PAYMENTS, SECOND, MemoryApplier, make_ingest, payment

AT = NOW // SECOND
SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "card": pl.String(),
    "amount": pl.Float64(),
    "kind": pl.String(),
    "score": pl.Float64(),
    "items": pl.Int64(),
    "gift": pl.Boolean(),
    "due": pl.Datetime("us"),
    "at": pl.Int64(),
}


def source(status: dict[str, Any], name: str = "Payments") -> dict[str, Any]:
    return next(s for s in status["sources"] if s["name"] == name)


def test_a_receipt_accounts_for_every_row(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    receipt = ingest.append("Payments", [payment(1), payment(2, amount="x"), payment(1), payment(3)])
    assert (receipt.received, receipt.accepted, receipt.quarantined, receipt.duplicates) == (4, 2, 1, 1)
    assert (receipt.first_lsn, receipt.last_lsn, receipt.known_at) == (1, 2, NOW)
    assert receipt.reasons == {"wrong_type": 1}
    assert receipt.examples[0]["row"]["card"] == "[pii]"
    assert msgspec.json.decode(msgspec.json.encode(receipt.to_data()))["accepted"] == 2


def test_rows_come_as_dicts_or_as_a_polars_or_arrow_table(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    frame = pl.DataFrame([payment(1)], schema=SCHEMA)
    table = pa.Table.from_pylist([payment(2) | dict.fromkeys(["kind", "score", "items", "gift", "due"])])
    assert ingest.append("Payments", frame).accepted == 1
    assert ingest.append("Payments", table).accepted == 1
    assert ingest.append("Payments", [payment(3)]).accepted == 1
    with pytest.raises(InvalidError, match="came as str") as caught:
        ingest.append("Payments", "rows")
    assert caught.value.code == "bad_rows"
    ingest.apply()
    assert ingest.events("Payments")["amount"].to_list() == [1245] * 3


def test_an_unknown_source_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no source 'payments'; did you mean 'Payments'") as caught:
        make_ingest(tmp_path).append("payments", [])
    assert caught.value.code == "source_not_found"


def test_the_same_key_gives_the_first_receipt_and_stores_nothing_twice(tmp_path: Path) -> None:
    first = make_ingest(tmp_path).append("Payments", [payment(1), payment(2, kind="?")], idempotency_key="k")
    ingest = make_ingest(tmp_path)
    again = ingest.append("Payments", [payment(1), payment(2, kind="?")], idempotency_key="k")
    assert again.replayed
    assert {**again.to_data(), "replayed": False} == first.to_data()
    with pytest.raises(ConflictError, match="'k' of source Payments was used for other rows") as caught:
        ingest.append("Payments", [payment(9)], idempotency_key="k")
    assert caught.value.code == "idempotency_key_used"
    assert ingest.append("Clicks", [{"page": "a", "at": AT}], idempotency_key="k").accepted == 1
    assert source(ingest.status())["lsn"] == 1


def test_pushes_that_arrive_together_are_answered_apart(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    pushes = [
        Push(source="Payments", rows=[payment(1), payment(2, amount=-1)], idempotency_key="a"),
        Push(source="Clicks", rows=[{"page": "x", "at": AT}]),
        Push(source="Nothing", rows=[]),
        Push(source="Payments", rows=payment(1)),
        Push(source="Payments", rows=[payment(3), payment(4, amount="x")], idempotency_key="b"),
        Push(source="Payments", rows=[payment(1), payment(2, amount=-1)], idempotency_key="a"),
        Push(source="Payments", rows=[payment(7)], idempotency_key="a"),
        Push(source="Payments", rows=pl.DataFrame({"id": ["x"]}), idempotency_key="c"),
        Push(source="Payments", rows=pl.DataFrame({"id": ["x"]}), idempotency_key="c"),
    ]
    answers = ingest.append_many(pushes)
    codes = [answer.code if isinstance(answer, FlyballError) else "" for answer in answers]
    assert codes == ["", "", "source_not_found", "", "", "", "idempotency_key_used", "missing_column", "missing_column"]
    receipts = [a for a in answers if isinstance(a, Receipt)]
    assert [(r.accepted, r.quarantined, r.duplicates, r.first_lsn) for r in receipts] == [
        (1, 1, 0, 1),
        (1, 0, 0, 1),
        (0, 0, 1, 0),
        (1, 1, 0, 2),
        (1, 1, 0, 1),
    ]
    assert receipts[4].replayed
    assert [r.examples[0]["position"] for r in receipts if r.examples] == [2, 2, 2]
    assert source(ingest.status())["pending_batches"] == 1, "one batch for all of them"


def test_duplicates_across_batches_are_dropped_before_the_lake(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1, amount=1), payment(2)])
    ingest.append("Payments", [payment(1, amount=2), payment(3)])
    ingest.apply()
    before = ingest.events("Payments")
    horizon = ingest.flush()["Payments"]
    assert (horizon.lsn, horizon.version, horizon.rows) == (4, 0, 3)
    ingest.append("Payments", [payment(1, amount=3)])
    assert ingest.flush()["Payments"].rows == 3
    assert ingest.events("Payments").equals(before), "the same events from the log and from the lake"
    assert before["_lsn"].to_list() == [1, 2, 4]
    assert before["amount"].to_list() == [100, 1245, 1245]


def test_a_flush_empties_the_log_and_keeps_the_quarantine_beside_the_table(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1), payment(2, amount="x")])
    ingest.append("Payments", [payment(3, amount="y")])
    ingest.flush()
    assert source(ingest.status())["pending_batches"] == 0
    ingest.append("Payments", [payment(4, amount="z", card="4711")])
    listed = ingest.quarantine("Payments", limit=2)
    assert (listed["total"], listed["rules"]) == (3, {"wrong_type": 3})
    assert [row["value"] for row in listed["rows"]] == ["z", "y"], "newest first, from the log and from the lake"
    assert "4711" not in str(listed)
    table = DeltaLake(tmp_path / "lake").read("Payments__quarantine")
    assert table["row"].to_list()[0].startswith('{"id": "p2", "card": "1234", "amount": "x"'), "whole, to be mended"


@pytest.mark.parametrize("fail_at", ["append", "trim"])
def test_a_crash_in_a_flush_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: str) -> None:
    class Crash(BaseException):
        pass

    def crash(*args: object, **more: object) -> None:
        raise Crash

    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1), payment(2, amount="x")])
    with monkeypatch.context() as patched:
        patched.setattr(DeltaLake if fail_at == "append" else SqliteEventLog, fail_at, crash)
        with pytest.raises(Crash):
            ingest.flush()
    again = make_ingest(tmp_path)
    assert again.flush()["Payments"].rows == 1
    assert DeltaLake(tmp_path / "lake").count("Payments__quarantine") == 1
    assert again.events("Payments")["id"].to_list() == ["p1"]


def test_an_online_state_that_was_lost_is_fed_from_lake_and_log(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1), payment(2), payment(1)])
    ingest.append("Payments", [payment(2)])
    ingest.flush()
    ingest.append("Payments", [payment(3), payment(1)])
    applier = MemoryApplier()
    again = make_ingest(tmp_path, applier=applier)
    assert again.apply() == 4
    assert list(applier.first["Payments"].values()) == [1, 2, 4]
    assert source(again.status())["lag"] == 0
    assert again.flush()["Payments"].rows == 3


def test_live_events_are_known_at_their_commit_and_history_when_declared(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = make_ingest(tmp_path, clock=clock)
    ingest.append("Payments", [payment(1)])
    clock.advance_to(NOW + SECOND)
    ingest.append("Payments", [payment(2), payment(3)])
    ingest.append("Payments", [payment(4, at=AT - 1_000 * 86_400)], live=False)
    ingest.apply()
    known = ingest.events("Payments")["_known_at"].to_list()
    assert known == [NOW, NOW + SECOND, NOW + SECOND, NOW - 1_000 * DAY + 3_600 * SECOND]


def test_feedback_is_taken_once_per_prediction(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = make_ingest(tmp_path, clock=clock)
    items = [{"prediction_id": "a", "label": True}, {"prediction_id": "b", "label": 0.5}, {"label": 1}, 7]
    receipt = ingest.feedback(items, idempotency_key="k")
    assert (receipt.accepted, receipt.quarantined) == (2, 2)
    clock.advance_to(NOW + SECOND)
    assert ingest.feedback(items, idempotency_key="k").replayed, "the time is ours and no part of the key"
    assert ingest.feedback({"prediction_id": "a", "label": 0}).accepted == 1
    ingest.flush()
    rows = ingest.events(FEEDBACK.name).select("prediction_id", "label", "_event_time").rows()
    assert rows == [("a", 1.0, NOW), ("b", 0.5, NOW)]


def test_a_full_disk_refuses_and_the_push_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Payments", [payment(1)])
    log: Any = ingest._log
    pages = log._writer.execute("PRAGMA page_count").fetchone()[0]
    log._writer.execute(f"PRAGMA max_page_count = {pages + 1}")
    many = [payment(i) for i in range(2, 3_000)]
    with pytest.raises(ExhaustedError) as caught:
        ingest.append("Payments", many, idempotency_key="k")
    assert caught.value.code == "disk_full"
    log._writer.execute("PRAGMA max_page_count = 1000000")
    assert ingest.append("Payments", many, idempotency_key="k").accepted == 2_998
    assert ingest.flush()["Payments"].rows == 2_999


def test_a_plan_may_add_columns_and_views_and_drop_sources(tmp_path: Path) -> None:
    applier = MemoryApplier()
    ingest = make_ingest(tmp_path, applier=applier)
    ingest.append("Payments", [payment(1)])
    ingest.append("Clicks", [{"page": "a", "at": AT}])
    columns = (*PAYMENTS.columns[:3], ColumnSpec(name="tax", type="decimal", scale=3, nullable=True))
    changed = SourceSpec(name="Payments", columns=columns, event_time="at", event_time_unit="s", key=("id",))
    view = ViewSpec(
        name="V", kind="window", source="Payments", aggregates=(AggregateSpec(name="n", op="count", window=1, hop=1),)
    )
    ingest.load_plan({"epoch": 2, "digest": "e", "sources": [changed.to_data()], "views": [view.to_data()]})
    assert applier.views == (view,)
    assert [spec.name for spec in ingest.sources()] == ["Payments", FEEDBACK.name]
    ingest.append("Payments", [payment(2, tax="0.125")])
    with pytest.raises(NotFoundError):
        ingest.append("Clicks", [{"page": "a", "at": AT}])
    ingest.flush()
    assert ingest.events("Payments", ["tax"])["tax"].to_list() == [None, 125]
    lake = DeltaLake(tmp_path / "lake")
    assert lake.count("Clicks") == 1, "what was acknowledged for a source that left is in the lake all the same"
    assert lake.types("Payments")["tax"] == pl.Decimal(18, 3)
    assert (ingest.status()["epoch"], ingest.status()["digest"]) == (2, "e")


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ({"sources": [{"name": "S"}]}, "bad_plan"),
        ({"sources": [{"name": "S", "columns": [], "event_time": "at", "new_word": 1}]}, "bad_plan"),
        ({"sources": [FEEDBACK]}, "bad_plan"),
        ({"sources": [], "views": [ViewSpec(name="V", kind="window", source="S")]}, "bad_plan"),
        ({"sources": [{**LIVE_ONLY.to_data(), "columns": [{"name": "page", "type": "float"}]}]}, "column_type_changed"),
    ],
)
def test_a_bad_plan_is_refused_and_the_old_one_kept(tmp_path: Path, plan: dict[str, Any], code: str) -> None:
    ingest = make_ingest(tmp_path)
    ingest.append("Clicks", [{"page": "a", "at": AT}])
    with pytest.raises(FlyballError) as caught:
        ingest.load_plan({"epoch": 2} | plan)
    assert caught.value.code == code
    assert ingest.status()["epoch"] == 1
    assert ingest.append("Clicks", [{"page": "b", "at": AT}]).accepted == 1


def test_what_is_in_the_log_of_a_source_that_left_reaches_the_lake_after_a_restart(tmp_path: Path) -> None:
    make_ingest(tmp_path).append("Payments", [payment(1), payment(1), payment(2, amount="x")])
    ingest = make_ingest(tmp_path, sources=[LIVE_ONLY])
    ingest.flush()
    lake = DeltaLake(tmp_path / "lake")
    assert lake.types("Payments")["amount"] == pl.Decimal(18, 2)
    assert (lake.count("Payments"), lake.count("Payments__quarantine")) == (1, 1)


def test_an_applier_may_read_events_while_it_takes_a_plan(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    class Reading(MemoryApplier):
        def load_plan(
            self,
            sources: Sequence[SourceSpec],
            views: Sequence[ViewSpec],
            earlier: Sequence[tuple[ViewSpec, SourceSpec]] = (),
        ) -> None:
            super().load_plan(sources, views)
            if len(views) == 1:
                seen.append(ingest.events("Payments", ["id"], through_lsn=4)["id"].to_list())

    ingest = make_ingest(tmp_path, applier=Reading())
    ingest.append("Payments", [payment(1), payment(2)])
    ingest.flush()
    ingest.append("Payments", [payment(1), payment(3), payment(4)])
    ingest.apply()
    view = ViewSpec(name="V", kind="latest", source="Payments")
    ingest.load_plan({"epoch": 2, "sources": [PAYMENTS], "views": [view]})
    assert seen == [["p1", "p2", "p3"]]


def test_status_tells_what_is_behind(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    ingest = make_ingest(tmp_path, clock=clock)
    ingest.append("Payments", [payment(1), payment(2, amount="x"), payment(1)])
    clock.advance_to(NOW + 3 * SECOND)
    status = source(ingest.status())
    facts = {"rows": 1, "quarantined": 1, "duplicates": 1, "lag": 1, "lag_us": 3 * SECOND, "lake_lag": 1}
    assert {name: status[name] for name in facts} == facts
    ingest.flush()
    status = source(ingest.status())
    assert (status["lag"], status["lag_us"], status["lake_lag"], status["last_event"]) == (0, 0, 0, NOW - 60 * SECOND)
