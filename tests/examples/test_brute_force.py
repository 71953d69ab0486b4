import pytest
from examples.taxi.brute_force import DAY, HOUR, Seen, Trip, equal, features, hop

T0 = 1_400_000_400  # not on an hour


def history(
    start: int, company: str = "A", pickup: str = "8", fare: str = "10.0", tips: str = "0", dropoff: str = ""
) -> Trip:
    return Trip(start, company, pickup, fare, tips, dropoff)


def seen(at: int, lsn: int = 0) -> Seen:
    return Seen(at=at, lsn=lsn, known_through=at)


def test_the_grid_is_that_of_the_architecture() -> None:
    assert [hop(w) for w in (600, 601, HOUR, HOUR + 1, 12 * HOUR, DAY, 12 * DAY, 13 * DAY)] == [
        5, 30, 30, 300, 300, HOUR, HOUR, DAY,
    ]  # fmt: skip


def test_an_event_at_the_rows_own_time_is_not_seen_and_history_only_after_an_hour() -> None:
    trips = [history(T0), history(T0 - HOUR + 1), history(T0 - HOUR)]
    assert features("A", "8", seen(T0), trips)["Company.trips_7d"] == 1.0


def test_a_live_trip_is_seen_by_its_lsn_alone() -> None:
    trips = [Trip(T0 - 60, "A", "8", "10", "0", lsn=5)]
    assert features("A", "8", seen(T0, lsn=4), trips)["Company.trips_7d"] == 0.0
    assert features("A", "8", seen(T0, lsn=5), trips)["Company.trips_7d"] == 1.0


def test_the_older_end_of_a_window_lies_on_the_grid() -> None:
    edge = (T0 - 7 * DAY) // HOUR * HOUR
    trips = [history(edge), history(edge - 1)]
    assert features("A", "8", seen(T0), trips)["Company.trips_7d"] == 1.0


def test_means_are_over_the_entity_and_an_empty_entity_has_the_defaults() -> None:
    trips = [history(T0 - DAY, fare="10.0", tips="3"), history(T0 - DAY, "B", "8", "20.0"), history(T0 - DAY, "", "")]
    found = features("A", "8", seen(T0), trips)
    assert found["Company.fare_mean_30d"] == 10.0
    assert found["Company.tip_rate_30d"] == 1.0
    assert found["PickupArea.fare_mean_30d"] == 15.0
    assert found["PickupArea.tip_rate_30d"] == 0.5
    empty = features("", "", seen(T0), trips)
    assert empty["Company.trips_7d"] == 0.0
    assert empty["PickupArea.fare_mean_30d"] is None


def test_dropoffs_are_counted_once_and_an_empty_one_never() -> None:
    trips = [history(T0 - DAY * n, dropoff=area) for n, area in enumerate(("3", "", "3", "32"), 1)]
    assert features("A", "8", seen(T0), trips)["PickupArea.dropoffs_30d"] == 2.0
    assert features("A", "", seen(T0), trips)["PickupArea.dropoffs_30d"] == 0.0


def test_the_last_fares_are_the_newest_of_the_week_and_of_one_time_the_later_row() -> None:
    trips = [history(T0 - DAY, fare="3"), history(T0 - 2 * DAY, fare="1"), history(T0 - DAY, fare="4")]
    found = features("A", "8", seen(T0), trips)
    assert (found["PickupArea.fares_1"], found["PickupArea.fares_2"]) == (4.0, 3.0)
    lone = features("A", "8", seen(T0), [history(T0 - DAY, fare="3"), history(T0 - 9 * DAY, fare="9")])
    assert (lone["PickupArea.fares_1"], lone["PickupArea.fares_2"]) == (3.0, None)


@pytest.mark.parametrize(
    ("expected", "served", "same"),
    [(None, None, True), (None, 0.0, False), (1.0, 1.0 + 1e-13, True), (1.0, 1.0 + 1e-11, False), (0.0, 0.0, True)],
)
def test_values_are_equal_to_a_relative_1e_12(expected: float | None, served: float | None, same: bool) -> None:
    assert equal(expected, served) is same
