"""Taxis: will a large trip be tipped well? The rows are a derived source, and a view is over it."""

from __future__ import annotations

from typing import Any

import flyball as fb


class Companies(fb.Source, event_time="at", key=fb.row_key(), known=fb.delay("0s")):
    company = fb.String(max_length=20)
    area = fb.Category("north", "south")
    rate = fb.Decimal(2)
    at = fb.Timestamp()


class Trips(fb.Source, event_time="at", key="id", known=fb.delay("1m")):
    id = fb.String(max_length=20)
    company = fb.String(nullable=True, max_length=20)
    fare = fb.Decimal(2, ge=0)
    tips = fb.Decimal(2, ge=0)
    at = fb.Timestamp()


class Company(fb.LatestView, source=Companies, entity=Companies.company):
    area = fb.latest(Companies.area)
    rate = fb.latest(Companies.rate)


def big_trips(least: int) -> type[fb.Derived]:
    """The trips above a fare, with what was known of their company."""

    class BigTrips(fb.Derived, source=Trips, where=Trips.fare > least):
        area = fb.derive(Company.area)
        due = fb.derive(Trips.fare * Company.rate)

    return BigTrips


def taxis(least: int = 20, **more: Any) -> fb.Project:
    """The project; `more` is of its service, such as its rollout."""
    BigTrips = big_trips(least)

    class Habits(fb.WindowView, source=BigTrips, entity=BigTrips.company):
        big_1d = fb.count("1d")
        due_1d = fb.sum(BigTrips.due, "1d")
        north_7d = fb.mean(BigTrips.area == "north", "7d")

    @fb.model(
        task=fb.Binary(),
        rows=BigTrips,
        label=fb.Label(BigTrips.tips > 0.2 * BigTrips.fare),
        features=[Habits, BigTrips.fare, BigTrips.due, BigTrips.area],
        split=fb.by_time(test=0.2),
    )
    def tip(data: fb.Dataset, run: fb.Run) -> fb.Package:
        import lightgbm

        rows = lightgbm.Dataset(data.train.X, data.train.y)
        settings = {"objective": "binary", "num_leaves": 5, "min_data_in_leaf": 3, "seed": run.seed, "verbose": -1}
        return run.package(lightgbm.train(settings, rows, num_boost_round=5))

    return fb.Project("taxis", services=[fb.Service("tip", model=tip, default=0.1, **more)])
