"""The data contract: rows as they came → a physical frame of what is good, and the reason for each row that is not.

Columns are judged whole. A row is quarantined for the first rule it breaks: its shape first, then its columns in their
declared order, then its times. Of the good rows with one key, the first is kept. So for every batch

    accepted + quarantined + duplicates == received

and accepted rows keep their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import polars as pl

from flyball.define.spec import ColumnSpec, SourceSpec
from flyball.ingest.keys import as_series, event_words
from flyball.ingest.parsing import PHYSICAL, Mask, mask, parse, times
from flyball.ingest.rejection import Rejected, Rule, explain, shown_value
from flyball.ingest.rows import Rows
from flyball.ingest.seen import first_of
from flyball.kernel.times import DAY

HORIZON_BEYOND_LATENESS = 7 * DAY  # how much longer than a source's lateness the keys of its events are kept
RULES = tuple(Rule)
# Patterns with one meaning in Python and in Rust: ASCII literals and classes, groups, alternatives, counts.
_PORTABLE = re.compile(
    r"""(?: [A-Za-z0-9_@:/=,;!<>'"] | -
        | \\[.+*?()|\[\]{}^$/-]
        | \[\^?(?: [A-Za-z0-9]-[A-Za-z0-9] | [A-Za-z0-9_@:/=,.+] )+\]
        | \((?:\?:)? | \) | \|
        | (?: [*+?] | \{[0-9]+(?:,[0-9]*)?\} )(?![+*{])
    )*""",
    re.VERBOSE,
)
_CODE = {rule: number for number, rule in enumerate(RULES, start=1)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """`frame`: physical, without `_lsn`; `_known_at` only for history. `places`: where each row of it stood."""

    received: int
    frame: pl.DataFrame
    places: np.ndarray[tuple[int], np.dtype[np.int64]]
    rejected: tuple[Rejected, ...]
    rejected_places: tuple[int, ...]
    duplicate_places: tuple[int, ...]
    ignored: tuple[str, ...]


class _Verdict:
    """The first rule that each row broke (0: none) and the column it broke it in."""

    def __init__(self, height: int) -> None:
        self.rule = np.zeros(height, dtype=np.int8)
        self.column = np.full(height, -1, dtype=np.int16)
        self.names: list[str] = []

    def mark(self, rows: Mask, rule: Rule, column: str) -> None:
        new = rows & (self.rule == 0)
        if new.any():
            if column not in self.names:
                self.names.append(column)
            self.rule[new] = _CODE[rule]
            self.column[new] = self.names.index(column)


def check(rows: Rows, spec: SourceSpec, *, now: int, live: bool) -> Checked:
    """Judge a batch by its source's contract at domain time `now`.

    `live` events may not be older than the source's lateness and 7 days; history carries `_known_at` by the source's
    declaration.
    """
    verdict = _Verdict(rows.height)
    for (rule, column), places in _by_rule(rows).items():
        broken = np.zeros(rows.height, dtype=np.bool_)
        broken[places] = True
        verdict.mark(broken, rule, column)
    columns = [_judge(rows, column, spec, verdict) for column in spec.columns]
    event_time = _event_time(rows, spec, verdict, now=now, live=live)
    columns.append(event_time)
    if not live:
        columns.append(_known_at(rows, spec, verdict, event_time))
    good = np.flatnonzero(verdict.rule == 0)
    frame = pl.DataFrame(columns)[good] if len(good) < rows.height else pl.DataFrame(columns)
    words = event_words(frame, spec)
    frame = frame.with_columns(as_series(words))
    first = first_of(words)
    bad = np.flatnonzero(verdict.rule)
    return Checked(
        received=rows.height,
        frame=frame if first.all() else frame.filter(pl.Series(first)),
        places=good[first],
        rejected=_rejections(rows, spec, verdict, bad, now),
        rejected_places=tuple(bad.tolist()),
        duplicate_places=tuple(good[~first].tolist()),
        ignored=rows.ignored,
    )


def _by_rule(rows: Rows) -> dict[tuple[Rule, str], list[int]]:
    places: dict[tuple[Rule, str], list[int]] = {}
    for fault in rows.faults:
        places.setdefault((fault.rule, fault.column), []).append(fault.row)
    return places


def _judge(rows: Rows, column: ColumnSpec, spec: SourceSpec, verdict: _Verdict) -> pl.Series:
    name = column.name
    raw = rows.columns[name]
    unit = _unit(column, spec)
    parsed = times(raw, unit) if unit else parse(raw, column)
    if name in rows.unfit:
        verdict.mark(rows.unfit[name], Rule.WRONG_TYPE, name)
    for rule, broken in parsed.faults.items():
        verdict.mark(broken, rule, name)
    values = parsed.values
    if values.dtype != PHYSICAL[column.type]:
        values = values.cast(PHYSICAL[column.type])
    if not column.nullable and values.null_count():
        nulls = mask(values.is_null())
        if name in rows.absent:
            verdict.mark(nulls & rows.absent[name], Rule.MISSING_COLUMN, name)
        verdict.mark(nulls, Rule.NULL, name)
    for rule, judge in _value_rules(column):
        verdict.mark(mask(judge(values)), rule, name)
    return values.alias(name)


def _unit(column: ColumnSpec, spec: SourceSpec) -> str:
    """The unit of a declared column that is also one of the source's times; empty: the column's type says it."""
    if column.type != "timestamp":
        return ""
    if column.name == spec.event_time:
        return _reading(spec, column.name, spec.event_time_unit)
    return _reading(spec, column.name, spec.known.unit) if column.name == spec.known.column else ""


def _reading(spec: SourceSpec, name: str, unit: str) -> str:
    """How a time is read: a declared timestamp as text or as microseconds, like every other declared timestamp."""
    declared = any(column.name == name for column in spec.columns)
    return "us_or_iso" if declared and unit in ("us", "iso") else unit


def _value_rules(column: ColumnSpec) -> list[tuple[Rule, Callable[[pl.Series], pl.Series]]]:
    """The rules over values that a column declares; each gives true where it is broken."""
    rules: list[tuple[Rule, Callable[[pl.Series], pl.Series]]] = []
    if column.type == "category" and column.categories:
        rules.append((Rule.UNKNOWN_CATEGORY, lambda s: ~s.is_in(list(column.categories))))
    if column.max_length is not None:
        longest = column.max_length
        rules.append((Rule.MAX_LENGTH, lambda s: s.str.len_chars() > longest))
    if column.pattern:
        rules.append((Rule.PATTERN, lambda s: ~_matches(s, column.pattern)))
    ge, gt, le, lt = (_bound(column, which) for which in ("ge", "gt", "le", "lt"))
    if ge is not None:
        rules.append((Rule.GE, lambda s: s < ge))
    if gt is not None:
        rules.append((Rule.GT, lambda s: s <= gt))
    if le is not None:
        rules.append((Rule.LE, lambda s: s > le))
    if lt is not None:
        rules.append((Rule.LT, lambda s: s >= lt))
    return rules


def _bound(column: ColumnSpec, which: str) -> float | int | None:
    """A bound in physical units: a decimal's is exact, rounded to the unit in the direction that keeps its meaning."""
    value: float | None = getattr(column, which)
    if value is None or column.type == "float":
        return value
    scaled = Decimal(repr(value)).scaleb(column.scale if column.type == "decimal" else 0)
    return int(scaled.to_integral_value(ROUND_CEILING if which in ("ge", "lt") else ROUND_FLOOR))


def _matches(series: pl.Series, pattern: str) -> pl.Series:
    """Python's meaning of the pattern; null stays null. Where the engine of Polars means the same, it judges whole
    columns; else Python does, over the distinct texts."""
    whole = re.compile(pattern)
    if _PORTABLE.fullmatch(pattern):
        try:
            return series.str.contains(rf"\A(?:{pattern})\z")
        except pl.exceptions.ComputeError:
            pass  # too large for that engine
    texts = series.unique().drop_nulls()
    fit = texts.filter(pl.Series([whole.fullmatch(text) is not None for text in texts], dtype=pl.Boolean))
    return series.is_in(fit.to_list())


def _event_time(rows: Rows, spec: SourceSpec, verdict: _Verdict, *, now: int, live: bool) -> pl.Series:
    name = spec.event_time
    values = _time(rows, name, spec.event_time_unit, spec, verdict, Rule.BAD_EVENT_TIME)
    verdict.mark(mask(values > now + spec.skew), Rule.AHEAD_OF_CLOCK, name)
    if live:
        verdict.mark(mask(values < now - spec.lateness - HORIZON_BEYOND_LATENESS), Rule.TOO_LATE, name)
    return values.alias("_event_time")


def _known_at(rows: Rows, spec: SourceSpec, verdict: _Verdict, event_time: pl.Series) -> pl.Series:
    known = spec.known
    if known.kind == "column":
        values = _time(rows, known.column, known.unit, spec, verdict, Rule.BAD_KNOWN_AT)
    else:
        values = event_time + known.delay
    return values.alias("_known_at")


def _time(rows: Rows, name: str, unit: str, spec: SourceSpec, verdict: _Verdict, rule: Rule) -> pl.Series:
    parsed = times(rows.columns[name], _reading(spec, name, unit))
    broken = mask(parsed.values.is_null())  # absent, null, or not readable: no event without its times
    if name in rows.unfit:
        broken = broken | rows.unfit[name]
    verdict.mark(broken, rule, name)
    return parsed.values


def _rejections(
    rows: Rows, spec: SourceSpec, verdict: _Verdict, bad: np.ndarray[tuple[int], np.dtype[np.intp]], now: int
) -> tuple[Rejected, ...]:
    places: list[int] = bad.tolist()
    shape = {fault.row: fault for fault in reversed(rows.faults)}
    rejected = []
    told: dict[tuple[Rule, str, str | None], str] = {}  # most bad rows of a batch are alike
    for place, row in zip(places, rows.originals(places) if places else [], strict=True):
        rule, column = RULES[verdict.rule[place] - 1], verdict.names[verdict.column[place]]
        fault = shape.get(place)
        if fault is not None and not column:
            value = None if fault.value is None else str(fault.value)
        else:
            value = shown_value(spec, column, row.get(column))
        reason = (rule, column, value)
        if reason not in told:
            told[reason] = explain(spec, rule, column, value, now=now)
        rejected.append(
            Rejected(
                row=row,
                position=place + 1 if rows.positions is None else rows.positions[place],
                rule=rule,
                column=column,
                value=value,
                message=told[reason],
            )
        )
    return tuple(rejected)
