"""Facts: what changed the platform. Rows are only ever added."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, Index, Integer, String, Table, insert, select

from flyball.kernel.facts import Fact
from flyball.storage.metadata.database import METADATA

FACTS = Table(
    "facts",
    METADATA,
    Column("n", Integer, primary_key=True, autoincrement=True),  # the order in which they were committed
    Column("id", String(40), nullable=False, unique=True),
    Column("at", BigInteger, nullable=False),
    Column("wall", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("request_id", String(80), nullable=False),
    Column("kind", String(80), nullable=False),
    Column("subject", String(300), nullable=False),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Column("note", String, nullable=False),
    Column("details", JSON, nullable=False),
    Index("facts_subject", "subject"),
)


class SqlFacts:
    """`governance.ports.FactStore` on a connection: what is added is committed with the caller's transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, fact: Fact) -> None:
        self._connection.execute(
            insert(FACTS).values(
                id=fact.id,
                at=fact.at,
                wall=fact.wall,
                actor=fact.actor,
                request_id=fact.request_id,
                kind=fact.kind,
                subject=fact.subject,
                before=fact.before,
                after=fact.after,
                note=fact.note,
                details=fact.details,
            )
        )

    def list(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[Fact]:
        query = select(FACTS).order_by(FACTS.c.n.desc()).limit(limit)
        if subject:
            query = query.where(FACTS.c.subject == subject)
        if kind:
            query = query.where(FACTS.c.kind == kind)
        return [_fact(dict(row)) for row in self._connection.execute(query).mappings()]


def _fact(row: dict[str, Any]) -> Fact:
    row.pop("n")
    return Fact(**row)
