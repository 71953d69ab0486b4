"""What the event log keeps of contracts: the state of quarantined rows, refused pushes, warnings.

    quarantine_states   by row that was ever retried or dropped: what became of it, and the newest reason
    quarantine_arrivals by batch with quarantined rows of a source with corrections: the LSN before each of them
    refused             the newest refusals of each source
    contracts           totals by source: warnings and refusals by rule, resolved rows, the size of the last push

A quarantined row itself is in its batch, then in the lake's table `SOURCE__quarantine`. Its state changes in the
transaction that takes the row, so that a row is accepted once or is still open, whenever the process dies.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flyball.ingest.ports import QuarantineChange, RefusedBatch
from flyball.kernel.errors import ConflictError

KEEP_REFUSALS = 200  # of each source
SCHEMA = """
CREATE TABLE IF NOT EXISTS quarantine_states (
    source TEXT NOT NULL, batch INTEGER NOT NULL, place INTEGER NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL,
    rule TEXT NOT NULL, column_name TEXT NOT NULL, value TEXT, message TEXT NOT NULL, lsn INTEGER NOT NULL,
    at INTEGER NOT NULL, PRIMARY KEY (source, batch, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS quarantine_by_number ON quarantine_states (source, number);
CREATE TABLE IF NOT EXISTS quarantine_arrivals (
    source TEXT NOT NULL, batch INTEGER NOT NULL, lsns BLOB NOT NULL, PRIMARY KEY (source, batch)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine_numbers (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS refused (
    number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, rule TEXT NOT NULL, at INTEGER NOT NULL,
    column_name TEXT NOT NULL, received INTEGER NOT NULL, broken INTEGER NOT NULL, message TEXT NOT NULL,
    examples TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS refused_by_source ON refused (source, number);
CREATE TABLE IF NOT EXISTS contracts (
    source TEXT PRIMARY KEY, warnings TEXT NOT NULL, refused TEXT NOT NULL, resolved INTEGER NOT NULL, last_rows INTEGER
) WITHOUT ROWID;
"""
_CHANGE = "number, batch, place, state, rule, column_name, value, message, lsn, at"

Run = Callable[..., sqlite3.Cursor]
Select = Callable[[str, tuple[Any, ...]], list[Any]]


def note_changes(run: Run, source: str, changes: Sequence[QuarantineChange], *, first_lsn: int, at: int) -> None:
    """Within a transaction: what became of rows that are still open. `first_lsn` is what a change's `lsn` 1 means."""
    if not changes:
        return
    number = (run("SELECT next FROM quarantine_numbers").fetchone() or (1,))[0]
    for change in changes:
        lsn = first_lsn + change.lsn - 1 if change.lsn else 0
        done = run(
            "INSERT INTO quarantine_states VALUES (?,?,?,?,?,?,?,?,?,?,?)"
            " ON CONFLICT (source, batch, place) DO UPDATE SET number = excluded.number,"
            " state = excluded.state, rule = excluded.rule, value = excluded.value, column_name = excluded.column_name,"
            " message = excluded.message, lsn = excluded.lsn, at = excluded.at"
            " WHERE state = 'open'",
            (source, change.batch, change.place, number, change.state, change.rule, change.column, change.value,
             change.message, lsn, at),
        )  # fmt: skip
        if done.rowcount != 1:
            raise ConflictError(
                f"the quarantined row {source}:{change.batch}.{change.place} was retried or dropped meanwhile",
                code="quarantine_changed",
                hint=f"flyball quarantine list {source}",
            )
        number += 1
    run("INSERT INTO quarantine_numbers VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET next = excluded.next", (number,))
    add_to_contract(run, source, resolved=sum(change.state != "open" for change in changes))


def note_arrivals(run: Run, source: str, batch: int, after: Sequence[int], *, first_lsn: int) -> None:
    """Within a transaction: how many rows of the batch came before each of those of it that are quarantined."""
    if after:
        lsns = [first_lsn - 1 + count for count in after]
        run("INSERT INTO quarantine_arrivals VALUES (?,?,?)", (source, batch, zlib.compress(json.dumps(lsns).encode())))


def arrivals(select: Select, source: str, batches: Collection[int]) -> dict[int, Sequence[int]]:
    sql = "SELECT lsns FROM quarantine_arrivals WHERE source = ? AND batch = ?"
    found = {batch: select(sql, (source, batch)) for batch in sorted(set(batches))}
    return {batch: json.loads(zlib.decompress(rows[0][0])) for batch, rows in found.items() if rows}


def note_refused(run: Run, refused: Sequence[RefusedBatch], *, at: int) -> None:
    """Within a transaction: pushes of which nothing was stored."""
    for item in refused:
        run(
            "INSERT INTO refused (source, rule, at, column_name, received, broken, message, examples)"
            " VALUES (?,?,?,?,?,?,?,?)",
            (item.source, item.rule, at, item.column, item.received, item.broken, item.message,
             json.dumps(item.examples, default=str, ensure_ascii=False)),
        )  # fmt: skip
        add_to_contract(run, item.source, refused={item.rule: 1})
    for source in {item.source for item in refused}:
        run(
            "DELETE FROM refused WHERE source = ? AND number <="
            " (SELECT number FROM refused WHERE source = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (source, source, KEEP_REFUSALS),
        )


def add_to_contract(
    run: Run,
    source: str,
    *,
    warnings: Mapping[str, int] | None = None,
    refused: Mapping[str, int] | None = None,
    resolved: int = 0,
    last_rows: int | None = None,
) -> None:
    """Within a transaction: add to a source's totals."""
    if not (warnings or refused or resolved or last_rows is not None):
        return
    found = run("SELECT warnings, refused FROM contracts WHERE source = ?", (source,)).fetchone() or ("{}", "{}")
    run(
        "INSERT INTO contracts VALUES (?,?,?,?,?) ON CONFLICT (source) DO UPDATE SET warnings = excluded.warnings,"
        " refused = excluded.refused, resolved = resolved + excluded.resolved,"
        " last_rows = coalesce(excluded.last_rows, last_rows)",
        (source, _added(found[0], warnings), _added(found[1], refused), resolved, last_rows),
    )


def _added(stored: str, more: Mapping[str, int] | None) -> str:
    tally: dict[str, int] = json.loads(stored)
    for rule, count in (more or {}).items():
        tally[rule] = tally.get(rule, 0) + count
    return json.dumps(tally)


def states(select: Select, source: str) -> list[QuarantineChange]:
    rows = select(f"SELECT {_CHANGE} FROM quarantine_states WHERE source = ? ORDER BY batch, place", (source,))
    return [_change(row) for row in rows]


def changes(select: Select, source: str, *, after: int, limit: int) -> list[QuarantineChange]:
    sql = f"SELECT {_CHANGE} FROM quarantine_states WHERE source = ? AND number > ? ORDER BY number LIMIT ?"
    return [_change(row) for row in select(sql, (source, after, limit))]


def _change(row: tuple[Any, ...]) -> QuarantineChange:
    number, batch, place, state, rule, column, value, message, lsn, at = row
    return QuarantineChange(
        batch=batch, place=place, state=state, rule=rule, column=column, value=value, message=message, lsn=lsn, at=at,
        number=number,
    )  # fmt: skip


def refusals(select: Select, source: str, *, limit: int) -> list[RefusedBatch]:
    rows = select(
        "SELECT source, rule, column_name, received, broken, message, examples, at FROM refused WHERE source = ?"
        " ORDER BY number DESC LIMIT ?",
        (source, limit),
    )
    return [
        RefusedBatch(
            source=source, rule=rule, column=column, received=received, broken=broken, message=message,
            examples=tuple(json.loads(examples)), at=at,
        )
        for source, rule, column, received, broken, message, examples, at in rows
    ]  # fmt: skip


def contract_totals(select: Select) -> dict[str, dict[str, Any]]:
    """By source, the fields of `LogTotals` that are kept here."""
    return {
        source: {
            "warnings": json.loads(warnings),
            "refused": json.loads(refused),
            "resolved": resolved,
            "last_rows": last_rows,
        }
        for source, warnings, refused, resolved, last_rows in select("SELECT * FROM contracts", ())
    }
