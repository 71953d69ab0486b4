"""Card payments: is this one a fraud?

A payment is asked about when it is made, and pushed as an event once it is; a chargeback may follow, days later. What
is known of the card, of the merchant and of the two together comes from windows over earlier payments.
"""

from __future__ import annotations

import flyball as fb


class Payments(fb.Source, event_time="time", key="id", known=fb.delay("0s")):
    """Every card payment, as it is made."""

    id = fb.String(max_length=32)
    card = fb.String(pii=True)
    merchant = fb.String()
    amount = fb.Decimal(2, gt=0, le=100_000)
    channel = fb.Category("chip", "contactless", "online")
    country = fb.Category("domestic", "neighbour", "overseas")
    time = fb.Timestamp()

    columns_in_order = fb.check(card != merchant)  # a row whose columns slipped has one of them twice
    contactless_limit = fb.check((channel != "contactless") | (amount <= 300), action="warn")
    not_late = fb.fresh("1h")


class Chargebacks(fb.Source, event_time="time", key="payment", known=fb.delay("0s")):
    """A cardholder says: that payment was not mine."""

    payment = fb.String(max_length=32)
    time = fb.Timestamp()


SMALL = Payments.amount < 5


class Card(fb.WindowView, source=Payments, entity=Payments.card):
    payments_1h = fb.count("1h")
    payments_24h = fb.count("24h")
    amount_mean_14d = fb.mean(Payments.amount, "14d")
    small_payments_3d = fb.count("3d", where=SMALL)
    merchants_24h = fb.distinct(Payments.merchant, "24h")
    amounts = fb.last_k(Payments.amount, 2, "7d")


class Merchant(fb.WindowView, source=Payments, entity=Payments.merchant):
    payments_24h = fb.count("24h")
    amount_mean_7d = fb.mean(Payments.amount, "7d")
    small_rate_3d = fb.mean(SMALL, "3d")


class CardAtMerchant(fb.WindowView, source=Payments, entity=(Payments.card, Payments.merchant)):
    payments_14d = fb.count("14d")


@fb.transform
def amount_against_usual(amount: fb.Expr = Payments.amount, usual: fb.Expr = Card.amount_mean_14d) -> fb.Expr:
    """How large the payment is beside what the card usually pays."""
    return amount / usual


@fb.transform
def amount_against_merchant(amount: fb.Expr = Payments.amount, usual: fb.Expr = Merchant.amount_mean_7d) -> fb.Expr:
    """How large it is beside what the merchant usually takes."""
    return amount / usual


@fb.model(
    task=fb.Binary(metric="auc"),
    rows=Payments,
    label=fb.Label(Chargebacks.any(on=Chargebacks.payment == Payments.id, within="3d")),
    features=[
        Card,
        Merchant,
        CardAtMerchant,
        amount_against_usual,
        amount_against_merchant,
        Payments.amount,
        Payments.channel,
        Payments.country,
    ],
    split=fb.by_time(test=0.03),
)
def fraud(data: fb.Dataset, run: fb.Run) -> fb.Package:
    """Gradient-boosted trees, trained on the earlier part; the platform measures on the later one."""
    import lightgbm

    settings = {
        "objective": "binary",
        "learning_rate": 0.1,
        "num_leaves": 31,
        "min_data_in_leaf": 40,
        "seed": run.seed,
        "num_threads": 1,  # the other core serves
        "verbose": -1,
    }
    rows = lightgbm.Dataset(
        data.train.X, data.train.y, feature_name=list(data.features), categorical_feature=list(data.categorical)
    )
    rounds = 80
    booster = lightgbm.train(
        settings, rows, num_boost_round=rounds, callbacks=[lambda at: run.progress(at.iteration + 1, rounds)]
    )
    return run.package(booster)


project = fb.Project(
    "payments",
    services=[
        fb.Service(
            "fraud",
            model=fraud,
            load=fb.Load(rps=500, p99="20ms"),
            rollout=fb.Canary(steps=(10, 50, 100), hold="2h", min_requests=30),
            default=0.02,
            max_skew=0.005,  # of the served values may differ from training, or no new version is released
            retrain=fb.Retrain(on=[fb.drift(), fb.quality_drop("auc", 0.05)], cooldown="10d"),
            owner="payments-risk",
        )
    ],
)
