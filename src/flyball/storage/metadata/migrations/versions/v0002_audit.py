"""The skew audit: sampled predictions that wait, what was found, and the state of each service."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_queue",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("service", sa.String(200), nullable=False),
        sa.Column("version", sa.String(300), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("place", sa.Float(53), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_index("audit_queue_service", "audit_queue", ["service", "at"])
    op.create_table(
        "audit_periods",
        sa.Column("service", sa.String(200), primary_key=True),
        sa.Column("version", sa.String(300), primary_key=True),
        sa.Column("feature", sa.String(300), primary_key=True),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("compared", sa.BigInteger, nullable=False),
        sa.Column("skipped", sa.JSON, nullable=False),
        sa.Column("causes", sa.JSON, nullable=False),
    )
    op.create_table(
        "audit_states",
        sa.Column("service", sa.String(200), primary_key=True),
        sa.Column("share", sa.Float(53), nullable=False),
        sa.Column("audited", sa.BigInteger, nullable=False),
        sa.Column("dropped", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger),
        sa.Column("examples", sa.JSON, nullable=False),
        sa.Column("effect_rows", sa.BigInteger, nullable=False),
        sa.Column("effect_total", sa.Float(53), nullable=False),
        sa.Column("effect_largest", sa.Float(53), nullable=False),
    )
