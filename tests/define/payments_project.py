"""A project with two sources, a late label over the other, two roles, latest values, a batch, and secrets."""

import flyball as fb


class Payments(
    fb.Source,
    event_time="at",
    key="id",
    known=fb.known_at(fb.iso("loaded_at")),
    retention="400d",
    owner="risk",
):
    """Card payments, as they are authorised."""

    id = fb.String()
    at = fb.Timestamp()
    payer = fb.String(pii=True)
    payee = fb.String()
    amount = fb.Decimal(2, gt=0)
    items = fb.Integer(ge=1)
    method = fb.Category("chip", "online", "swipe")
    score = fb.Float(nullable=True)
    abroad = fb.Boolean()
    age_group = fb.Category("young", "old", nullable=True, sensitive=True)


class Chargebacks(fb.Source, event_time="at", key=("payment", "at")):
    payment = fb.String()
    at = fb.Timestamp()
    reason = fb.Category("fraud", "quality")


class Out(fb.WindowView, source=Payments, entity=Payments.payer, where=Payments.amount > 1):
    """What an account paid."""

    n_1h = fb.count("1h")
    abroad_1d = fb.count("1d", where=Payments.abroad)
    sum_1d = fb.sum(Payments.amount, "1d")
    items_max_7d = fb.max(Payments.items, "7d")
    spread_30d = fb.std(Payments.amount, "30d", default=0)


class Seen(fb.WindowView, source=Payments, entity=Payments.payer):
    last_at = fb.last(Payments.at, "30d")


class Pair(fb.WindowView, source=Payments, entity=(Payments.payer, Payments.payee)):
    n_30d = fb.count("30d")


class Everything(fb.WindowView, source=Payments):
    n_1h = fb.count("1h")


class LastOut(fb.LatestView, source=Payments, entity=Payments.payer, ttl="90d"):
    amount = fb.latest(Payments.amount)
    method = fb.latest(Payments.method, default="chip")


@fb.transform
def against_usual(amount: fb.Expr = Payments.amount, usual: fb.Expr = Out.sum_1d) -> fb.Expr:
    """How unusual the amount is."""
    return fb.where(usual > 0, amount / fb.coalesce(usual, 1), 0)


@fb.transform
def since_last(last: fb.Expr = Seen.last_at) -> fb.Expr:
    return fb.row_time() - last


@fb.model(
    task=fb.Binary(metric="average_precision"),
    rows=Payments,
    label=fb.Label(
        Chargebacks.any(on=Chargebacks.payment == Payments.id, within="45d", where=Chargebacks.reason == "fraud")
    ),
    features=[
        Out,
        Out.by(Payments.payee).sum_1d,
        Pair,
        Everything.n_1h,
        LastOut,
        against_usual,
        since_last,
        Payments.amount,
        Payments.method,
        Payments.at.hour().named("hour"),
    ],
)
def fraud(data: fb.Dataset, run: fb.Run) -> fb.Package:
    """Whether a payment will be charged back."""
    return run.package(data.features)


project = fb.Project(
    "payments",
    services=[
        fb.Service(
            "fraud", model=fraud, rollout=fb.Full(), default=0, retrain=fb.Retrain(on=[fb.drift()], review="manual")
        ),
        fb.Service("payer-features", rows=Payments, features=[Out, LastOut]),
        fb.Service("elsewhere", model=fb.External(task=fb.Binary())),
    ],
    batches=[fb.Batch("nightly", model=fraud, rows=Payments, every="1d", output="fraud_scores")],
    secrets=[fb.secret("PAYMENTS_DSN")],
    owner="risk",
)
