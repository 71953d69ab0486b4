"""A market: will this payment be charged back? Every kind of view, null keys, pii, and a late label."""

from __future__ import annotations

from typing import Any

import flyball as fb


class Payments(fb.Source, event_time="time", key="id", known=fb.delay("30m")):
    id = fb.String(max_length=32)
    card = fb.String(nullable=True, pii=True)
    shop = fb.String(nullable=True)
    kind = fb.Category("chip", "online", "swipe")
    amount = fb.Decimal(2, gt=0, le=10_000)
    holder = fb.String(nullable=True, pii=True, max_length=64)
    time = fb.Timestamp()


class Chargebacks(fb.Source, event_time="time", key="payment", known=fb.delay("0s")):
    payment = fb.String(max_length=32)
    time = fb.Timestamp()


class Card(fb.WindowView, source=Payments, entity=Payments.card):
    payments_10m = fb.count("10m")
    payments_6h = fb.count("6h")
    amount_1d = fb.sum(Payments.amount, "1d")
    amount_mean_3d = fb.mean(Payments.amount, "3d")
    amount_std_3d = fb.std(Payments.amount, "3d")
    biggest_1d = fb.max(Payments.amount, "1d")
    online_6h = fb.count("6h", where=Payments.kind == "online")


class Shop(fb.WindowView, source=Payments, entity=Payments.shop):
    payments_1h = fb.count("1h")
    large_rate_1d = fb.mean(Payments.amount > 100, "1d")


class CardAtShop(fb.WindowView, source=Payments, entity=(Payments.card, Payments.shop)):
    payments_3d = fb.count("3d")
    last_amount_3d = fb.last(Payments.amount, "3d")


@fb.transform
def amount_against_usual(amount: fb.Expr = Payments.amount, usual: fb.Expr = Card.amount_mean_3d) -> fb.Expr:
    return amount / usual


@fb.model(
    task=fb.Binary(),
    rows=Payments,
    label=fb.Label(Chargebacks.any(on=Chargebacks.payment == Payments.id, within="1d")),
    features=[Card, Shop, CardAtShop, amount_against_usual, Payments.amount, Payments.kind],
    split=fb.by_time(test=0.2),
)
def chargeback(data: fb.Dataset, run: fb.Run) -> fb.Package:
    import lightgbm

    rows = lightgbm.Dataset(data.train.X, data.train.y)
    settings = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 5, "seed": run.seed, "verbose": -1}
    return run.package(lightgbm.train(settings, rows, num_boost_round=10))


def market(**more: Any) -> fb.Project:
    """The project; `more` is of its service, such as its rollout."""
    return fb.Project("market", services=[fb.Service("chargeback", model=chargeback, default=0.02, **more)])
