"""The skew audit on real traffic: nothing to find where all is right, and what a defect does where one is."""

from __future__ import annotations

import types
from dataclasses import replace
from typing import Any

import pytest

import flyball as fb
from flyball.features.ports import AuditState
from flyball.kernel.errors import ConflictError, FlyballError
from flyball.kernel.times import MINUTE, SECOND, show_time
from flyball.loop.audit import AuditRule, Audits, SkewAudit
from flyball.testing import TestPlatform, platform
from tests.scenarios.market.project import Card, CardAtShop, Payments, Shop, amount_against_usual, market
from tests.scenarios.market.stream import NOW, history
from tests.scenarios.test_no_skew import stream


def audit_everything(running: TestPlatform, **more: Any) -> AuditRule:
    control = running._control
    rule = AuditRule(share=1.0, **more)
    control._audits = replace(control._audits, rule=rule)
    control._audit._rule = rule
    return rule


def started(**service: Any) -> TestPlatform:
    return platform(market(**service), at=NOW)


def features_alone() -> TestPlatform:
    """The same service without a model."""
    features: list[Any] = [Card, Shop, CardAtShop, amount_against_usual, Payments.amount, Payments.kind]
    return platform(fb.Project("market", services=[fb.Service("chargeback", rows=Payments, features=features)]), at=NOW)


def trained(running: TestPlatform) -> None:
    payments, chargebacks = history()
    running.load("Payments", payments)
    running.load("Chargebacks", chargebacks)
    running.train("chargeback")


def settle(running: TestPlatform) -> dict[str, Any]:
    for _ in range(3):
        running.advance(2 * MINUTE)
    return running._control.skew("chargeback")


def broken(running: TestPlatform) -> None:
    """From now on the worker counts one payment too many, for some cards."""
    guard: Any = running._worker._features
    reader: Any = guard._reader

    def vectors(manifest: Any, rows: Any, at: Any) -> Any:
        batch = reader.vectors(manifest, rows, at)
        position = [f.name for f in manifest.features].index("Card.payments_6h")
        batch.matrix[::2, position] += 5
        return batch

    guard._reader = Wrapped(vectors, reader.defaults)


class Wrapped:
    def __init__(self, vectors: Any, defaults: Any) -> None:
        self.vectors = vectors
        self.defaults = defaults


def test_where_all_is_right_the_audit_says_so_with_its_bound() -> None:
    with features_alone() as running:
        audit_everything(running)
        running.load("Payments", history()[0])
        asked, _ = stream(running)
        found = settle(running)
        assert found["sampling"]["predictions"] == len(asked)
        assert found["sampling"]["waiting"] == 0
        assert found["mismatched"] == 0, found["examples"]
        assert found["compared"] == len(asked) * len(found["features"]) - sum(found["skipped"].values())
        assert found["told"] == f"≤ 3/{found['compared']} = {3 / found['compared']:.3g} at 95 %"
        assert found["limit"] is None


@pytest.mark.parametrize("ttl", [None, "6h"])
def test_latest_values_are_audited_and_explained(ttl: str | None) -> None:
    class Newest(fb.LatestView, source=Payments, entity=Payments.shop, ttl=ttl):
        amount = fb.latest(Payments.amount)

    service = fb.Service("newest", rows=Payments, features=[Newest, Payments.kind])
    with platform(fb.Project("market", services=[service]), at=NOW) as running:
        audit_everything(running)
        running.load("Payments", history()[0])
        asked = [{"shop": f"shop-{n % 9}", "kind": "chip"} for n in range(30)]
        served = running.predict("newest", asked)
        for _ in range(3):
            running.advance(2 * MINUTE)
        found = running._control.skew("newest")
        assert (found["compared"], found["mismatched"]) == (2 * len(asked), 0)
        assert running._control.health["audit"]["ok"]
        ids = {reply["prediction_id"]: reply["values"]["Newest.amount"] for reply in served}
        assert any(value is not None for value in ids.values())
        for id, value in ids.items():
            told = running._control.explain("Newest", "amount", entity={}, prediction=id)
            assert told["value"]["served"] == value


def test_a_defect_of_serving_is_found_told_alarmed_and_holds_releases_back() -> None:
    with started(max_skew=0.005) as running:
        audit_everything(running)
        trained(running)
        broken(running)
        stream(running)
        found = settle(running)
        assert found["causes"] == {"unknown": found["mismatched"]}
        assert found["mismatched"] > 20
        assert [f["feature"] for f in found["features"] if f["mismatched"]] == ["Card.payments_6h"]
        example = found["examples"][0]
        assert example["served"] == example["recomputed"] + 5
        assert str(example["entity"]["card"]).startswith("pii:") or example["entity"]["card"] is None
        assert found["effect"]["rows"] == found["mismatched"]
        assert found["effect"]["max"] >= found["effect"]["mean"] >= 0.0
        (alert,) = [a for a in running.service("chargeback")["alerts"] if a["kind"] == "skew"]
        assert alert["closed_at"] is None
        running.train("chargeback", baseline="without_windows")
        with pytest.raises(ConflictError, match="flyball skew chargeback") as caught:
            running.release("chargeback", 2)
        assert caught.value.code == "skew_too_high"


def test_a_first_version_is_released_without_an_audit_and_a_second_needs_one() -> None:
    with started(max_skew=0.005) as running:
        audit_everything(running)
        trained(running)
        assert running.service("chargeback")["version"] == "chargeback/1"
        running.train("chargeback", baseline="without_windows")
        with pytest.raises(ConflictError, match="nothing compared yet"):
            running.release("chargeback", 2)
        stream(running)
        assert settle(running)["bound"] < 0.005
        running.release("chargeback", 2)


def test_a_crash_before_the_end_of_a_step_counts_nothing_twice() -> None:
    with features_alone() as running:
        audit_everything(running)
        running.load("Payments", history()[0])
        control = running._control
        before = control._audit._add

        def crash(*args: Any) -> None:
            before(*args)
            raise ZeroDivisionError

        control._audit._add = crash  # type: ignore[method-assign,assignment]
        asked, _ = stream(running)
        running.advance(2 * MINUTE)
        control._audit._looked.clear()  # its turn again, at once
        control.tick()
        assert not control.health["audit"]["ok"]
        assert control.skew("chargeback")["compared"] == 0
        control._audit = SkewAudit(
            control._metadata, control._packages, control._a.ingest, control._audits, control._recorder, running.clock
        )
        control._loops["audit"] = control._audit.tick
        found = settle(running)
        assert found["sampling"]["predictions"] == len(asked)
        assert found["compared"] == len(asked) * len(found["features"]) - sum(found["skipped"].values())


def test_more_than_can_be_audited_halves_the_share_of_entities() -> None:
    with features_alone() as running:
        audit_everything(running, waiting=20)
        running.load("Payments", history()[0])
        stream(running)
        with running._control._metadata.read() as unit:
            state: AuditState = unit.audit.state("chargeback")
            assert unit.audit.waiting("chargeback") <= 60
        assert state.dropped > 0, "which happens where the share is halved; it doubles again as the queue empties"
        assert 0.0 < state.share <= 1.0


def by_shop() -> TestPlatform:
    features: list[Any] = [Shop, Payments.kind]
    return platform(fb.Project("market", services=[fb.Service("shops", rows=Payments, features=features)]), at=NOW)


def test_with_few_entities_the_share_grows_until_all_are_audited() -> None:
    with by_shop() as running:
        shops = [f"shop-{n}" for n in range(4)]
        for _ in range(8):
            running.predict("shops", [{"shop": shop, "kind": "chip"} for shop in shops])
            running.advance(2 * MINUTE)
        before = running._control.skew("shops")["sampling"]
        assert before["share"] == 1.0
        asked = [{"shop": shop, "kind": "chip"} for shop in shops * 10]
        running.predict("shops", asked)
        for _ in range(3):
            running.advance(2 * MINUTE)
        after = running._control.skew("shops")["sampling"]
        assert after["predictions"] + after["waiting"] >= before["predictions"] + before["waiting"] + len(asked)
        assert after["waiting"] == 0


def test_a_share_of_none_stays_none() -> None:
    with by_shop() as running:
        rule = AuditRule(share=0.0)
        running._control._audits = replace(running._control._audits, rule=rule)
        running._control._audit._rule = rule
        for _ in range(3):
            running.predict("shops", [{"shop": "shop-1", "kind": "chip"}])
            running.advance(2 * MINUTE)
        sampling = running._control.skew("shops")["sampling"]
        assert (sampling["share"], sampling["predictions"], sampling["waiting"]) == (0.0, 0, 0)


def test_one_entity_with_all_the_traffic_is_audited_as_far_as_there_is_time() -> None:
    with by_shop() as running:
        audit_everything(running, waiting=20)
        for _ in range(6):  # what is queued has no time to settle before more comes
            running.predict("shops", [{"shop": "shop-1", "kind": "chip"}] * 60)
            running.advance(20 * SECOND)
            with running._control._metadata.read() as unit:
                assert unit.audit.waiting("shops") <= 20
        for _ in range(2):
            running.advance(2 * MINUTE)
        found = running._control.skew("shops")
        assert found["sampling"]["dropped"] > 0
        assert found["sampling"]["predictions"] > 5
        assert found["compared"] == found["sampling"]["predictions"] * len(found["features"])


def test_what_is_wired_has_a_small_default() -> None:
    with features_alone() as running:
        assert isinstance(running._control._audits, Audits)
        assert running._control._audits.rule == AuditRule()


def test_a_value_is_explained_from_the_log_to_what_online_state_says() -> None:
    with features_alone() as running:
        running.load("Payments", history()[0])
        now = running.clock.now()
        running.push(
            "Payments",
            [
                {
                    "id": "late",
                    "card": "card-1",
                    "shop": "s",
                    "kind": "chip",
                    "amount": "9.00",
                    "time": show_time(now - MINUTE),
                }
            ],
        )
        control = running._control
        found = control.explain("Card", "payments_6h", entity={"card": "card-1"}, at=now - SECOND)
        assert found["value"]["event"] == found["value"]["known"] + 1
        assert [row["why"] for row in found["late"]] == ["it was known 1s too late"]
        assert found["online"]["value"] == found["value"]["event"], "online state has it, and cannot forget it"
        assert found["entity"] == {"card": "(pii)"}
        seen = control.explain("Card", "amount_1d", entity={"card": "card-1"}, at=now + SECOND)
        assert seen["value"]["known"] == seen["value"]["event"] == seen["online"]["value"]
        reply = running.predict("chargeback", card="card-1", shop="s", kind="chip", amount="1.00")
        running.tick()
        served = control.explain("Card", "payments_6h", entity={}, prediction=reply["prediction_id"])
        assert served["value"]["served"] == reply["values"]["Card.payments_6h"]
        for ask, code in (
            (("Cards", "n", {"card": "x"}), "view_not_found"),
            (("Card", "payments_9h", {"card": "x"}), "feature_not_found"),
            (("Card", "payments_6h", {"cart": "x"}), "bad_entity"),
            (("Card", "payments_6h", {}), "bad_entity"),
        ):
            with pytest.raises(FlyballError) as caught:
                control.explain(ask[0], ask[1], entity=ask[2])
            assert caught.value.code == code


def test_views_are_listed_with_their_users_and_leave_as_sql() -> None:
    with features_alone() as running:
        views = {view["view"]: view for view in running._control.views()}
        assert set(views) == {"Card", "Shop", "CardAtShop"}
        assert views["Card"]["served_by"] == ["chargeback/1"]
        assert views["Card"]["features"][0]["used_by"] == ["chargeback"]
        sql = running._control.view_sql("Card")["sql"]
        assert "delta_scan('" in sql
        assert "/lake/Payments')" in sql
        assert "FROM mine" in running._control.view_sql("Card", kind="table", table="mine")["sql"]
        with pytest.raises(FlyballError, match="did you mean 'Card'"):
            running._control.view_sql("Cart")


def test_the_query_computes_a_view_from_the_lake() -> None:
    duckdb = pytest.importorskip("duckdb")
    with features_alone() as running:
        running.load("Payments", history()[0])
        running._ingest.flush()
        sql = running._control.view_sql("Card", kind="parquet")["sql"]
        template = "(VALUES ('…', TIMESTAMPTZ '2026-01-01 00:00:00+00'))"
        assert template in sql
        now = running.clock.now()
        sql = sql.replace(template, f"(VALUES ('card-1', make_timestamp({now})))")
        with duckdb.connect() as connection:
            cursor = connection.execute(sql.replace('rows."at"', 'epoch_us(rows."at")'))
            names = [part[0] for part in cursor.description]
            (answer,) = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        reply = running.predict("chargeback", card="card-1", shop="shop-1", kind="chip", amount="1.00")
        for name, value in reply["values"].items():
            if name.startswith("Card."):
                assert answer[name[5:]] == pytest.approx(value, rel=1e-9)


def windowed(window: str, *, view: str = "Recent") -> fb.Project:
    """A model that reads a count over a window: today's definition of it, or one that was."""

    class Sales(fb.Source, event_time="time", key="id", known=fb.delay("0s")):
        id = fb.String(max_length=32)
        shop = fb.String(nullable=True)
        kind = fb.Category(*(["cash", "card"] if window == "1h" else ["free", "cash", "card"]))
        good = fb.Boolean()
        time = fb.Timestamp()

    counted = {"__module__": __name__, "n": fb.count(window)}
    by_shop = {"source": Sales, "entity": Sales.shop}
    made: Any = types.new_class(view, (fb.WindowView,), by_shop, lambda body: body.update(counted))

    class Newest(fb.LatestView, source=Sales, entity=Sales.shop):
        kind = fb.latest(Sales.kind)

    @fb.model(
        task=fb.Binary(),
        rows=Sales,
        label=fb.Label(Sales.good, matures="0s"),
        features=[made, Newest],
        split=fb.by_time(test=0.3),
    )
    def good(data: fb.Dataset, run: fb.Run) -> fb.Package:
        import lightgbm

        rows = lightgbm.Dataset(data.train.X, data.train.y)
        settings = {"objective": "binary", "min_data_in_leaf": 1, "num_leaves": 3, "verbose": -1}
        return run.package(lightgbm.train(settings, rows, num_boost_round=2))

    return fb.Project("sales", services=[fb.Service("good", model=good, default=0.5)])


@pytest.mark.parametrize("changed", [{"window": "3h"}, {"window": "1h", "view": "Newer"}])
def test_a_prediction_is_explained_by_the_definition_that_its_version_has(changed: dict[str, str]) -> None:
    with platform(windowed("1h"), at=NOW) as running:
        times = [show_time(NOW - (n + 1) * 5 * MINUTE) for n in range(400)]
        rows = [{"shop": "a", "kind": "cash", "good": n % 2 == 0, "time": at} for n, at in enumerate(times)]
        running.load("Sales", [row | {"id": str(n)} for n, row in enumerate(rows)])
        running.train("good")
        running.apply(windowed(**changed))
        reply = running.predict("good", id="q", shop="a")
        running.tick()
        assert reply["version"] == "good/1"
        for view, feature, value in (("Recent", "n", 12.0), ("Newest", "kind", "cash")):
            found = running._control.explain(view, feature, entity={}, prediction=reply["prediction_id"])
            assert found["value"] == {"logged": value, "served": value, "event": value}
            assert found["interval"].get("window") in (None, "1h")
            assert found["version"] == "good/1"
        with pytest.raises(FlyballError, match="'Recent'") as caught:
            running._control.explain("Resent", "n", entity={}, prediction=reply["prediction_id"])
        assert caught.value.code == "view_not_read"
