"""The project that ARCHITECTURE shows, word for word; the body of the training function aside."""

import flyball as fb


class Trips(fb.Source, event_time=fb.epoch("trip_start_timestamp"), key=fb.row_key(), known=fb.delay("1h")):
    company = fb.String(nullable=True)
    payment_type = fb.Category("Cash", "Credit Card", "No Charge", "Dispute", "Pcard", "Prcard", "Unknown")
    fare = fb.Decimal(2, ge=0, le=1_000)
    tips = fb.Decimal(2, ge=0)


class CompanyTrips(fb.WindowView, source=Trips, entity=Trips.company):
    trips_7d = fb.count("7d")
    fare_mean_30d = fb.mean(Trips.fare, "30d")
    tip_rate_30d = fb.mean(Trips.tips > 0.2 * Trips.fare, "30d")


@fb.transform
def fare_against_usual(fare: fb.Expr = Trips.fare, usual: fb.Expr = CompanyTrips.fare_mean_30d) -> fb.Expr:
    return fare / usual


@fb.model(
    task=fb.Binary(),
    rows=Trips,
    label=fb.Label(Trips.tips > 0.2 * Trips.fare, matures="1h"),
    features=[CompanyTrips, fare_against_usual, Trips.fare, Trips.payment_type],
    split=fb.by_time(test=0.2),
)
def tip(data: fb.Dataset, run: fb.Run) -> fb.Package:
    booster = (data.features, run.seed)
    return run.package(booster)


project = fb.Project(
    "taxi",
    services=[
        fb.Service(
            "tip",
            model=tip,
            load=fb.Load(rps=200, p99="20ms"),
            rollout=fb.Canary(steps=(1, 5, 25, 100)),
            default=0.1,
            retrain=fb.Retrain(
                on=[fb.every("1d"), fb.drift(), fb.quality_drop("auc", 0.03)], cooldown="6h", review="auto"
            ),
        )
    ],
)
