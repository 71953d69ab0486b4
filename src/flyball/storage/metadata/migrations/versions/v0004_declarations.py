"""Every declaration that a source ever had: what it took under one can be found after it went or changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from flyball.kernel.ids import digest

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "declarations",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
    )
    projects = sa.table("projects", sa.column("spec", sa.JSON), sa.column("applied_at", sa.BigInteger))
    rows = op.get_bind().execute(sa.select(projects.c.spec, projects.c.applied_at)).all()
    found = {digest(spec): (at, spec) for project, at in rows for spec in project.get("sources", [])}
    if found:
        op.bulk_insert(table, [{"digest": key, "at": at, "spec": spec} for key, (at, spec) in found.items()])
