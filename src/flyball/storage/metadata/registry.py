"""The ledger of versions and aliases (`registry.ports.VersionStore`)."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    ForeignKeyConstraint,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError

from flyball.kernel.errors import ConflictError, NotFoundError
from flyball.registry.ports import VersionRecord
from flyball.storage.metadata.database import METADATA

VERSIONS = Table(
    "versions",
    METADATA,
    Column("model", String(200), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("run", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("evaluation", Text, nullable=False),
    Column("gate", Text, nullable=False),
    UniqueConstraint("model", "run", name="versions_model_run"),
)
ALIASES = Table(
    "version_aliases",
    METADATA,
    Column("model", String(200), primary_key=True),
    Column("alias", String(100), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("changed", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
)

_ATTEMPTS = 20  # of taking the next number, when others register the same model at the same time


class SqlVersionStore:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(
        self,
        model: str,
        *,
        digest: str,
        run: str,
        at: int,
        metrics: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        gate: dict[str, Any] | None = None,
    ) -> VersionRecord:
        next_number = select(func.coalesce(func.max(VERSIONS.c.number), 0) + 1).where(VERSIONS.c.model == model)
        values = {
            "model": model,
            "number": next_number.scalar_subquery(),
            "digest": digest,
            "run": run,
            "created": at,
            "metrics": json.dumps(metrics or {}, sort_keys=True),
            "evaluation": json.dumps(evaluation or {}, sort_keys=True),
            "gate": json.dumps(gate or {}, sort_keys=True),
        }
        for attempt in range(_ATTEMPTS):
            existing = self._of_run(model, run)
            if existing is not None:
                return _same_digest(existing, digest)
            try:
                with self._engine.begin() as connection:
                    connection.execute(insert(VERSIONS).values(values))
            except IntegrityError:
                if attempt == _ATTEMPTS - 1:
                    raise
        registered = self._of_run(model, run)
        assert registered is not None  # it was just committed, and versions are never deleted
        return registered

    def get(self, model: str, number: int) -> VersionRecord:
        query = select(VERSIONS).where((VERSIONS.c.model == model) & (VERSIONS.c.number == number))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(
                f"there is no version {model}/{number}",
                code="version_not_found",
                hint=f"flyball train {model} makes one",
            )
        return _record(row)

    def find(self, digest: str) -> list[VersionRecord]:
        query = select(VERSIONS).where(VERSIONS.c.digest == digest).order_by(VERSIONS.c.model, VERSIONS.c.number)
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query)]

    def list(self, model: str, *, limit: int = 100) -> list[VersionRecord]:
        query = select(VERSIONS).where(VERSIONS.c.model == model).order_by(VERSIONS.c.number.desc()).limit(limit)
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query)]

    def aliases(self, model: str) -> dict[str, int]:
        query = select(ALIASES.c.alias, ALIASES.c.number).where(ALIASES.c.model == model)
        with self._engine.connect() as connection:
            return {row.alias: row.number for row in connection.execute(query)}

    def set_alias(self, model: str, alias: str, number: int, *, expected: int | None, at: int) -> None:
        self.get(model, number)
        try:
            with self._engine.begin() as connection:
                if expected is None:
                    values = {"model": model, "alias": alias, "number": number, "changed": at}
                    changed = connection.execute(insert(ALIASES).values(values)).rowcount
                else:
                    condition = (ALIASES.c.model == model) & (ALIASES.c.alias == alias) & (ALIASES.c.number == expected)
                    statement = update(ALIASES).where(condition).values(number=number, changed=at)
                    changed = connection.execute(statement).rowcount
        except IntegrityError:
            changed = 0
        if not changed:
            actual = self.aliases(model).get(alias)
            raise ConflictError(
                f"the alias {alias!r} of {model} is {_show(actual)}, not {_show(expected)}: someone else changed it",
                code="alias_changed",
                details={"actual": actual, "expected": expected},
            )

    def _of_run(self, model: str, run: str) -> VersionRecord | None:
        query = select(VERSIONS).where((VERSIONS.c.model == model) & (VERSIONS.c.run == run))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _record(row)


def _same_digest(existing: VersionRecord, digest: str) -> VersionRecord:
    if existing.digest != digest:
        raise ConflictError(
            f"the run {existing.run} registered {existing.ref} with digest {existing.digest[:12]}, not {digest[:12]}",
            code="run_registered",
        )
    return existing


def _show(number: int | None) -> str:
    return "not set" if number is None else f"at version {number}"


def _record(row: Row[Any]) -> VersionRecord:
    return VersionRecord(
        model=row.model,
        number=row.number,
        digest=row.digest,
        run=row.run,
        created=row.created,
        metrics=json.loads(row.metrics),
        evaluation=json.loads(row.evaluation),
        gate=json.loads(row.gate),
    )
