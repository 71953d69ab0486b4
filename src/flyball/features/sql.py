"""A view as one DuckDB query over its source's table: an auditor's check, a way out, and an oracle for the tests.

The query knows nothing of tiles: it joins rows with the events that they may see and aggregates them by definition, in
mode `known` (event_time < t and known_at <= t), with the interval aligned to the hop as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from flyball.define.spec import AggregateSpec, ColumnSpec, ExprData, LatestSpec, SourceSpec, ViewSpec
from flyball.features.frames import CURRENT
from flyball.features.plan import kind_of
from flyball.features.sqlexpr import MACROS, expression, literal, name, text
from flyball.kernel.times import show_duration

From = Literal["delta", "parquet", "table"]
_EXAMPLES = {
    "string": "'…'",
    "category": "'…'",
    "decimal": "0.00",
    "float": "0.0",
    "integer": "0",
    "boolean": "true",
    "timestamp": "TIMESTAMPTZ '2026-01-01 00:00:00+00'",
}


def view_sql(view: ViewSpec, source: SourceSpec, *, table: str, rows: str = "") -> str:
    """The query, macros first; it gives the rows' columns and one column for each feature.

    Args:
        table: a table expression with the source's events as the lake has them (`table_expression`).
        rows: a table, or query in parentheses, with the entity's columns and `at`; empty: a template of one row.
    """
    parts = [
        f"rows AS (\n{_rows(view, source, rows)}\n)",
        f"raw AS (\n{_raw(view, source, table)}\n)",
        f"events AS (  -- {_versions_said(source)}\n{_versions(source)}\n)",
        f"seen AS (  -- what each row may see: what happened before it and was known by then\n{_seen(view, source)}\n)",
        f"answers AS (\n{_answers(view, source)}\n)",
    ]
    entity = "".join(f"rows.{name(column)}, " for column in view.entity)
    shown = ",\n".join(f"    answers.{name(feature)}" for feature in view.features)
    head = f"-- {view.name}: {view.kind} view over {source.name}, definition {view.definition[:12]}\n"
    return (
        head
        + MACROS
        + "WITH\n"
        + ",\n".join(parts)
        + f'\nSELECT\n    {entity}rows."at",\n{shown}\nFROM rows JOIN answers USING (_row)\nORDER BY _row;\n'
    )


def table_expression(place: str, kind: From) -> str:
    """A source's table: `delta`: by DuckDB's extension; `parquet`: all data files (rows that compaction wrote again are
    taken once); `table`: one of the user's, by its name."""
    if kind == "delta":
        return f"delta_scan({text(place)})"
    if kind == "parquet":
        files = text(f"{place.rstrip('/')}/**/*.parquet")
        once = "QUALIFY row_number() OVER (PARTITION BY _lsn) = 1"
        return f"(SELECT * FROM read_parquet({files}, union_by_name = true) {once})"
    return place


def _rows(view: ViewSpec, source: SourceSpec, rows: str) -> str:
    names = [*view.entity, "at"]
    if not rows:
        types = [source.column(column).type for column in view.entity]
        values = ", ".join([*(_EXAMPLES[kind] for kind in types), "TIMESTAMPTZ '2026-01-01 00:00:00+00'"])
        given = ", ".join(name(column) for column in names)
        rows = f"(VALUES ({values})) AS given({given})  -- put your rows here"
    columns = ", ".join(name(column) for column in names)
    return f'    SELECT row_number() OVER () AS _row, epoch_us("at") AS _t, {columns}\n    FROM {rows}'


def _raw(view: ViewSpec, source: SourceSpec, table: str) -> str:
    names = dict.fromkeys([*view.entity, *(c.column for c in view.latest)])
    for expr in (e for a in view.aggregates for e in (a.value, a.where)):
        names |= dict.fromkeys(_columns(expr))
    names |= dict.fromkeys(_columns(view.where))
    columns = [f"        {name(column)}" for column in names]
    system = ["epoch_us(_event_time) AS _e", "epoch_us(_known_at) AS _k", "_lsn", "_key"]
    if source.corrections:
        system.append("coalesce(_deleted, false) AS _deleted")
    return "    SELECT\n" + ",\n".join([*columns, f"        {', '.join(system)}"]) + f"\n    FROM {table}"


def _versions_said(source: SourceSpec) -> str:
    if source.corrections:
        return "the versions of each key, each until the next is known; a deletion only ends one"
    return "of the events of one key the first counts"


def _versions(source: SourceSpec) -> str:
    if not source.corrections:
        return (
            f"    SELECT *, {CURRENT} AS _until FROM raw\n"
            "    QUALIFY row_number() OVER (PARTITION BY _key ORDER BY _lsn) = 1"
        )
    return (
        "    SELECT * FROM (\n        SELECT *, coalesce(lead(_k) OVER (PARTITION BY _key ORDER BY _k, _lsn), "
        f"{CURRENT}) AS _until\n        FROM raw\n    ) WHERE NOT _deleted"
    )


def _seen(view: ViewSpec, source: SourceSpec) -> str:
    same = " AND ".join(f"rows.{name(column)} = events.{name(column)}" for column in view.entity) or "true"
    where = "" if view.where is None else f"\n    WHERE ({expression(view.where, source)}) IS TRUE"
    return (
        f"    SELECT * FROM (\n        SELECT rows._row, rows._t, events.*\n"
        f"        FROM rows JOIN events ON {same}\n"
        "            AND events._e < rows._t AND events._k <= rows._t AND rows._t < events._until\n    )" + where
    )


def _answers(view: ViewSpec, source: SourceSpec) -> str:
    columns = [f"        {_aggregate(a, source)} AS {name(a.name)}{_said(a)}" for a in view.aggregates]
    columns += [f"        {_latest(c, view, source)} AS {name(c.name)}" for c in view.latest]
    lines = []
    for number, column in enumerate(columns):
        shown, _, comment = column.partition("  -- ")
        comma = "," if number < len(columns) - 1 else ""
        lines.append(shown + comma + (f"  -- {comment}" if comment else ""))
    return (
        "    SELECT rows._row,\n"
        + "\n".join(lines)
        + "\n    FROM rows LEFT JOIN seen AS s USING (_row)\n    GROUP BY rows._row"
    )


def _said(a: AggregateSpec) -> str:
    return f"  -- {a.op} over {show_duration(a.window)}, its start on a hop of {show_duration(a.hop)}"


def _aggregate(a: AggregateSpec, source: SourceSpec) -> str:
    value, divisor, kind = _value(a, source)
    inside = [f"s._e >= hop_floor(s._t - {a.window}, {a.hop})"]
    if a.where is not None:
        inside.append(f"({expression(a.where, source, table='s')}) IS TRUE")
    if value:
        inside.append(f"({value}) IS NOT NULL")
    filtered = f"FILTER (WHERE {' AND '.join(['s._e IS NOT NULL', *inside])})"
    n = f"(count(*) {filtered})"
    found = _operator(a, value, kind, filtered, n, divisor)
    if a.default is not None and a.op not in ("count", "sum", "distinct"):
        return f"coalesce({found}, {literal(a.default)})"
    return found


def _operator(a: AggregateSpec, value: str, kind: str, filtered: str, n: str, divisor: str) -> str:
    scaled = "" if divisor == "1" else f" / {divisor}::DOUBLE"
    total = f"(sum(({value})::HUGEINT) {filtered})::DOUBLE" if kind == "whole" else f"(fsum({value}) {filtered})"
    moved = {"first": f"first({value} ORDER BY s._e, s._lsn)", "last": f"last({value} ORDER BY s._e, s._lsn)"}
    if a.op == "count":
        return f"{n}::DOUBLE"
    if a.op == "sum":
        return f"coalesce({total}{scaled}, 0.0::DOUBLE)"
    if a.op == "mean":
        return f"{total} / ({n} * {divisor}::DOUBLE)"
    if a.op == "std":
        return f"(stddev_samp(({value})::DOUBLE) {filtered}){scaled}"
    if a.op == "distinct":
        return f"least(count(DISTINCT {value}) {filtered}, {a.cap})::DOUBLE"
    if a.op == "nth_last":
        found = f"(list({value} ORDER BY s._e DESC, s._lsn DESC) {filtered})[{a.nth}]"
    else:
        found = f"({moved.get(a.op) or f'{a.op}({value})'} {filtered})"
    return found if kind == "text" else f"{found}::DOUBLE{scaled}"


def _value(a: AggregateSpec, source: SourceSpec) -> tuple[str, str, str]:
    """What is aggregated, its divisor and kind: whole numbers as units of 1/divisor; cents are added as cents."""
    if a.value is None:
        return "", "1", "whole"
    kind, divisor = kind_of(a.value, source)
    shown = expression(a.value, source, table="s")
    if a.value[0] == "col":
        column = source.column(a.value[2])
        return _units(column), f"{divisor:.0f}", "text" if column.type == "category" else kind
    if kind == "whole":
        return f"({shown})::BIGINT", "1", kind
    return (shown if kind == "text" else f"finite(({shown})::DOUBLE)"), "1", kind


def _units(column: ColumnSpec) -> str:
    shown = f"s.{name(column.name)}"
    if column.type == "decimal":
        return f"({shown} * {10**column.scale})::BIGINT"
    if column.type == "boolean":
        return f"{shown}::BIGINT"
    if column.type == "timestamp":
        return f"epoch_us({shown})"
    return f"finite({shown})" if column.type == "float" else shown


def _latest(latest: LatestSpec, view: ViewSpec, source: SourceSpec) -> str:
    column = source.column(latest.column)
    young = "" if view.ttl is None else f" AND s._e >= s._t - {view.ttl}"
    newest = f"last({{'v': s.{name(column.name)}}} ORDER BY s._e, s._lsn) FILTER (WHERE s._e IS NOT NULL{young})"
    shown = f"({newest}).v"
    if column.type == "decimal":
        shown = f"({shown} * {10**column.scale})::BIGINT::DOUBLE / {10**column.scale}::DOUBLE"
    elif column.type == "timestamp":
        shown = f"epoch_us({shown})::DOUBLE"
    elif column.type == "float":
        shown = f"finite({shown})"
    elif column.type != "category":
        shown = f"({shown})::DOUBLE"
    return shown if latest.default is None else f"coalesce({shown}, {literal(latest.default)})"


def _columns(expr: ExprData | None) -> Sequence[str]:
    if expr is None or expr[0] in ("lit", "time"):
        return ()
    if expr[0] == "col":
        return (expr[2],)
    return [column for argument in expr[1:] for column in _columns(argument)]
