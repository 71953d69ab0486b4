"""Rollouts, what each service serves, and the evidence per arm and weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import JSON, BigInteger, Column, Connection, Index, Integer, String, Table, insert, select, update

from flyball.define.spec import RolloutSpec
from flyball.rollout.evidence import ArmCounts
from flyball.rollout.ports import Served
from flyball.rollout.state import OPEN, Phase, RolloutState
from flyball.storage.metadata.database import METADATA, upsert

ROLLOUTS = Table(
    "rollouts",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("service", String(200), nullable=False),
    Column("version", String(300), nullable=False),
    Column("previous", String(300), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("phase", String(20), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("step", Integer, nullable=False),
    Column("step_at", BigInteger),
    Column("epoch", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Index("rollouts_service", "service", "phase"),
)

SERVED = Table(
    "served",
    METADATA,
    Column("service", String(200), primary_key=True),
    Column("current", String(300), nullable=False),
    Column("previous", String(300), nullable=False),
)

EVIDENCE = Table(
    "rollout_evidence",
    METADATA,
    Column("rollout", String(40), primary_key=True),
    Column("arm", String(40), primary_key=True),
    Column("weight", Integer, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
)


class SqlRollouts:
    """`rollout.ports.RolloutStore` on a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def served(self, service: str) -> Served:
        row = self._connection.execute(select(SERVED).where(SERVED.c.service == service)).mappings().first()
        return Served(**row) if row else Served(service=service)

    def put_served(self, served: Served) -> None:
        values = {"current": served.current, "previous": served.previous}
        upsert(self._connection, SERVED, {"service": served.service}, values)

    def open(self, service: str) -> RolloutState | None:
        query = select(ROLLOUTS).where(ROLLOUTS.c.service == service, ROLLOUTS.c.phase.in_([p.value for p in OPEN]))
        row = self._connection.execute(query).mappings().first()
        return _state(dict(row)) if row else None

    def get(self, id: str) -> RolloutState | None:
        row = self._connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.id == id)).mappings().first()
        return _state(dict(row)) if row else None

    def history(self, service: str, limit: int = 20) -> list[RolloutState]:
        query = select(ROLLOUTS).where(ROLLOUTS.c.service == service).order_by(ROLLOUTS.c.id.desc()).limit(limit)
        return [_state(dict(row)) for row in self._connection.execute(query).mappings()]

    def put(self, state: RolloutState) -> None:
        values = {name: getattr(state, name) for name in _FIELDS}
        values |= {"spec": state.spec.to_data(), "phase": state.phase.value}
        upsert(self._connection, ROLLOUTS, {"id": state.id}, values)

    def counts(self, rollout: str) -> tuple[ArmCounts, ...]:
        query = select(EVIDENCE).where(EVIDENCE.c.rollout == rollout).order_by(EVIDENCE.c.weight, EVIDENCE.c.arm)
        rows = self._connection.execute(query).mappings()
        return tuple(
            ArmCounts(arm=row["arm"], weight=row["weight"], requests=row["requests"], errors=row["errors"])
            for row in rows
        )

    def add_counts(self, rollout: str, counts: Iterable[ArmCounts]) -> None:
        for count in counts:
            key = {"rollout": rollout, "arm": count.arm, "weight": count.weight}
            more = {
                "requests": EVIDENCE.c.requests + count.requests,
                "errors": EVIDENCE.c.errors + count.errors,
            }
            where = [EVIDENCE.c[name] == value for name, value in key.items()]
            if not self._connection.execute(update(EVIDENCE).where(*where).values(**more)).rowcount:
                row = {**key, "requests": count.requests, "errors": count.errors}
                self._connection.execute(insert(EVIDENCE).values(**row))


_FIELDS = ("service", "version", "previous", "started_at", "step", "step_at", "epoch", "reason")


def _state(row: dict[str, Any]) -> RolloutState:
    row["spec"] = msgspec.convert(row["spec"], RolloutSpec)
    row["phase"] = Phase(row["phase"])
    return RolloutState(**row)
