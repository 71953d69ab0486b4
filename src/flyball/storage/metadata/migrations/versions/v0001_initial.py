"""The first schema: facts, projects, runs, versions, rollouts, monitoring, and what the loops remember."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _facts()
    _projects()
    _training()
    _registry()
    _rollout()
    _monitoring()
    _collector()
    _loop()


def _facts() -> None:
    op.create_table(
        "facts",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("wall", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("request_id", sa.String(80), nullable=False),
        sa.Column("kind", sa.String(80), nullable=False),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index("facts_subject", "facts", ["subject"])


def _projects() -> None:
    op.create_table(
        "projects",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("applied_at", sa.BigInteger, nullable=False),
        sa.Column("applied_by", sa.String(200), nullable=False),
    )


def _training() -> None:
    op.create_table(
        "runs",
        sa.Column("run", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger),
        sa.Column("finished", sa.BigInteger),
        sa.Column("handle", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
    )
    for column in ("kind", "model", "state"):
        op.create_index(f"ix_runs_{column}", "runs", [column])


def _registry() -> None:
    op.create_table(
        "versions",
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("evaluation", sa.Text, nullable=False),
        sa.Column("gate", sa.Text, nullable=False),
        sa.UniqueConstraint("model", "run", name="versions_model_run"),
    )
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_table(
        "version_aliases",
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("alias", sa.String(100), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
    )


def _rollout() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("service", sa.String(200), nullable=False),
        sa.Column("version", sa.String(300), nullable=False),
        sa.Column("previous", sa.String(300), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("phase", sa.String(20), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("step_at", sa.BigInteger),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )
    op.create_index("rollouts_service", "rollouts", ["service", "phase"])
    op.create_table(
        "served",
        sa.Column("service", sa.String(200), primary_key=True),
        sa.Column("current", sa.String(300), nullable=False),
        sa.Column("previous", sa.String(300), nullable=False),
    )
    op.create_table(
        "rollout_evidence",
        sa.Column("rollout", sa.String(40), primary_key=True),
        sa.Column("arm", sa.String(40), primary_key=True),
        sa.Column("weight", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
    )


def _monitoring() -> None:
    op.create_table(
        "drift_periods",
        sa.Column("service", sa.String(200), primary_key=True),
        sa.Column("version", sa.String(300), primary_key=True),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("counts", sa.JSON, nullable=False),
    )
    op.create_table(
        "quality_periods",
        sa.Column("service", sa.String(200), primary_key=True),
        sa.Column("version", sa.String(300), primary_key=True),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("matured", sa.BigInteger, nullable=False),
        sa.Column("labelled", sa.BigInteger, nullable=False),
        sa.Column("metric", sa.String(80), nullable=False),
        sa.Column("value", sa.Float),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("service", sa.String(200), nullable=False),
        sa.Column("version", sa.String(300), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index("alerts_service", "alerts", ["service", "closed_at"])


def _collector() -> None:
    op.create_table(
        "collector_manifests",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("pieces", sa.JSON, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "collector_segments",
        sa.Column("slot", sa.String(80), primary_key=True),
        sa.Column("segment", sa.String(80), primary_key=True),
        sa.Column("end", sa.BigInteger, nullable=False),
    )


def _loop() -> None:
    op.create_table(
        "run_intents",
        sa.Column("run", sa.String(64), primary_key=True),
        sa.Column("cause", sa.String(20), nullable=False),
        sa.Column("service", sa.String(200), nullable=False),
        sa.Column("batch", sa.String(200), nullable=False),
        sa.Column("not_yet", sa.String, nullable=False),
    )
    op.create_table(
        "retrain",
        sa.Column("service", sa.String(200), primary_key=True),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("decision", sa.String, nullable=False),
    )
    op.create_table(
        "awaiting_approval",
        sa.Column("service", sa.String(200), primary_key=True),
        sa.Column("version", sa.String(300), nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )
    op.create_table(
        "schedules",
        sa.Column("batch", sa.String(200), primary_key=True),
        sa.Column("last_at", sa.BigInteger),
        sa.Column("after", sa.BigInteger, nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("note", sa.String, nullable=False),
    )
    op.create_table(
        "plans",
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
