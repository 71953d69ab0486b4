"""Times and durations. All times are integers: microseconds since 1970-01-01 UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from flyball.kernel.errors import InvalidError

US = 1
MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"us": US, "ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")


def duration(value: str | timedelta | int) -> int:
    """A duration in microseconds from `"90s"`, `"1h30m"`, `"7d"`, a timedelta, or microseconds.

    >>> duration("1h30m") // MINUTE
    90
    """
    if isinstance(value, timedelta):
        return round(value.total_seconds() * SECOND)
    if isinstance(value, int):
        return value
    text = value.strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise InvalidError(
            f"{value!r} is not a duration; write a number and a unit, such as '500ms', '5m', '1h30m' or '7d'",
            code="bad_duration",
        )
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))


def show_duration(us: int) -> str:
    """The shortest exact spelling of a duration, as `duration` reads it.

    >>> show_duration(90 * MINUTE)
    '1h30m'
    """
    if us == 0:
        return "0s"
    text, rest = "", us
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", MILLISECOND), ("us", US)):
        count, rest = divmod(rest, size)
        if count:
            text += f"{count}{unit}"
    return text


def to_datetime(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def from_datetime(value: datetime) -> int:
    """Microseconds of an aware datetime; a naive one is read as UTC."""
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def show_time(us: int) -> str:
    """ISO 8601 in UTC, to the second where the rest is zero.

    >>> show_time(1_400_269_500 * SECOND)
    '2014-05-16T19:45:00Z'
    """
    return to_datetime(us).isoformat().replace("+00:00", "Z")


def parse_time(value: str | int | datetime) -> int:
    """Microseconds from ISO 8601 text, a datetime, or microseconds; a time without a zone is read as UTC."""
    if isinstance(value, int):
        return value
    if isinstance(value, datetime):
        return from_datetime(value)
    try:
        return from_datetime(datetime.fromisoformat(value))
    except ValueError:
        raise InvalidError(
            f"{value!r} is not a time; write ISO 8601, such as '2014-05-16T19:45:00Z'", code="bad_time"
        ) from None


def hop(window: int) -> int:
    """The hop to which the tail of a window of `window` microseconds is aligned (ARCHITECTURE, "Time, windows").

    >>> hop(7 * DAY) == HOUR
    True
    """
    if window <= 10 * MINUTE:
        return 5 * SECOND
    if window <= HOUR:
        return 30 * SECOND
    if window <= 12 * HOUR:
        return 5 * MINUTE
    if window <= 12 * DAY:
        return HOUR
    return DAY
