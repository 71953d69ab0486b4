"""The data contract: rows as they came → a physical frame of what is good, and the reason for each row that is not.

Columns are judged whole. A row is quarantined for the first rule it breaks: its shape first, then its columns in their
declared order, then its times. Of the good rows with one key, the first is kept. So for every batch

    accepted + quarantined + duplicates == received

and accepted rows keep their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import polars as pl

from flyball.define.spec import ColumnSpec, SourceSpec
from flyball.ingest.deletions import deletions, keys_alone
from flyball.ingest.keys import as_series, event_words
from flyball.ingest.parsing import PHYSICAL, mask, outside, parse, times
from flyball.ingest.ports import Conditions, RefusedBatch
from flyball.ingest.rejection import DELETED, Rejected, Rule, explain, explain_rule, is_hidden, rule_value, shown
from flyball.ingest.rows import Rows
from flyball.ingest.rules import Came, judge_pushes, judge_rules, no_conditions
from flyball.ingest.seen import first_of
from flyball.ingest.verdict import Places, Verdict
from flyball.kernel.times import DAY

HORIZON_BEYOND_LATENESS = 7 * DAY  # how much longer than a source's lateness the keys of its events are kept
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """`frame`: physical, without `_lsn`; `_known_at` only for history. `places`: where each row of it stood.

    Of the pushes, `warnings` are the rows accepted with a warning by rule, and `refused` those of which nothing may be
    stored, by their number; where there are any, the others are to be checked again without them.
    """

    received: int
    frame: pl.DataFrame
    places: np.ndarray[tuple[int], np.dtype[np.int64]]
    rejected: tuple[Rejected, ...]
    rejected_places: tuple[int, ...]
    duplicate_places: tuple[int, ...]
    ignored: tuple[str, ...]
    warnings: tuple[dict[str, int], ...] = ()
    refused: dict[int, RefusedBatch] = field(default_factory=dict)


def check(
    rows: Rows,
    spec: SourceSpec,
    *,
    now: int,
    live: bool,
    came: Came | None = None,
    conditions: Conditions = no_conditions,
) -> Checked:
    """Judge a batch by its source's contract at domain time `now`.

    `live` events may not be older than the source's lateness and 7 days; history carries `_known_at` by the source's
    declaration. `came` says more of how they came; without it they are one push. `conditions` computes `fb.check`s.
    """
    came = came or Came(live=live, pushes=((0, rows.height),))
    deleted, unreadable = deletions(rows, spec)
    verdict = Verdict(rows.height, deleted)
    for (rule, column), places in _by_rule(rows).items():
        broken = np.zeros(rows.height, dtype=np.bool_)
        broken[places] = True
        verdict.mark(broken, rule, column)
    if unreadable is not None:
        verdict.mark(unreadable, Rule.WRONG_TYPE, DELETED)
    judged = rows if deleted is None else keys_alone(rows, spec, deleted)
    columns = [_judge(judged, column, spec, verdict) for column in spec.columns]
    # Its times are among the columns, where none was left out of judging.
    read = {c.name: v for c, v in zip(spec.columns, columns, strict=True) if judged is rows and _unit(c, spec)}
    event_time = _event_time(rows, spec, verdict, read, now=now, live=live)
    columns.append(event_time)
    if not live:
        columns.append(_known_at(rows, spec, verdict, read, event_time))
    if deleted is not None:
        columns.append(pl.Series(DELETED, deleted))
    whole = pl.DataFrame(columns)
    if spec.rules:
        judge_rules(whole, spec, verdict, came, conditions)
    kept = verdict.good
    good = np.flatnonzero(kept)
    words = event_words(whole, spec)  # of all rows: one pass less over the good ones
    if len(good) < len(words):
        words = words.take(good, axis=0)
    # With corrections, each row of a key is a version of it, and they keep their order.
    first = np.ones(len(good), np.bool_) if spec.corrections else first_of(words)
    if not first.all():
        kept[good[~first]] = False
        words = words.compress(first, axis=0)
    if len(words) < rows.height:
        whole = whole.filter(pl.Series(kept))
    frame = whole.hstack([as_series(words)])
    bad = np.flatnonzero(~verdict.good)
    rejected = _rejections(rows, spec, verdict, bad, now)
    said = judge_pushes(event_time, spec, verdict, rejected, bad.tolist(), came, now=now)
    return Checked(
        received=rows.height,
        frame=frame,
        places=good[first],
        rejected=rejected,
        rejected_places=tuple(bad.tolist()),
        duplicate_places=tuple(good[~first].tolist()),
        ignored=rows.ignored,
        warnings=said.warnings,
        refused=said.refused,
    )


def _by_rule(rows: Rows) -> dict[tuple[Rule, str], list[int]]:
    places: dict[tuple[Rule, str], list[int]] = {}
    for fault in rows.faults:
        places.setdefault((fault.rule, fault.column), []).append(fault.row)
    return places


def _judge(rows: Rows, column: ColumnSpec, spec: SourceSpec, verdict: Verdict) -> pl.Series:
    name = column.name
    raw = rows.columns[name]
    if name in rows.plain:
        return raw
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
        if verdict.deleted is not None and name not in spec.key:
            nulls &= ~verdict.deleted
        if name in rows.absent:
            verdict.mark(nulls & rows.absent[name], Rule.MISSING_COLUMN, name)
        verdict.mark(nulls, Rule.NULL, name)
    for rule, judge in _value_rules(column):
        broken = mask(judge(values))
        if column.on_violation == "warn" and rule is not Rule.UNKNOWN_CATEGORY:
            verdict.warn(broken, f"{name}.{rule}")
        else:
            verdict.mark(broken, rule, name)
    return values.alias(name)


def _unit(column: ColumnSpec, spec: SourceSpec) -> str:
    """The unit of a declared column that is also one of the source's times; empty: the column's type says it."""
    if column.type != "timestamp":
        return ""
    if column.name == spec.event_time:
        return _reading(spec, column.name, spec.event_time_unit)
    return _reading(spec, column.name, spec.known.unit) if column.name == spec.known.column else ""


def unit_of(spec: SourceSpec, name: str) -> str:
    """The unit in which a time is read, declared or not; empty: the name is none of the source's times."""
    for column in spec.columns:
        if column.name == name:
            return _unit(column, spec)
    return spec.event_time_unit if name == spec.event_time else spec.known.unit


def _reading(spec: SourceSpec, name: str, unit: str) -> str:
    """How a time is read: a declared timestamp as text or as microseconds, like every other declared timestamp."""
    declared = any(column.name == name for column in spec.columns)
    return "us_or_iso" if declared and unit in ("us", "iso") else unit


def _value_rules(column: ColumnSpec) -> list[tuple[Rule, Callable[[pl.Series], pl.Series]]]:
    """The rules over values that a column declares; each gives true where it is broken."""
    rules: list[tuple[Rule, Callable[[pl.Series], pl.Series]]] = []
    if column.type == "category" and column.categories:
        rules.append((Rule.UNKNOWN_CATEGORY, lambda s: outside(s, column.categories)))
    if column.max_length is not None:
        longest = column.max_length
        rules.append((Rule.MAX_LENGTH, lambda s: s.str.len_chars() > longest))
    if column.pattern:
        rules.append((Rule.PATTERN, lambda s: ~_matches(s, column.pattern)))
    ge, gt, le, lt = (bound(column, which) for which in ("ge", "gt", "le", "lt"))
    if ge is not None:
        rules.append((Rule.GE, lambda s: s < ge))
    if gt is not None:
        rules.append((Rule.GT, lambda s: s <= gt))
    if le is not None:
        rules.append((Rule.LE, lambda s: s > le))
    if lt is not None:
        rules.append((Rule.LT, lambda s: s >= lt))
    return rules


def bound(column: ColumnSpec, which: str) -> float | int | None:
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


def _event_time(
    rows: Rows, spec: SourceSpec, verdict: Verdict, read: Mapping[str, pl.Series], *, now: int, live: bool
) -> pl.Series:
    name = spec.event_time
    if name in rows.plain:
        values = rows.columns[name]
    else:
        deleted_at: int | pl.Series | None = now if live else None  # what a deletion need not bring
        if deleted_at is None and verdict.deleted is not None and spec.known.kind == "column":
            column = spec.known.column
            deleted_at = times(rows.columns[column], _reading(spec, column, spec.known.unit)).values
        values = _time(rows, name, spec.event_time_unit, spec, verdict, read, Rule.BAD_EVENT_TIME, deleted_at)
    verdict.mark(mask(values > now + spec.skew), Rule.AHEAD_OF_CLOCK, name)
    if live:
        verdict.mark(mask(values < now - spec.lateness - HORIZON_BEYOND_LATENESS), Rule.TOO_LATE, name)
    return values.alias("_event_time")


def _known_at(
    rows: Rows, spec: SourceSpec, verdict: Verdict, read: Mapping[str, pl.Series], event_time: pl.Series
) -> pl.Series:
    known = spec.known
    if known.kind == "column":
        values = _time(rows, known.column, known.unit, spec, verdict, read, Rule.BAD_KNOWN_AT)
    else:
        values = event_time + known.delay
    return values.alias("_known_at")


def _time(
    rows: Rows,
    name: str,
    unit: str,
    spec: SourceSpec,
    verdict: Verdict,
    read: Mapping[str, pl.Series],
    rule: Rule,
    deleted_at: int | pl.Series | None = None,
) -> pl.Series:
    """A time of each row; `deleted_at`: what it is where a deletion does not bring it. `read`: the times that were read
    already, since they are declared columns as well."""
    raw = rows.columns[name]
    values = read[name] if name in read else times(raw, _reading(spec, name, unit)).values
    if deleted_at is not None and verdict.deleted is not None:
        other = pl.Series([deleted_at]).new_from_index(0, len(raw)) if isinstance(deleted_at, int) else deleted_at
        values = values.zip_with(raw.is_not_null() | ~pl.Series(verdict.deleted), other)
    broken = mask(values.is_null())  # absent, null, or not readable: no event without its times
    if name in rows.unfit:
        broken = broken | rows.unfit[name]
    verdict.mark(broken, rule, name)
    return values


def _rejections(rows: Rows, spec: SourceSpec, verdict: Verdict, bad: Places, now: int) -> tuple[Rejected, ...]:
    declared = {rule.name: rule for rule in spec.rules}
    places: list[int] = bad.tolist()
    shape = {fault.row: fault for fault in reversed(rows.faults)}
    rejected = []
    told: dict[tuple[Rule | str, str, str | None], str] = {}  # most bad rows of a batch are alike
    hidden: dict[str, bool] = {}
    originals = rows.originals(places) if places else []
    for place, row, (rule, column) in zip(places, originals, verdict.of(bad), strict=True):
        fault = shape.get(place)
        own = None if isinstance(rule, Rule) else declared[rule]
        if own is not None:
            value: str | None = rule_value(spec, own, row)
        elif fault is not None and not column:
            value = None if fault.value is None else str(fault.value)
        else:
            if column not in hidden:
                hidden[column] = is_hidden(spec, column)
            value = shown(row.get(column), hidden=hidden[column])
        reason = (rule, column, value)
        if reason not in told:
            told[reason] = (
                explain_rule(spec, own, value) if own is not None else explain(spec, Rule(rule), column, value, now=now)
            )
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
