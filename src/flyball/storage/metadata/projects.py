"""The project that was last applied, per name."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Connection, String, Table, select

from flyball.define.spec import ProjectSpec, project_from_data
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
