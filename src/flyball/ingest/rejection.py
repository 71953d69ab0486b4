"""Why a row was not accepted: the rules, and what a person is told about each.

A message names the column, the value, and what would be right. The value of a pii column is never shown; neither is
that of a column the contract does not know, where the source has any pii column, since it may be a misspelled one.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from flyball.define.expression import columns_of
from flyball.define.rule import told
from flyball.define.spec import ColumnSpec, RuleSpec, SourceSpec
from flyball.kernel.times import show_duration, show_time

DELETED = "_deleted"  # what marks a row as the deletion of the event with its key
HIDDEN = "[pii]"
_SHOWN = 80  # characters of a value that a message repeats


class Rule(StrEnum):
    """What a row broke. Stable: clients match on these names."""

    NOT_AN_OBJECT = "not_an_object"
    BAD_JSON = "bad_json"
    FIELD_COUNT = "field_count"
    BAD_QUOTES = "bad_quotes"
    UNKNOWN_COLUMN = "unknown_column"
    MISSING_COLUMN = "missing_column"
    NULL = "null"
    WRONG_TYPE = "wrong_type"
    TOO_MANY_DIGITS = "too_many_digits"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_CATEGORY = "unknown_category"
    GE = "ge"
    GT = "gt"
    LE = "le"
    LT = "lt"
    PATTERN = "pattern"
    MAX_LENGTH = "max_length"
    BAD_EVENT_TIME = "bad_event_time"
    BAD_KNOWN_AT = "bad_known_at"
    AHEAD_OF_CLOCK = "ahead_of_clock"
    TOO_LATE = "too_late"
    NO_CORRECTIONS = "no_corrections"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """One quarantined row. `position` counts from 1 within the push or file; `value` is text, redacted where pii.

    `rule` is one that every source has, or the name of one that this source declares.
    """

    row: dict[str, Any]
    position: int
    rule: Rule | str
    column: str
    value: str | None
    message: str

    def to_data(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "position": self.position,
            "rule": str(self.rule),
            "column": self.column,
            "value": self.value,
            "message": self.message,
        }


def suggestion(name: str, known: list[str]) -> str:
    """`; did you mean 'fare'?`, or nothing where no name is near."""
    folded = {k.casefold().replace(" ", "_"): k for k in known}
    near = difflib.get_close_matches(name.casefold().replace(" ", "_"), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def shown_value(spec: SourceSpec, column: str, value: Any) -> str | None:
    """A value as a message may repeat it; None for null."""
    return shown(value, hidden=value is not None and is_hidden(spec, column))


def is_hidden(spec: SourceSpec, column: str) -> bool:
    """Whether no message may repeat what a row has under this name: a name that nobody declared may hide anything."""
    for declared in spec.columns:
        if declared.name == column:
            return declared.pii
    return column not in (*readable(spec), DELETED) and any(c.pii for c in spec.columns)


def shown(value: Any, *, hidden: bool) -> str | None:
    """`shown_value`, where it is known whether the column's values are hidden."""
    if value is None:
        return None
    if hidden:
        return HIDDEN
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def readable(spec: SourceSpec) -> list[str]:
    """The names that a row of the source may carry: its columns, its event time, and the time it was known."""
    names = [column.name for column in spec.columns]
    for extra in (spec.event_time, spec.known.column):
        if extra and extra not in names:
            names.append(extra)
    return names


def carried(spec: SourceSpec, present: Collection[str]) -> list[str]:
    """The names to take from a table or file with the columns `present`: `readable`, and the mark of deletions."""
    return [*readable(spec), *([DELETED] if spec.corrections and DELETED in present else [])]


def redact(spec: SourceSpec, row: dict[str, Any]) -> dict[str, Any]:
    """The row as a reader without a right to pii may see it."""
    shown = {name: shown_value(spec, name, value) for name, value in row.items()}
    return {
        name: value if isinstance(value, int | float) and shown[name] != HIDDEN else shown[name]
        for name, value in row.items()
    }


def explain(spec: SourceSpec, rule: Rule, column: str, value: str | None, *, now: int) -> str:
    """The message of one rejection. `value` is already fit to be shown."""
    if rule is Rule.NO_CORRECTIONS:
        return f"source {spec.name} takes no deletions; {CORRECTIONS.format(source=spec.name)}"
    if rule is Rule.WRONG_TYPE and column == DELETED:
        return f"{column} is {_say(value)}; send true or false"
    if rule in _SHAPE:
        return _SHAPE[rule].format(source=spec.name, value=value)
    if rule is Rule.UNKNOWN_COLUMN:
        return f"source {spec.name} has no column {column!r}{suggestion(column, readable(spec))}"
    if rule in (Rule.BAD_EVENT_TIME, Rule.BAD_KNOWN_AT):
        unit = spec.event_time_unit if rule is Rule.BAD_EVENT_TIME else spec.known.unit
        what = "event time" if rule is Rule.BAD_EVENT_TIME else "time it was known"
        return f"{column} is the {what} and is {_say(value)}; send {_UNITS[unit]}"
    if rule is Rule.AHEAD_OF_CLOCK:
        return (
            f"{column} is {_say(value)}, ahead of the clock at {show_time(now)} by more than the skew of "
            f"{show_duration(spec.skew)}; check the sender's clock and the unit ({_UNITS[spec.event_time_unit]})"
        )
    if rule is Rule.TOO_LATE:
        return (
            f"{column} is {_say(value)}, older than the lateness of {show_duration(spec.lateness)} and 7 days before "
            f"{show_time(now)}; load it as history, or declare a longer lateness"
        )
    declared = {c.name: c for c in spec.columns}.get(column)
    return _explain_value(spec, declared, rule, column, value)


def explain_rule(spec: SourceSpec, rule: RuleSpec, value: str | None) -> str:
    """The message where a row breaks a rule that its source declares."""
    return f"{rule.name}: the rule of {spec.name} is that {told(rule)}; this row has {value or 'nothing of it'}"


def rule_value(spec: SourceSpec, rule: RuleSpec, row: dict[str, Any]) -> str:
    """What a row has in the columns that a rule reads, fit to be shown: `tips = '3', fare = '1'`."""
    names = rule.columns or tuple(sorted(columns_of(rule.expr or ["lit", True], spec.name)))
    return ", ".join(f"{name} = {_say(shown_value(spec, name, row.get(name)))}" for name in names)


def _explain_value(spec: SourceSpec, declared: ColumnSpec | None, rule: Rule, column: str, value: str | None) -> str:
    if declared is None or rule in (Rule.NULL, Rule.MISSING_COLUMN):
        state = "is absent" if rule is Rule.MISSING_COLUMN else "is null"
        return f"{column} {state} and source {spec.name} needs it; send a value, or declare it nullable"
    if rule is Rule.UNKNOWN_CATEGORY:
        guess = suggestion(value or "", list(declared.categories)) if value != HIDDEN else ""
        some = ", ".join(repr(c) for c in declared.categories[:8]) + (", …" if len(declared.categories) > 8 else "")
        return f"{column} is {_say(value)}, which is not one of {some}{guess}"
    bound = {Rule.GE: declared.ge, Rule.GT: declared.gt, Rule.LE: declared.le, Rule.LT: declared.lt}.get(rule)
    right = {
        Rule.WRONG_TYPE: f"send {_TYPES[declared.type]}",
        Rule.TOO_MANY_DIGITS: f"it may have {declared.scale} digits after the point; round it, or raise the scale",
        Rule.OUT_OF_RANGE: f"send {_range(declared)}",
        Rule.GE: f"it must be at least {bound}",
        Rule.GT: f"it must be more than {bound}",
        Rule.LE: f"it must be at most {bound}",
        Rule.LT: f"it must be less than {bound}",
        Rule.PATTERN: f"the whole text must match {declared.pattern!r}",
        Rule.MAX_LENGTH: f"it may have {declared.max_length} characters",
    }[rule]
    return f"{column} is {_say(value)}; {right}"


def _range(column: ColumnSpec) -> str:
    if column.type == "decimal":
        return f"a number between ±{Decimal(10**18 - 1).scaleb(-column.scale)}"
    if column.type == "integer":
        return "a whole number between -2^63 and 2^63 - 1"
    return "a time between the years 1 and 9999"


def _say(value: str | None) -> str:
    if value is None:
        return "null"
    return value if value == HIDDEN else repr(value)


CORRECTIONS = "declare it: class {source}(fb.Source, key=…, corrections=True, …)"
_SHAPE = {
    Rule.NOT_AN_OBJECT: 'each event is a JSON object such as {{"column": value}}, not {value}',
    Rule.BAD_JSON: "the line is not JSON; each line is one JSON object",
    Rule.FIELD_COUNT: "the line has {value}; quote fields that contain the separator",
    Rule.BAD_QUOTES: "the line has text after a closing quote; quote whole fields, and double the quotes inside them",
}
_TYPES = {
    "string": "text, in quotes",
    "category": "text, in quotes",
    "decimal": "a number such as 12.45, as a number or as text without separators",
    "float": "a finite number",
    "integer": "a whole number",
    "boolean": "true or false",
    "timestamp": "an ISO 8601 time such as 2014-05-16T19:45:00Z, or integer microseconds",
}
_UNITS = {
    "s": "seconds since 1970-01-01 UTC",
    "ms": "milliseconds since 1970-01-01 UTC",
    "us": "microseconds since 1970-01-01 UTC",
    "iso": "an ISO 8601 time such as 2014-05-16T19:45:00Z",
}
