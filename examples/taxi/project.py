"""Chicago taxi trips: will the rider tip more than a fifth of the fare?

The columns are those of the public file. `row_key` makes an event's identity from the whole row, since trips have no
id; `known` says that what is in the file was known an hour after a trip began.
"""

from __future__ import annotations

import flyball as fb


class Trips(fb.Source, event_time=fb.epoch("trip_start_timestamp"), key=fb.row_key(), known=fb.delay("1h")):
    company = fb.String(nullable=True)
    pickup_community_area = fb.Integer(nullable=True, ge=1, le=77)
    dropoff_community_area = fb.Integer(nullable=True, ge=1, le=77)
    payment_type = fb.Category("Cash", "Credit Card", "No Charge", "Dispute", "Pcard", "Prcard", "Unknown")
    fare = fb.Decimal(2, ge=0, le=1_000)
    tips = fb.Decimal(2, ge=0)
    trip_seconds = fb.Integer(nullable=True, ge=0, le=86_400)
    trip_miles = fb.Float(ge=0, le=100, description="a few rows lost their decimal point: 1710 miles in 35 minutes")

    miles_fit_the_fare = fb.check(
        (fare == 0) | (trip_miles <= 2 * fare)
    )  # 22 miles for $ 8.25: no decimal point either
    tips_at_most_fare = fb.check(tips <= fare, action="warn")  # odd, and possible


BIG_TIP = Trips.tips > 0.2 * Trips.fare


class Company(fb.WindowView, source=Trips, entity=Trips.company):
    trips_7d = fb.count("7d")
    fare_mean_30d = fb.mean(Trips.fare, "30d")
    tip_rate_30d = fb.mean(BIG_TIP, "30d")


class PickupArea(fb.WindowView, source=Trips, entity=Trips.pickup_community_area):
    trips_7d = fb.count("7d")
    fare_mean_30d = fb.mean(Trips.fare, "30d")
    tip_rate_30d = fb.mean(BIG_TIP, "30d")
    dropoffs_30d = fb.distinct(Trips.dropoff_community_area, "30d")
    fares = fb.last_k(Trips.fare, 2, "7d")


@fb.transform
def fare_against_usual(fare: fb.Expr = Trips.fare, usual: fb.Expr = PickupArea.fare_mean_30d) -> fb.Expr:
    """The fare beside what trips from here usually cost."""
    return fare / usual


@fb.model(
    task=fb.Binary(),
    rows=Trips,
    label=fb.Label(BIG_TIP, matures="1h"),
    features=[
        Company,
        PickupArea,
        fare_against_usual,
        Trips.fare,
        Trips.payment_type,
        Trips.pickup_community_area,
        Trips.dropoff_community_area,
        fb.row_time().hour().named("hour"),
        fb.row_time().weekday().named("weekday"),
    ],
    split=fb.by_time(test=0.2),
)
def tip(data: fb.Dataset, run: fb.Run) -> fb.Package:
    import lightgbm

    settings = {
        "objective": "binary",
        "learning_rate": 0.05,
        "num_leaves": 8,
        "min_data_in_leaf": 40,
        "lambda_l2": 10.0,
        "feature_fraction": 0.6,
        "seed": run.seed,
        "verbose": -1,
    }
    rows = lightgbm.Dataset(
        data.train.X, data.train.y, feature_name=list(data.features), categorical_feature=list(data.categorical)
    )
    return run.package(lightgbm.train(settings, rows, num_boost_round=80))


project = fb.Project(
    "taxi",
    services=[
        fb.Service(
            "tip",
            model=tip,
            load=fb.Load(rps=200, p99="20ms"),
            rollout=fb.Canary(steps=(10, 50, 100), hold="12h"),
            default=0.2,
            max_skew=0.02,  # about ten trips a day: a week has some hundred values to compare
            max_staleness="30d",  # a replay lets a day pass in a third of a second, and counts it as one
            retrain=fb.Retrain(on=[fb.quality_drop("auc", 0.05)], cooldown="90d"),
        )
    ],
)
