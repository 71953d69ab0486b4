"""Orders that are pulled from a database, and the large ones among them."""

from __future__ import annotations

import flyball as fb


class Orders(
    fb.Source,
    event_time="at",
    key="id",
    origin=fb.Sql(fb.secret("ORDERS_DSN"), "SELECT * FROM orders", cursor="changed", every="1s", lag="2s"),
):
    id = fb.Integer()
    customer = fb.String()
    amount = fb.Decimal(2)
    at = fb.Timestamp()


class Customer(fb.LatestView, source=Orders, entity=Orders.customer):
    amount = fb.latest(Orders.amount)


class LargeOrders(fb.Derived, source=Orders, where=Orders.amount > 50):
    before = fb.derive(Customer.amount)


class Large(fb.WindowView, source=LargeOrders, entity=LargeOrders.customer):
    n_1d = fb.count("1d")


project = fb.Project(
    "orders",
    sources=[Orders],
    services=[fb.Service("watch", features=[Large], rows=LargeOrders)],
)
