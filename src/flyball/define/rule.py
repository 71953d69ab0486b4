"""Rules of a source's contract beyond one column: checks across columns, uniqueness, freshness, volume.

A rule is an attribute of the source, and its name is the rule's. Columns are plain names in the body of the class:

    class Trips(fb.Source, …):
        fare = fb.Decimal(2, ge=0)
        tips = fb.Decimal(2, ge=0)
        tips_at_most_fare = fb.check(tips <= fare, action="warn")
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from flyball.define.algebra import Expr, Named, RowTime
from flyball.define.algebra import Literal as Constant
from flyball.define.column import Column
from flyball.define.declaration import Body, check_name
from flyball.define.mistake import mistake
from flyball.define.notation import SYMBOLS
from flyball.define.spec import Action, ExprData, RuleSpec
from flyball.kernel.errors import did_you_mean
from flyball.kernel.times import duration, show_duration

BatchAction = Literal["reject_batch", "warn"]
_BUILT_IN = """not_an_object bad_json bad_quotes field_count unknown_column missing_column null wrong_type
    too_many_digits out_of_range unknown_category ge gt le lt pattern max_length bad_event_time bad_known_at
    ahead_of_clock too_late no_corrections"""
BUILT_IN = frozenset(_BUILT_IN.split())  # the rules that every source has; receipts count all rules by their names


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as it stands in a class body: `expr` and `columns` are not bound to the source yet."""

    spec: RuleSpec
    expr: Expr | None = None
    columns: tuple[Column | str, ...] = ()


def check(condition: Expr, *, action: Action = "reject_row") -> Rule:
    """A condition over the columns of one row; a row breaks it where it is false. Null passes.

    Args:
        action: `reject_row` quarantines the row, `reject_batch` refuses the whole push, `warn` counts and accepts.
    """
    given: object = condition
    if not isinstance(given, Expr) or given.type != "boolean":
        raise mistake(f"fb.check takes a condition over columns, such as tips <= fare, not {given!r}")
    chosen = _action("fb.check", action, get_args(Action))
    return _made("fb.check", Rule(RuleSpec(name="", kind="check", action=chosen), condition))


def unique(*columns: Column | str, action: Action = "reject_row") -> Rule:
    """No two rows of one push are alike in these columns (of those that are, the first is good; null is like nothing).

    Across pushes the source's key does that.
    """
    if not columns:
        raise mistake("fb.unique needs the columns that no two rows share, such as fb.unique(card, at)")
    chosen = _action("fb.unique", action, get_args(Action))
    return _made("fb.unique", Rule(RuleSpec(name="", kind="unique", action=chosen), columns=columns))


def fresh(max_age: str, *, action: BatchAction = "warn") -> Rule:
    """The newest event of a live push is at most this old when it comes; history is not judged."""
    age = duration(max_age)
    if age <= 0:
        raise mistake(f"fb.fresh({max_age!r}) must be longer than 0")
    chosen = _action("fb.fresh", action, get_args(BatchAction))
    return _made("fb.fresh", Rule(RuleSpec(name="", kind="fresh", max_age=age, action=chosen)))


def volume(*, min: int = 0, max: int | None = None, action: BatchAction = "warn") -> Rule:
    """A push has `min` to `max` rows, both inclusive; a file is judged whole."""
    if min < 0 or (max is not None and max < min) or (not min and max is None):
        raise mistake(f"fb.volume(min={min}, max={max}) is no range; give one bound or both, such as min=1, max=10_000")
    chosen = _action("fb.volume", action, get_args(BatchAction))
    spec = RuleSpec(name="", kind="volume", min_rows=min, max_rows=max, action=chosen)
    return _made("fb.volume", Rule(spec))


def _made(what: str, rule: Rule) -> Rule:
    """Note in the class body that is being run that the rule must get a name there."""
    body = sys._getframe(2).f_locals
    if isinstance(body, Body):
        body.made.append((what, rule))
    return rule


def _action(shown: str, action: str, known: tuple[str, ...]) -> Any:
    if action not in known:
        raise mistake(f"{shown}: action {action!r} is none of {', '.join(map(repr, known))}")
    return action


def rule_specs(source: str, rules: Mapping[str, Rule], columns: Mapping[str, Column]) -> tuple[RuleSpec, ...]:
    """The rules of a source as data; `columns` are those of the class body, by the names that they stand under."""
    names = {id(column): name for name, column in columns.items()}
    return tuple(_bound(source, name, rule, names, columns) for name, rule in rules.items())


def _bound(source: str, name: str, rule: Rule, names: Mapping[int, str], columns: Mapping[str, Column]) -> RuleSpec:
    check_name(name, f"{source}.{name}", reserved=tuple(BUILT_IN))
    shown = f"{source}.{name}"
    return msgspec.structs.replace(
        rule.spec,
        name=name,
        expr=None if rule.expr is None else _data(shown, rule.expr, source, names),
        columns=tuple(_column(shown, column, names, columns) for column in rule.columns),
    )


def _column(shown: str, column: Column | str, names: Mapping[int, str], columns: Mapping[str, Column]) -> str:
    name = column if isinstance(column, str) else names.get(id(column), "")
    if name not in columns:
        raise mistake(
            f"{shown}: {column!r} is not a column of this source; {did_you_mean(str(column), columns)}",
            code="unknown_column",
        )
    return name


def _data(shown: str, expr: Expr, source: str, names: Mapping[int, str]) -> ExprData:
    """The expression as data, with the columns of the class body under their names."""
    if isinstance(expr, Column):
        if id(expr) not in names:
            raise mistake(f"{shown} reads {expr!r}; it may read columns of its own source only", code="foreign_column")
        return ["col", source, names[id(expr)]]
    if isinstance(expr, Named):
        return _data(shown, expr._args[0], source, names)
    if isinstance(expr, Constant | RowTime):
        return expr.to_data()
    if any(not isinstance(argument, Expr) for argument in expr._args) or not expr._args:
        raise mistake(f"{shown} reads {expr!r}; it may read columns of its own source only", code="foreign_column")
    return [expr._op, *(_data(shown, argument, source, names) for argument in expr._args)]


def told(rule: RuleSpec) -> str:
    """What a rule asks for, for people."""
    if rule.kind == "check":
        return spelled(rule.expr or [])
    if rule.kind == "unique":
        return f"no two rows of a push are alike in {', '.join(rule.columns)}"
    if rule.kind == "fresh":
        return f"the newest event of a push is at most {show_duration(rule.max_age)} old"
    most = "" if rule.max_rows is None else f" and at most {rule.max_rows:,}"
    return f"a push has at least {rule.min_rows:,}{most} rows"


def spelled(expr: ExprData) -> str:
    """An expression over one source's columns as one would write it."""
    op, *args = expr
    if op == "lit":
        return repr(args[0])
    if op == "col":
        return str(args[1])
    if op == "time":
        return "fb.row_time()"
    parts = [f"({spelled(a)})" if a[0] in SYMBOLS else spelled(a) for a in args]
    if op in SYMBOLS:
        return f"{parts[0]} {SYMBOLS[op]} {parts[1]}"
    if op in ("neg", "not"):
        return f"{'-' if op == 'neg' else '~'}{parts[0]}"
    if op in ("is_null", "hour", "weekday"):
        return f"{parts[0]}.{op}()"
    return f"{parts[0]}.isin({', '.join(parts[1:])})" if op == "in" else f"fb.{op}({', '.join(map(spelled, args))})"
