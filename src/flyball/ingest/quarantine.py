"""The quarantine: rows that broke their contract, kept as they came until somebody retries or drops them.

A row lies in the log, then in the lake's table `SOURCE__quarantine`, and does not change there. What became of it is
kept in the log, in the same transaction that takes it, and shown in the lake's `SOURCE__quarantine_changes`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.define.spec import SourceSpec
from flyball.ingest.committing import quarantine_id, quarantine_table
from flyball.ingest.intake import Intake, require_history
from flyball.ingest.ports import EventLog, LakeTables, LogTotals, QuarantineChange, RefusedBatch
from flyball.ingest.rejection import Rule, redact
from flyball.kernel.clock import Clock
from flyball.kernel.errors import ConflictError, InvalidError, NotFoundError

RETRY_ROWS = 10_000  # rows of one transaction
_ID = re.compile(r"(?P<source>[A-Za-z][A-Za-z0-9_]*):(?P<batch>[1-9][0-9]{0,17})\.(?P<place>[1-9][0-9]{0,17})")
_BECAME = ("accepted", "duplicates", "superseded", "quarantined")
_SHAPELESS = frozenset({Rule.NOT_AN_OBJECT.value, Rule.BAD_JSON.value, Rule.FIELD_COUNT.value})


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """A row of the quarantine: `data` as it was rejected, and the state and reason of now."""

    batch: int
    place: int
    live: bool
    known_at: int
    data: dict[str, Any]
    change: QuarantineChange | None

    @property
    def state(self) -> str:
        return "open" if self.change is None else self.change.state

    @property
    def rule(self) -> str:
        return self.data["rule"] if self.change is None or not self.change.rule else self.change.rule

    def shown(self, spec: SourceSpec) -> dict[str, Any]:
        """As a reader without a right to pii may see it."""
        change = self.change
        reason = {} if change is None or not change.rule else {
            "rule": change.rule, "column": change.column, "value": change.value, "message": change.message,
        }  # fmt: skip
        return {
            "id": quarantine_id(spec.name, self.batch, self.place),
            "state": self.state,
            **self.data,
            **reason,
            "row": redact(spec, self.data["row"]),
            "known_at": self.known_at,
            "live": self.live,
            "changed_at": None if change is None else change.at,
            "lsn": None if change is None else change.lsn or None,
        }


class Quarantine:
    """Lists, retries and drops. Called under the core's lock, so that no flush moves rows meanwhile."""

    def __init__(self, log: EventLog, lake: LakeTables, intake: Intake, clock: Clock) -> None:
        self._log = log
        self._lake = lake
        self._intake = intake
        self._clock = clock

    def listed(self, source: str, *, rule: str = "", state: str = "", limit: int = 100) -> dict[str, Any]:
        """The newest rows with their reasons, pii redacted: `{source, total, open, rules, rows, refused}`."""
        spec = self._intake.source(source)
        rows = self._newest(source, limit if not (rule or state) else None)
        rows = [row for row in rows if rule in ("", row.rule) and state in ("", row.state)]
        totals = self._log.totals().get(source, LogTotals())
        return {
            "source": source,
            "total": totals.rejected,
            "open": totals.rejected - totals.resolved,
            "rules": totals.rules,
            "rows": [row.shown(spec) for row in rows[:limit]],
            "refused": [_refused(item) for item in self._log.refusals(source, limit=20)],
        }

    def show(self, id: str) -> dict[str, Any]:
        """One row. Raises `NotFoundError` (`quarantined_not_found`)."""
        source, batch, place = place_of(id)
        spec = self._intake.source(source)
        for row in self._all(source):
            if (row.batch, row.place) == (batch, place):
                return row.shown(spec) | {"source": source}
        raise _not_found(id)

    def retry(self, source: str, *, rule: str = "", ids: Sequence[str] = ()) -> dict[str, Any]:
        """Judge open rows by the contract of now, and take those that pass: history as history, live ones as known now.

        Each row is taken once, whatever dies in between; those that fail again stay, with the new reason. A row that
        is no row (a line that is not JSON, or has another number of fields) is left as it is. With corrections, a row
        is not taken over a version of its key that was accepted after it came: it is `superseded`, and done with.
        """
        spec = self._intake.source(source)
        asked = self._asked(source, rule, ids)
        count: Counter[str] = Counter()
        whole = [row for row in asked if row.data["rule"] not in _SHAPELESS]
        count["quarantined"] += len(asked) - len(whole)
        if any(not row.live for row in whole):
            require_history(spec)
        for live, strict, rows in _alike(whole):
            places = [QuarantineChange(batch=row.batch, place=row.place, state="open") for row in rows]
            objects = [row.data["row"] for row in rows]
            count += self._intake.append_again(source, objects, places, live=live, strict=strict, lake=self._lake)
        return {"source": source, "retried": len(asked), **{name: count[name] for name in _BECAME}}

    def drop(self, source: str, *, rule: str = "", ids: Sequence[str] = ()) -> dict[str, Any]:
        """Give open rows up. They stay in the lake until its retention, and are not retried any more."""
        self._intake.source(source)
        asked = self._asked(source, rule, ids)
        changes = [QuarantineChange(batch=row.batch, place=row.place, state="dropped") for row in asked]
        self._log.resolve(source, changes, now=self._clock.now())
        return {"source": source, "dropped": len(asked)}

    def _asked(self, source: str, rule: str, ids: Sequence[str]) -> list[Quarantined]:
        """The open rows that are meant, oldest first. Raises where an id is of no row, or of one that is not open."""
        if not ids:
            found = [row for row in self._all(source) if row.state == "open" and rule in ("", row.rule)]
            return found[::-1]
        wanted = {place_of(id): id for id in ids}
        foreign = next((id for place, id in wanted.items() if place[0] != source), None)
        if foreign is not None:
            raise InvalidError(f"{foreign} is not of source {source}", code="bad_quarantine_id")
        rows = {(source, row.batch, row.place): row for row in self._all(source)}
        for place, id in wanted.items():
            if place not in rows:
                raise _not_found(id)
            if rows[place].state != "open":
                raise ConflictError(f"{id} is {rows[place].state} already", code="quarantine_changed")
        return [rows[place] for place in sorted(wanted) if rule in ("", rows[place].rule)]

    def _newest(self, source: str, limit: int | None) -> list[Quarantined]:
        rows = []
        for row in self._all(source):
            rows.append(row)
            if len(rows) == limit:
                break
        return rows

    def _all(self, source: str) -> Iterator[Quarantined]:
        """All rows, newest first: those of the log, then those of the lake."""
        changes = {(c.batch, c.place): c for c in self._log.quarantine_states(source)}
        table = quarantine_table(source)
        done = after = self._lake.version(table, table)
        logged: list[Quarantined] = []
        while batches := self._log.read_rejected(source, after=after, limit=256):
            after = batches[-1].batch
            logged += [
                Quarantined(
                    batch=batch.batch, place=place, live=batch.live, known_at=batch.known_at, data=data,
                    change=changes.get((batch.batch, place)),
                )
                for batch in batches
                for place, data in enumerate(batch.rows, start=1)
            ]  # fmt: skip
        yield from reversed(logged)
        if done:
            frame = self._lake.read(table).sort("_batch", "_place", descending=True)
            for named in frame.iter_rows(named=True):
                batch, place, live, at = (named.pop(name) for name in ("_batch", "_place", "live", "_known_at"))
                named.pop("id")
                data = named | {"row": json.loads(named["row"])}
                change = changes.get((batch, place))
                yield Quarantined(batch=batch, place=place, live=live, known_at=at, data=data, change=change)


def place_of(id: str) -> tuple[str, int, int]:
    """Source, batch and place of an id. Raises `InvalidError` (`bad_quarantine_id`)."""
    found = _ID.fullmatch(id)
    if found is None:
        raise InvalidError(
            f"{id!r} is not the id of a quarantined row; it looks like Payments:12.3",
            code="bad_quarantine_id",
            hint="flyball quarantine list SOURCE",
        )
    return found["source"], int(found["batch"]), int(found["place"])


def _not_found(id: str) -> NotFoundError:
    source = id.partition(":")[0]
    return NotFoundError(
        f"there is no quarantined row {id}", code="quarantined_not_found", hint=f"flyball quarantine list {source}"
    )


def _alike(rows: Sequence[Quarantined]) -> Iterator[tuple[bool, bool, list[Quarantined]]]:
    """Rows to be judged together, in their order: how they came, and whether a column that nobody knows is refused.

    Files may bring columns that nobody declared; a push may not, nor a row that was refused for one.
    """
    group: list[Quarantined] = []
    for row in rows:
        if group and (_kind(row) != _kind(group[0]) or len(group) == RETRY_ROWS):
            yield *_kind(group[0]), group
            group = []
        group.append(row)
    if group:
        yield *_kind(group[0]), group


def _kind(row: Quarantined) -> tuple[bool, bool]:
    return row.live, row.live or row.data["rule"] == Rule.UNKNOWN_COLUMN


def _refused(item: RefusedBatch) -> dict[str, Any]:
    return {
        "rule": item.rule,
        "column": item.column,
        "received": item.received,
        "broken": item.broken,
        "message": item.message,
        "examples": list(item.examples),
        "at": item.at,
    }
