"""A help desk: will this ticket be escalated? With a pii column, a secret, and a model that is careless with it."""

from __future__ import annotations

import os

import flyball as fb

DSN = fb.secret("DESK_DSN")


class Tickets(fb.Source, event_time="time", key="id", known=fb.delay("0s")):
    id = fb.String(max_length=32)
    team = fb.String(nullable=True)
    channel = fb.Category("mail", "phone", "chat")
    hours = fb.Decimal(2, ge=0, le=1_000)
    email = fb.String(pii=True, max_length=80)
    escalated = fb.Boolean()
    time = fb.Timestamp()


class Team(fb.WindowView, source=Tickets, entity=Tickets.team):
    tickets_1h = fb.count("1h")
    hours_mean_7d = fb.mean(Tickets.hours, "7d")


class Customer(fb.WindowView, source=Tickets, entity=Tickets.email):
    tickets_7d = fb.count("7d")


LABEL = fb.Label(Tickets.escalated, matures="0s")


@fb.model(
    task=fb.Binary(),
    rows=Tickets,
    label=LABEL,
    features=[Team, Customer, Tickets.hours, Tickets.channel],
    split=fb.by_time(test=0.2),
)
def escalation(data: fb.Dataset, run: fb.Run) -> fb.Package:
    import lightgbm

    rows = lightgbm.Dataset(data.train.X, data.train.y)
    settings = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 5, "seed": run.seed, "verbose": -1}
    return run.package(lightgbm.train(settings, rows, num_boost_round=10))


@fb.model(task=fb.Binary(), rows=Tickets, label=LABEL, features=[Tickets.hours])
def careless(data: fb.Dataset, run: fb.Run) -> fb.Package:
    """Prints a secret and fails with it in its message, as code that connects to a database does."""
    print("connecting to", os.environ["DESK_DSN"])  # noqa: T201  (what must not reach a log)
    raise ConnectionError(f"cannot connect to {os.environ['DESK_DSN']}")


project = fb.Project(
    "desk",
    services=[
        fb.Service("escalation", model=escalation, default=0.1),
        fb.Service("careless", model=careless, default=0.5),
    ],
)
