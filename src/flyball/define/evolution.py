"""How a source may change while its events are there: what each change causes, and what cannot be done.

What widens a contract is taken. What tightens it holds for new events only. What would give old events another meaning,
or take a column from what reads it, is refused, with the declaration that would do it.
"""

from __future__ import annotations

from collections.abc import Iterator

from flyball.define.expression import columns_of, leaves
from flyball.define.leak import columns_read
from flyball.define.rule import told
from flyball.define.spec import (
    ColumnSpec,
    ExprData,
    FeatureSpec,
    LabelSpec,
    ProjectSpec,
    RuleSpec,
    SourceSpec,
    ViewSpec,
)
from flyball.kernel.times import show_duration

_ACTIONS = {
    "reject_row": "events that break it are quarantined from now on",
    "reject_batch": "pushes that break it are refused whole from now on",
    "warn": "events that break it are counted and accepted from now on",
}


def source_changed(was: SourceSpec, now: SourceSpec) -> tuple[str, ...]:
    """What a change of a source causes, for people."""
    causes: list[str] = []
    before, after = {c.name: c for c in was.columns}, {c.name: c for c in now.columns}
    for name, column in after.items():
        known = before.get(name)
        causes += [f"{name} is null in the events of {now.name} that came before"] if known is None else ()
        causes += _column(known, column, now.name) if known is not None else ()
    causes += [
        f"{name} stays in the events that are there; from now on a pushed event that brings it is quarantined, "
        "and a file's is ignored"
        for name in before
        if name not in after
    ]
    causes += _rules(was, now)
    if was.known != now.known:
        causes.append("history that is loaded from now on is known as declared now; what is there keeps its time")
    if now.retention is not None and (was.retention is None or now.retention < was.retention):
        causes.append(f"deletes events of {now.name} that are older than {show_duration(now.retention)}")
    return tuple(causes)


def _column(was: ColumnSpec, now: ColumnSpec, source: str) -> Iterator[str]:
    name = now.name
    if not was.nullable and now.nullable:
        yield f"{name} may be missing in events of {source} from now on"
    gone = [c for c in was.categories if c not in now.categories]
    if gone:
        yield (f"events whose {name} is {_listed(gone)} are quarantined from now on; those that are there keep it")
    new = [c for c in now.categories if c not in was.categories]
    if was.categories and new:
        yield f"{name} may be {_listed(new)} from now on"
    if narrower(was, now):
        yield f"events whose {name} breaks the new contract are quarantined from now on"
    if was.on_violation != now.on_violation:
        yield f"{name}: {_ACTIONS[now.on_violation]}"


def _listed(values: list[str]) -> str:
    return ", ".join(map(repr, values[:5])) + (", …" if values[5:] else "")


def narrower(was: ColumnSpec, now: ColumnSpec) -> bool:
    """Whether a value that was good may be one no more, categories left out."""
    if now.pattern and now.pattern != was.pattern:
        return True
    if now.max_length is not None and (was.max_length is None or now.max_length < was.max_length):
        return True
    low, high = _lower(now), _upper(now)
    return (low is not None and (_lower(was) is None or low > (_lower(was) or low))) or (
        high is not None and (_upper(was) is None or high < (_upper(was) or high))
    )


def _lower(column: ColumnSpec) -> tuple[float, int] | None:
    """The lower bound, in an order where the stricter is greater: at one number, `gt` is stricter than `ge`."""
    if column.gt is not None:
        return column.gt, 1
    return None if column.ge is None else (column.ge, 0)


def _upper(column: ColumnSpec) -> tuple[float, int] | None:
    """The upper bound, in an order where the stricter is less."""
    if column.lt is not None:
        return column.lt, 0
    return None if column.le is None else (column.le, 1)


def _rules(was: SourceSpec, now: SourceSpec) -> Iterator[str]:
    before = {rule.name: rule for rule in was.rules}
    for rule in now.rules:
        known = before.pop(rule.name, None)
        if known != rule:
            yield f"{'new rule' if known is None else 'rule'} {rule.name} ({told(rule)}): {_action(rule)}"
    for name in before:
        yield f"{name} is no rule any more; what it quarantined can be taken: flyball quarantine retry {now.name}"


def _action(rule: RuleSpec) -> str:
    if rule.kind in ("fresh", "volume") and rule.action == "warn":
        return "pushes that break it are counted and accepted from now on"
    return _ACTIONS[rule.action]


def refusal(was: SourceSpec, now: SourceSpec, old: ProjectSpec) -> str:
    """Why a change of a source cannot be made, since its events are there; empty where it can.

    `old` is the project that is applied, whose other declarations may read what is taken away.
    """
    after = {c.name: c for c in now.columns}
    for column in was.columns:
        kept = after.get(column.name)
        said = _removal(column.name, was, old) if kept is None else _kept(column, kept)
        if said:
            return said
    before = {c.name for c in was.columns}
    for name, column in after.items():
        if name not in before and not column.nullable:
            return f"events that are there have no {name}; add it with nullable=True"
    for field in ("key", "event_time", "event_time_unit"):
        if getattr(was, field) != getattr(now, field):
            return f"{field} changed, and with it which events are the same; declare a new source"
    if was.corrections != now.corrections:
        return "corrections changed, and with it which of the events with one key counts; declare a new source"
    return ""


def _removal(name: str, was: SourceSpec, old: ProjectSpec) -> str:
    if not was.key:
        return (
            f"the column {name} is gone, and the whole row is the key of {was.name}, so an event sent again would "
            "be another; keep it, or declare a new source"
        )
    readers = sorted(set(readers_of(was.name, name, old)))
    if readers:
        return (
            f"the column {name} is gone, and {', '.join(readers)} read it as they are applied now; first flyball apply "
            "a project where nothing reads it, then take it out"
        )
    return ""


def _kept(was: ColumnSpec, now: ColumnSpec) -> str:
    name = was.name
    if now.type != was.type or now.scale != was.scale:
        return (
            f"the column {name} was {_type(was)} and is {_type(now)}; give the new column another name, or declare "
            f"{name} as it was"
        )
    if was.nullable and not now.nullable:
        return (
            f"the column {name} may be missing in events that are there; keep nullable=True, and quarantine new ones "
            f"without it by a rule: {name}_is_there = fb.check(~{name}.is_null())"
        )
    return ""


def _type(column: ColumnSpec) -> str:
    return f"a decimal({column.scale})" if column.type == "decimal" else f"a {column.type}"


# What reads a column


def readers_of(source: str, column: str, project: ProjectSpec) -> Iterator[str]:
    """The declarations of a project that read a column of a source: `view X`, `model m`."""
    for view in project.views:
        if view.source == source and column in view_columns(view):
            yield f"view {view.name}"
    for model in project.models:
        if column in feature_columns(model.features, source, model.rows) | _label(model.label, source, model.rows):
            yield f"model {model.name}"
    for other in project.sources:
        derived = other.derive
        if derived is not None and derived.source == source:
            read = [derived.where, *(c.expr for c in derived.columns)]
            if column in _columns(read, source):
                yield f"source {other.name}"


def view_columns(view: ViewSpec) -> set[str]:
    """All columns of its source that a view reads."""
    found = set(view.entity)
    for feature in view.features:
        found |= columns_read(view, feature)
    return found


def feature_columns(features: tuple[FeatureSpec, ...], source: str, rows: str) -> set[str]:
    """The columns of `source` that features of a model over `rows` read, those they look views up by among them."""
    found: set[str] = set()
    for feature in features:
        found |= columns_of(feature.expr, source)
        if rows == source:
            found |= {name for leaf in leaves(feature.expr) if leaf[0] == "view" for name in leaf[3]}
    return found


def _label(label: LabelSpec | None, source: str, rows: str) -> set[str]:
    if label is None:
        return set()
    found = _columns([label.expr], source)
    if label.any is not None:
        found |= {label.any.on} | _columns([label.any.where], source) if label.any.source == source else set()
        found |= {label.any.rows_on} if rows == source else set()
    return found


def _columns(expressions: list[ExprData | None], source: str) -> set[str]:
    return {name for expr in expressions if expr is not None for name in columns_of(expr, source)}
