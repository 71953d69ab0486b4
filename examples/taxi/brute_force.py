"""What the window features must be, computed the slow and plain way: for each request, a look at every trip.

Nothing of Flyball is used: the raw file, Python's integers and floats, and the rule of the interval:
`floor((t - W) / h) * h <= event_time < t`, of trips that were known by then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

HOUR, DAY = 3_600, 86_400


@dataclass(frozen=True, slots=True)
class Trip:
    """A row of the file. Times in seconds since 1970. `lsn` is None for history, which is known an hour after it.

    Trips are given in the order in which the platform took them: it decides which of several at one time is the newest.
    """

    start: int
    company: str
    pickup: str
    fare: str
    tips: str
    dropoff: str = ""
    lsn: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reply says that it saw: live trips up to `lsn`, and history that was known by `known_through`."""

    at: int
    lsn: int
    known_through: int


def hop(window: int) -> int:
    """The grid to which the older end of a window is aligned, in seconds."""
    for limit, step in ((10 * 60, 5), (HOUR, 30), (12 * HOUR, 300), (12 * DAY, HOUR)):
        if window <= limit:
            return step
    return DAY


def visible(trip: Trip, seen: Seen) -> bool:
    known = trip.start + HOUR <= seen.known_through if trip.lsn is None else trip.lsn <= seen.lsn
    return trip.start < seen.at and known


def features(company: str, pickup: str, seen: Seen, trips: Sequence[Trip]) -> dict[str, float | None]:
    """The window features of a request; an empty company or area belongs to no one and has the defaults."""
    oldest = (seen.at - 30 * DAY) // DAY * DAY
    near = [trip for trip in trips if oldest <= trip.start < seen.at and visible(trip, seen)]
    from_here = [trip for trip in near if pickup and trip.pickup == pickup]
    week, month = _windows(from_here, seen.at)
    newest = sorted(week, key=lambda trip: trip.start)[::-1]  # the sort is stable: of one time, the later one is newer
    return {
        **_view("Company", [trip for trip in near if company and trip.company == company], seen.at),
        **_view("PickupArea", from_here, seen.at),
        "PickupArea.dropoffs_30d": float(len({trip.dropoff for trip in month if trip.dropoff})),
        "PickupArea.fares_1": float(newest[0].fare) if newest else None,
        "PickupArea.fares_2": float(newest[1].fare) if len(newest) > 1 else None,
    }


def _windows(mine: Sequence[Trip], at: int) -> tuple[list[Trip], list[Trip]]:
    """The trips of the last 7 and of the last 30 days."""
    week = [trip for trip in mine if trip.start >= (at - 7 * DAY) // hop(7 * DAY) * hop(7 * DAY)]
    month = [trip for trip in mine if trip.start >= (at - 30 * DAY) // hop(30 * DAY) * hop(30 * DAY)]
    return week, month


def _view(view: str, mine: Sequence[Trip], at: int) -> dict[str, float | None]:
    week, month = _windows(mine, at)
    count = len(month)
    return {
        f"{view}.trips_7d": float(len(week)),
        f"{view}.fare_mean_30d": math.fsum(float(trip.fare) for trip in month) / count if count else None,
        f"{view}.tip_rate_30d": sum(float(t.tips) > 0.2 * float(t.fare) for t in month) / count if count else None,
    }


def equal(expected: float | None, served: float | None) -> bool:
    """Counts and nulls exactly; means to 1e-12 of their size, since sums of floats depend on their order."""
    if expected is None or served is None:
        return expected is served
    return math.isclose(expected, served, rel_tol=1e-12, abs_tol=0.0)
