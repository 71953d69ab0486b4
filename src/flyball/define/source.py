"""Sources: streams of events, their contract, and when they were known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from flyball.define.algebra import Expr, RowTime
from flyball.define.column import Column
from flyball.define.declaration import Declared, besides, check_name, description_of, members, seal
from flyball.define.mistake import mistake
from flyball.define.origin import Sql
from flyball.define.rule import Rule, rule_specs
from flyball.define.spec import KnownSpec, OriginSpec, SourceSpec
from flyball.kernel.errors import did_you_mean
from flyball.kernel.times import duration

_RESERVED = ("any",)
_TABLES = ("predictions", "quarantine")  # tables of the platform beside those of sources
TimeUnit = Literal["s", "ms", "us", "iso"]


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """A column of what is pushed that holds a time, and how it is written; it need not be declared."""

    column: str
    unit: TimeUnit


def epoch(column: str, unit: Literal["s", "ms", "us"] = "s") -> TimeColumn:
    """A column that counts `unit`s since 1970-01-01 UTC."""
    if unit not in ("s", "ms", "us"):
        raise mistake(f"fb.epoch counts 's', 'ms' or 'us', not {unit!r}")
    return TimeColumn(column, unit)


def iso(column: str) -> TimeColumn:
    """A column that holds ISO 8601 text; without a zone it is read as UTC."""
    return TimeColumn(column, "iso")


@dataclass(frozen=True, slots=True)
class RowKey:
    """The whole row is its key: two equal rows are one event."""


def row_key() -> RowKey:
    """For events without an id: a digest of the whole row is the key, so an equal row is a duplicate."""
    return RowKey()


@dataclass(frozen=True, slots=True)
class Known:
    """When history was known."""

    delay: int = 0
    at: str | TimeColumn | None = None


def delay(after: str) -> Known:
    """History was known this long after its event time, such as `fb.delay("1h")`."""
    return Known(delay=_not_negative("fb.delay", after))


def known_at(column: str | TimeColumn) -> Known:
    """History was known at the time in a column: a declared `fb.Timestamp`, or `fb.epoch(…)` or `fb.iso(…)`."""
    return Known(at=column)


@dataclass(frozen=True, slots=True)
class AnyEvent:
    """Whether a source has an event for the row within a time after it; see `Source.any`."""

    source: type[Source]
    on: Column
    rows_on: Column
    within: int
    where: Expr | None


class Source(metaclass=Declared):
    """A stream of events. Subclass it and declare columns.

    Class keywords:
        event_time: the name of a declared `fb.Timestamp`, or `fb.epoch(…)` or `fb.iso(…)` of any column that is pushed.
        key: the column, or the columns, that identify an event; or `fb.row_key()`.
        known: when history was known (`fb.delay`, `fb.known_at`); without it, history cannot be loaded.
        skew: events further ahead of the clock than this are quarantined.
        lateness: how late an event may come and still count.
        retention: how long events are kept; for ever where it is not said.
        owner: who answers for it.
        corrections: a later event with the key of an earlier one takes its place from when it is known, and one with
            `"_deleted": true` takes it away. Without it, of events with one key the first counts.
        origin: where the platform pulls its events from (`fb.Sql`); without it, they are pushed or loaded.

    Rules beyond one column stand in the body too: `fb.check`, `fb.unique`, `fb.fresh`, `fb.volume`.
    """

    _noun = "column"
    _spec: ClassVar[SourceSpec]
    _columns: ClassVar[dict[str, Column]]

    def __init_subclass__(
        cls,
        *,
        event_time: str | TimeColumn,
        key: str | tuple[str, ...] | RowKey,
        known: Known | None = None,
        skew: str = "5s",
        lateness: str = "1d",
        retention: str | None = None,
        owner: str = "",
        corrections: bool = False,
        origin: Sql | None = None,
        base: bool = False,
    ) -> None:
        if base:  # `fb.Derived`: a kind of source, not a source
            return
        check_name(cls.__name__, cls.__name__, reserved=_TABLES)
        if cls.__mro__[1] is not Source and issubclass(cls.__mro__[1], Source):
            raise mistake(f"{cls.__name__} extends the source {cls.__mro__[1].__name__}; declare a source of its own")
        declared = members(cls, Column, "column", "fb.Float()", reserved=_RESERVED, beside=(Rule,))
        columns = {name: column.bound(cls, name) for name, column in declared.items()}
        time_column, unit = _time(cls.__name__, "event_time", event_time, columns)
        cls._columns = columns
        cls._spec = SourceSpec(
            name=cls.__name__,
            columns=tuple(column.spec for column in columns.values()),
            event_time=time_column,
            event_time_unit=unit,
            key=_key(cls.__name__, key, columns),
            known=_known(cls.__name__, known, columns),
            skew=_not_negative(f"{cls.__name__}: skew", skew),
            lateness=_not_negative(f"{cls.__name__}: lateness", lateness),
            retention=None if retention is None else _not_negative(f"{cls.__name__}: retention", retention),
            owner=owner,
            description=description_of(cls),
            corrections=_corrections(cls.__name__, corrections, key),
            rules=rule_specs(cls.__name__, besides(cls, Rule), declared),
            origin=_origin(cls.__name__, origin),
        )
        seal(cls, columns)

    @classmethod
    def any(cls, *, on: Column | Expr, within: str, where: Expr | None = None) -> AnyEvent:
        """Whether this source has an event for a row, within `within` after the row's time; for `fb.Label`.

        Args:
            on: the rows' column that this source has under the same name (`Payments.id`), or an equality of
                a column of each (`Chargebacks.payment == Payments.id`).
            where: which events of this source count.
        """
        mine, theirs = _join(cls, on)
        if where is not None:
            check_condition(f"{cls.__name__}.any(where=…)", where, cls)
        length = _not_negative(f"{cls.__name__}.any(within=…)", within)
        if not length:
            raise mistake(f"{cls.__name__}.any(within=…) must be longer than 0")
        return AnyEvent(cls, mine, theirs, length, where)


class Request(metaclass=Declared):
    """Fields that only a request has. Subclass it and declare columns; for pretrained models."""

    _noun = "column"
    _columns: ClassVar[dict[str, Column]]

    def __init_subclass__(cls) -> None:
        check_name(cls.__name__, cls.__name__)
        declared = members(cls, Column, "column", "fb.Float()", reserved=())
        cls._columns = {name: column.bound(cls, name) for name, column in declared.items()}
        seal(cls, cls._columns)


def check_condition(shown: str, condition: Expr, source: type) -> None:
    """A condition over the columns of one source."""
    given: object = condition
    if not isinstance(given, Expr) or given.type != "boolean":
        raise mistake(f"{shown} is not a condition; write a comparison, such as {source.__name__}.column > 0")
    check_columns(shown, condition, source)


def check_columns(shown: str, expr: Expr, source: type) -> None:
    """Refuse an expression that reads anything but columns of `source`."""
    for leaf in expr.leaves():
        if isinstance(leaf, RowTime):
            continue  # the event's own time
        if not isinstance(leaf, Column) or leaf.owner is not source:
            raise mistake(
                f"{shown} reads {leaf!r}; it may read columns of {source.__name__} only", code="foreign_column"
            )


def _time(source: str, keyword: str, given: str | TimeColumn, columns: dict[str, Column]) -> tuple[str, TimeUnit]:
    if isinstance(given, TimeColumn):
        declared = columns.get(given.column)
        if declared is not None and declared.type == "timestamp":
            raise mistake(
                f"{source}: {keyword} reads {given.column!r} as a number or text, and it is declared fb.Timestamp()",
                hint=f"write {keyword}={given.column!r}, or leave the column out of the class",
            )
        return given.column, given.unit
    if not isinstance(given, str):
        raise mistake(
            f"{source}: {keyword} is {given!r}; write the name of a column in quotes, since the class is not there yet"
        )
    column = columns.get(given)
    if column is None:
        raise mistake(
            f"{source}: {keyword} {given!r} is not a declared column; {did_you_mean(given, columns)}",
            hint=f"or read a column that is not declared: fb.epoch({given!r}) or fb.iso({given!r})",
            code="unknown_column",
        )
    if column.type != "timestamp":
        raise mistake(
            f"{source}: {keyword} {given!r} is declared {column.type}, not fb.Timestamp()",
            hint=f"write fb.Timestamp(), or fb.epoch({given!r}) where it counts seconds",
        )
    if column.spec.nullable:
        raise mistake(f"{source}: {keyword} {given!r} may be missing (nullable=True); each event needs its time")
    return given, "iso"  # as text or as a datetime


def _key(source: str, key: str | tuple[str, ...] | RowKey, columns: dict[str, Column]) -> tuple[str, ...]:
    if isinstance(key, RowKey):
        return ()
    names = (key,) if isinstance(key, str) else tuple(key)
    if not names:
        raise mistake(f"{source}: key is empty; name a column, or write key=fb.row_key()")
    for name in names:
        if name not in columns:
            raise mistake(
                f"{source}: the key {name!r} is not a declared column; {did_you_mean(str(name), columns)}",
                code="unknown_column",
            )
        if columns[name].spec.nullable:
            raise mistake(f"{source}: the key {name!r} may be missing (nullable=True); each event needs its key")
    return names


def _corrections(source: str, corrections: bool, key: object) -> bool:
    if corrections and isinstance(key, RowKey):
        raise mistake(
            f"{source}: corrections=True needs a key that a correction repeats, and key=fb.row_key() is the whole row",
            hint='write key="id", with the column that identifies an event',
        )
    return bool(corrections)


def _known(source: str, known: Known | None, columns: dict[str, Column]) -> KnownSpec:
    if known is None:
        return KnownSpec()
    if not isinstance(known, Known):
        raise mistake(f'{source}: known is {known!r}; write fb.delay("1h") or fb.known_at("column")')
    if known.at is None:
        return KnownSpec(kind="delay", delay=known.delay)
    column, unit = _time(source, "known", known.at, columns)
    return KnownSpec(kind="column", column=column, unit=unit)


def _origin(source: str, origin: Sql | None) -> OriginSpec | None:
    if origin is None:
        return None
    if not isinstance(origin, Sql):
        # What was given may be an address with a password, so it is not repeated.
        raise mistake(
            f"{source}: origin is not an origin", hint='write origin=fb.Sql(fb.secret("PG_DSN"), "SELECT …", …)'
        )
    return origin.spec


def _not_negative(shown: str, value: str) -> int:
    length = duration(value)
    if length < 0:
        raise mistake(f"{shown} is {value!r}; a length of time is not negative")
    return length


def _join(source: type[Source], on: Expr) -> tuple[Column, Column]:
    """The column of the label's source and the column of the rows that must be equal."""
    if isinstance(on, Column):
        mine = source._columns.get(on.name)
        if mine is None:
            raise mistake(
                f"{source.__name__} has no column {on.name!r} to equal {on!r}; "
                f"{did_you_mean(on.name, source._columns)}",
                hint=f"or write on={source.__name__}.column == {on!r}",
                code="unknown_column",
            )
        return _same_family(mine, on)
    given: object = on
    sides = given._args if isinstance(given, Expr) and given._op == "eq" else ()
    if len(sides) == 2 and all(isinstance(side, Column) for side in sides):
        left, right = sides
        if left.owner is source and right.owner is not source:
            return _same_family(left, right)
        if right.owner is source and left.owner is not source:
            return _same_family(right, left)
    raise mistake(
        f"{source.__name__}.any(on=…) takes a column of the rows, or an equality of two columns, not {on!r}",
        hint=f"such as on=Payments.id, or on={source.__name__}.payment == Payments.id",
    )


def _same_family(mine: Column, theirs: Column) -> tuple[Column, Column]:
    mine == theirs  # noqa: B015  (building the comparison checks the types)
    return mine, theirs
