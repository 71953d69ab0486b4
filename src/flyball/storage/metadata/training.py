"""The ledger of runs (`training.ports.RunStore`)."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import BigInteger, Column, Engine, Integer, String, Table, Text, insert, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from flyball.kernel.errors import ConflictError, NotFoundError
from flyball.storage.metadata.database import METADATA
from flyball.training.ports import TRANSITIONS, Handle, RunRecord, RunSpec, RunState, run_spec_from_data

RUNS = Table(
    "runs",
    METADATA,
    Column("run", String(64), primary_key=True),
    Column("kind", String(16), nullable=False, index=True),
    Column("model", String(200), nullable=False, index=True),
    Column("state", String(16), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("started", BigInteger),
    Column("finished", BigInteger),
    Column("handle", Text),
    Column("result", Text),
    Column("error", Text),
)


class SqlRunStore:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, spec: RunSpec, *, actor: str, reason: str, at: int) -> RunRecord:
        row = {
            "run": spec.run,
            "kind": spec.kind,
            "model": spec.model.name,
            "state": RunState.QUEUED.value,
            "attempt": 0,
            "actor": actor,
            "reason": reason,
            "spec": json.dumps(spec.to_data(), sort_keys=True),
            "created": at,
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(RUNS).values(row))
        except IntegrityError:
            existing = self.get(spec.run)
            if existing.spec != spec:
                raise ConflictError(
                    f"the run {spec.run} exists with another spec",
                    code="run_exists",
                    hint="give the new run an id of its own",
                ) from None
            return existing
        return self.get(spec.run)

    def get(self, run: str) -> RunRecord:
        with self._engine.connect() as connection:
            return _get(connection, run)

    def list(
        self, *, model: str = "", kind: str = "", states: tuple[RunState, ...] = (), limit: int = 100
    ) -> list[RunRecord]:
        query = select(RUNS).order_by(RUNS.c.created.desc(), RUNS.c.run.desc()).limit(limit)
        if model:
            query = query.where(RUNS.c.model == model)
        if kind:
            query = query.where(RUNS.c.kind == kind)
        if states:
            query = query.where(RUNS.c.state.in_([state.value for state in states]))
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query)]

    def update(
        self,
        run: str,
        *,
        expected: RunState,
        state: RunState,
        at: int,
        attempt: int | None = None,
        handle: Handle | None = None,
        result: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
    ) -> RunRecord:
        if state not in TRANSITIONS[expected]:
            raise ConflictError(f"a run that is {expected} cannot become {state}", code="run_state_changed")
        values: dict[str, Any] = {"state": state.value}
        if expected is RunState.QUEUED and state is RunState.RUNNING:
            values |= {"attempt": RUNS.c.attempt + 1, "started": at, "handle": None}
        if state.final:
            values["finished"] = at
        for name, data in (("handle", handle and handle.to_data()), ("result", result), ("error", error)):
            if data is not None:
                values[name] = json.dumps(data, sort_keys=True)
        condition = (RUNS.c.run == run) & (RUNS.c.state == expected.value)
        if attempt is not None:
            condition &= RUNS.c.attempt == attempt
        with self._engine.begin() as connection:
            changed = connection.execute(update(RUNS).where(condition).values(values)).rowcount
            record = _get(connection, run)
        if not changed:
            raise ConflictError(
                f"the run {run} is {record.state} in attempt {record.attempt}, not {expected}"
                + ("" if attempt is None else f" in attempt {attempt}"),
                code="run_state_changed",
            )
        return record


def _get(connection: Connection, run: str) -> RunRecord:
    row = connection.execute(select(RUNS).where(RUNS.c.run == run)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no run {run!r}", code="run_not_found", hint="flyball status lists the runs")
    return _record(row)


def _record(row: Row[Any]) -> RunRecord:
    return RunRecord(
        id=row.run,
        spec=run_spec_from_data(json.loads(row.spec)),
        state=RunState(row.state),
        attempt=row.attempt,
        actor=row.actor,
        reason=row.reason,
        created=row.created,
        started=row.started,
        finished=row.finished,
        handle=None if row.handle is None else Handle(**json.loads(row.handle)),
        result=None if row.result is None else json.loads(row.result),
        error=None if row.error is None else json.loads(row.error),
    )
