"""The project that was last applied, per name, and each declaration that a source ever had."""

from __future__ import annotations

import msgspec
from sqlalchemy import JSON, BigInteger, Column, Connection, String, Table, select

from flyball.define.spec import ProjectSpec, SourceSpec, project_from_data
from flyball.kernel.ids import digest
from flyball.storage.metadata.database import METADATA, upsert

PROJECTS = Table(
    "projects",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("applied_at", BigInteger, nullable=False),
    Column("applied_by", String(200), nullable=False),
)

DECLARATIONS = Table(
    "declarations",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("spec", JSON, nullable=False),
)


class SqlProjects:
    """`loop.ports.ProjectStore` on a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> ProjectSpec | None:
        spec = self._connection.execute(select(PROJECTS.c.spec).where(PROJECTS.c.name == name)).scalar()
        return None if spec is None else project_from_data(spec)

    def all(self) -> list[ProjectSpec]:
        rows = self._connection.execute(select(PROJECTS.c.spec).order_by(PROJECTS.c.name)).scalars()
        return [project_from_data(spec) for spec in rows]

    def put(self, project: ProjectSpec, *, at: int, actor: str) -> None:
        values = {"digest": project.hash, "spec": project.to_data(), "applied_at": at, "applied_by": actor}
        upsert(self._connection, PROJECTS, {"name": project.name}, values)
        for source in project.sources:
            data = source.to_data()
            upsert(self._connection, DECLARATIONS, {"digest": digest(data)}, {"at": at, "spec": data})

    def declarations(self) -> list[SourceSpec]:
        rows = self._connection.execute(select(DECLARATIONS.c.spec).order_by(DECLARATIONS.c.at)).scalars()
        return [msgspec.convert(spec, SourceSpec) for spec in rows]
