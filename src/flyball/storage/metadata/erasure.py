"""Erasures (`governance.ports.ErasureStore`)."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Connection, String, Table, func, select

from flyball.governance.erasure import Erasure, Step
from flyball.kernel.errors import NotFoundError
from flyball.storage.metadata.database import METADATA, upsert

ERASURES = Table(
    "erasures",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("step", String(20), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("body", JSON, nullable=False),
)
TURNED = (Step.ERASED.value, Step.TURNED.value, Step.DONE.value)


class SqlErasures:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, erasure: Erasure) -> None:
        values = {"step": erasure.step.value, "at": erasure.at, "body": erasure.to_data()}
        upsert(self._connection, ERASURES, {"id": erasure.id}, values)

    def get(self, id: str) -> Erasure:
        row = self._connection.execute(select(ERASURES).where(ERASURES.c.id == id)).first()
        if row is None:
            raise NotFoundError(f"there is no erasure {id!r}", code="erasure_not_found")
        return Erasure.from_data(row.id, row.step, row.body)

    def list(self, *, limit: int = 100) -> list[Erasure]:
        rows = self._connection.execute(select(ERASURES).order_by(ERASURES.c.id.desc()).limit(limit))
        return [Erasure.from_data(row.id, row.step, row.body) for row in rows]

    def open(self) -> Erasure | None:
        query = select(ERASURES).where(ERASURES.c.step != Step.DONE.value).order_by(ERASURES.c.id).limit(1)
        row = self._connection.execute(query).first()
        return Erasure.from_data(row.id, row.step, row.body) if row else None

    def turns(self) -> int:
        query = select(func.count()).select_from(ERASURES).where(ERASURES.c.step.in_(TURNED))
        return int(self._connection.execute(query).scalar_one())
