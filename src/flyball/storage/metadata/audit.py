"""The skew audit's queue of sampled predictions, its counts, and its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from flyball.features.ports import AuditEntry, AuditPeriod, AuditState
from flyball.storage.metadata.database import METADATA, upsert

QUEUE = Table(
    "audit_queue",
    METADATA,
    Column("id", String(80), primary_key=True),
    Column("service", String(200), nullable=False),
    Column("version", String(300), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("place", Float(53), nullable=False),
    Column("record", JSON, nullable=False),
    Index("audit_queue_service", "service", "at"),
)

PERIODS = Table(
    "audit_periods",
    METADATA,
    Column("service", String(200), primary_key=True),
    Column("version", String(300), primary_key=True),
    Column("feature", String(300), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("compared", BigInteger, nullable=False),
    Column("skipped", JSON, nullable=False),
    Column("causes", JSON, nullable=False),
)

STATES = Table(
    "audit_states",
    METADATA,
    Column("service", String(200), primary_key=True),
    Column("share", Float(53), nullable=False),
    Column("audited", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("at", BigInteger),
    Column("examples", JSON, nullable=False),
    Column("effect_rows", BigInteger, nullable=False),
    Column("effect_total", Float(53), nullable=False),
    Column("effect_largest", Float(53), nullable=False),
)


class SqlAudit:
    """`features.ports.AuditStore` on a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def enqueue(self, entry: AuditEntry) -> None:
        there = select(QUEUE.c.id).where(QUEUE.c.id == entry.id)
        if self._connection.execute(there).first() is None:
            self._connection.execute(insert(QUEUE).values({c.name: getattr(entry, c.name) for c in QUEUE.c}))

    def waiting(self, service: str) -> int:
        query = select(func.count()).select_from(QUEUE).where(QUEUE.c.service == service)
        return int(self._connection.execute(query).scalar_one())

    def oldest(self, service: str, *, before: int, limit: int) -> list[AuditEntry]:
        query = (
            select(QUEUE)
            .where(QUEUE.c.service == service, QUEUE.c.at < before)
            .order_by(QUEUE.c.at, QUEUE.c.id)
            .limit(limit)
        )
        return [AuditEntry(**row) for row in self._connection.execute(query).mappings()]

    def dequeue(self, predictions: Sequence[str]) -> None:
        for at in range(0, len(predictions), 500):
            self._connection.execute(delete(QUEUE).where(QUEUE.c.id.in_(predictions[at : at + 500])))

    def drop_from(self, service: str, place: float) -> int:
        return int(
            self._connection.execute(delete(QUEUE).where(QUEUE.c.service == service, QUEUE.c.place >= place)).rowcount
        )

    def forget(self, hit: Callable[[dict[str, Any]], bool]) -> None:
        queued = self._connection.execute(select(QUEUE.c.id, QUEUE.c.version, QUEUE.c.record)).all()
        self.dequeue([id for id, version, record in queued if hit({**record, "id": id, "version": version})])
        for service, examples in self._connection.execute(select(STATES.c.service, STATES.c.examples)).all():
            left = [one for one in examples if not hit(_example(one))]
            self._connection.execute(update(STATES).where(STATES.c.service == service).values(examples=left))

    def add_period(self, period: AuditPeriod) -> None:
        key = {name: getattr(period, name) for name in ("service", "version", "feature", "start")}
        where = [PERIODS.c[name] == value for name, value in key.items()]
        row = self._connection.execute(select(PERIODS).where(*where)).mappings().first()
        compared, skipped, causes = (row["compared"], row["skipped"], row["causes"]) if row else (0, {}, {})
        values = {
            "compared": compared + period.compared,
            "skipped": _sum(skipped, period.skipped),
            "causes": _sum(causes, period.causes),
        }
        upsert(self._connection, PERIODS, key, values)

    def periods(self, service: str, *, version: str = "", since: int = 0) -> list[AuditPeriod]:
        query = select(PERIODS).where(PERIODS.c.service == service, PERIODS.c.start >= since)
        if version:
            query = query.where(PERIODS.c.version == version)
        rows = self._connection.execute(query.order_by(PERIODS.c.start, PERIODS.c.feature)).mappings()
        return [AuditPeriod(**row) for row in rows]

    def state(self, service: str) -> AuditState:
        row = self._connection.execute(select(STATES).where(STATES.c.service == service)).mappings().first()
        return AuditState(**{**row, "examples": tuple(row["examples"])}) if row else AuditState(service=service)

    def put_state(self, state: AuditState) -> None:
        values = {c.name: getattr(state, c.name) for c in STATES.c if c.name != "service"}
        upsert(self._connection, STATES, {"service": state.service}, values | {"examples": list(state.examples)})


def _example(example: dict[str, Any]) -> dict[str, Any]:
    """What an example says of its prediction."""
    return {"id": example["prediction"], "version": example["version"], "key": example["entity"]}


def _sum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}}
