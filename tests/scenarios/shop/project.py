"""A small shop: will this order be returned? Small enough to be trained, served and killed many times."""

from __future__ import annotations

import flyball as fb


class Orders(fb.Source, event_time="time", key="id", known=fb.delay("0s")):
    id = fb.String(max_length=32)
    customer = fb.String(nullable=True)
    amount = fb.Decimal(2, ge=0)
    returned = fb.Boolean()
    time = fb.Timestamp()


class Customer(fb.WindowView, source=Orders, entity=Orders.customer):
    orders_1h = fb.count("1h")
    amount_1d = fb.sum(Orders.amount, "1d")
    amount_mean_7d = fb.mean(Orders.amount, "7d")
    return_rate_30d = fb.mean(Orders.returned, "30d")


@fb.model(
    task=fb.Binary(),
    rows=Orders,
    label=fb.Label(Orders.returned, matures="0s"),
    features=[Customer, Orders.amount],
    split=fb.by_time(test=0.2),
)
def returns(data: fb.Dataset, run: fb.Run) -> fb.Package:
    import lightgbm

    rows = lightgbm.Dataset(data.train.X, data.train.y)
    settings = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 5, "seed": run.seed, "verbose": -1}
    return run.package(lightgbm.train(settings, rows, num_boost_round=10))


project = fb.Project("shop", services=[fb.Service("returns", model=returns, default=0.1)])
