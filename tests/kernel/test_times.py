from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.kernel.errors import InvalidError
from flyball.kernel.times import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    duration,
    from_datetime,
    hop,
    parse_time,
    show_duration,
    show_time,
    to_datetime,
)


@settings(max_examples=60)
@given(st.integers(min_value=0, max_value=400 * DAY))
def test_a_shown_duration_reads_back_as_itself(us: int) -> None:
    assert duration(show_duration(us)) == us


@settings(max_examples=60)
@given(st.integers(min_value=-(10**15), max_value=4 * 10**15))
def test_a_shown_time_reads_back_as_itself(us: int) -> None:
    assert parse_time(show_time(us)) == us
    assert from_datetime(to_datetime(us)) == us


def test_durations_are_read_from_text_timedeltas_and_microseconds() -> None:
    assert duration("1h30m") == 90 * MINUTE
    assert duration("0.5s") == SECOND // 2
    assert duration(timedelta(days=7)) == duration("1w") == 7 * DAY
    assert duration(17) == 17


@pytest.mark.parametrize("text", ["", "7", "7 days", "d7", "1h-3m", "7d!"])
def test_text_that_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidError, match="such as '500ms'") as caught:
        duration(text)
    assert caught.value.code == "bad_duration"


def test_a_time_without_a_zone_is_utc_and_an_offset_is_honoured() -> None:
    assert parse_time("2014-05-16T19:45:00") == parse_time("2014-05-16T21:45:00+02:00")
    assert parse_time(datetime(2014, 5, 16, tzinfo=UTC)) == parse_time("2014-05-16")


def test_text_that_is_no_time_is_refused() -> None:
    with pytest.raises(InvalidError) as caught:
        parse_time("yesterday")
    assert caught.value.code == "bad_time"


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (10 * MINUTE, 5 * SECOND),
        (10 * MINUTE + 1, 30 * SECOND),
        (HOUR, 30 * SECOND),
        (HOUR + 1, 5 * MINUTE),
        (12 * HOUR, 5 * MINUTE),
        (12 * HOUR + 1, HOUR),
        (12 * DAY, HOUR),
        (12 * DAY + 1, DAY),
    ],
)
def test_the_hop_changes_exactly_at_its_borders(window: int, expected: int) -> None:
    assert hop(window) == expected
