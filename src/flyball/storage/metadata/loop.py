"""What the loops remember: the collector's manifests, retraining, schedules, and the epochs of the plans."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, Integer, String, Table, delete, func, insert, select

from flyball.loop.ports import Awaiting, Intent, Manifest, Piece, PlanEpoch, RetrainState, Schedule
from flyball.storage.metadata.database import METADATA, upsert

MANIFESTS = Table(
    "collector_manifests",
    METADATA,
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("pieces", JSON, nullable=False),
    Column("done", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)

SEGMENTS = Table(  # how far each segment of the prediction log was collected; rows go when the segment is removed
    "collector_segments",
    METADATA,
    Column("slot", String(80), primary_key=True),
    Column("segment", String(80), primary_key=True),
    Column("end", BigInteger, nullable=False),
)

INTENTS = Table(  # why a run was asked for, and for which service its version is meant
    "run_intents",
    METADATA,
    Column("run", String(64), primary_key=True),
    Column("cause", String(20), nullable=False),
    Column("service", String(200), nullable=False),
    Column("batch", String(200), nullable=False),
    Column("not_yet", String, nullable=False),
)

RETRAIN = Table(
    "retrain",
    METADATA,
    Column("service", String(200), primary_key=True),
    Column("run", String(64), nullable=False),
    Column("started_at", BigInteger),
    Column("decision", String, nullable=False),
)

AWAITING = Table(
    "awaiting_approval",
    METADATA,
    Column("service", String(200), primary_key=True),
    Column("version", String(300), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
)

SCHEDULES = Table(
    "schedules",
    METADATA,
    Column("batch", String(200), primary_key=True),
    Column("last_at", BigInteger),
    Column("after", BigInteger, nullable=False),
    Column("run", String(64), nullable=False),
    Column("note", String, nullable=False),
)

PLANS = Table(
    "plans",
    METADATA,
    Column("kind", String(20), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
)


class SqlLoop:
    """`loop.ports.LoopStore` on a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # the collector

    def pending(self) -> Manifest | None:
        query = select(MANIFESTS).where(MANIFESTS.c.done == 0).order_by(MANIFESTS.c.n)
        row = self._connection.execute(query).first()
        return Manifest(n=row.n, pieces=tuple(Piece(**piece) for piece in row.pieces)) if row else None

    def open_manifest(self, pieces: tuple[Piece, ...], at: int) -> Manifest:
        last = self._connection.execute(select(func.coalesce(func.max(MANIFESTS.c.n), 0))).scalar_one()
        data = [piece.to_data() for piece in pieces]
        self._connection.execute(insert(MANIFESTS).values(n=last + 1, pieces=data, done=0, rows=0, at=at))
        return Manifest(n=last + 1, pieces=pieces)

    def close_manifest(self, manifest: Manifest, rows: int) -> None:
        upsert(self._connection, MANIFESTS, {"n": manifest.n}, {"done": 1, "rows": rows})
        for piece in manifest.pieces:
            key = {"slot": piece.slot, "segment": piece.segment}
            upsert(self._connection, SEGMENTS, key, {"end": piece.end})

    def collected(self) -> dict[tuple[str, str], int]:
        rows = self._connection.execute(select(SEGMENTS))
        return {(row.slot, row.segment): row.end for row in rows}

    def forget_segment(self, slot: str, segment: str) -> None:
        where = (SEGMENTS.c.slot == slot) & (SEGMENTS.c.segment == segment)
        self._connection.execute(delete(SEGMENTS).where(where))

    def collected_rows(self) -> int:
        total: int = self._connection.execute(select(func.coalesce(func.sum(MANIFESTS.c.rows), 0))).scalar_one()
        return int(total)

    # runs, retraining, approval, schedules

    def intent(self, run: str) -> Intent | None:
        row = self._connection.execute(select(INTENTS).where(INTENTS.c.run == run)).mappings().first()
        return Intent(**row) if row else None

    def put_intent(self, intent: Intent) -> None:
        values = {"cause": intent.cause, "service": intent.service, "batch": intent.batch, "not_yet": intent.not_yet}
        upsert(self._connection, INTENTS, {"run": intent.run}, values)

    def retrain(self, service: str) -> RetrainState:
        row = self._connection.execute(select(RETRAIN).where(RETRAIN.c.service == service)).mappings().first()
        return RetrainState(**row) if row else RetrainState(service=service)

    def put_retrain(self, state: RetrainState) -> None:
        values = {"run": state.run, "started_at": state.started_at, "decision": state.decision}
        upsert(self._connection, RETRAIN, {"service": state.service}, values)

    def awaiting(self, service: str) -> Awaiting | None:
        row = self._connection.execute(select(AWAITING).where(AWAITING.c.service == service)).mappings().first()
        return Awaiting(**row) if row else None

    def put_awaiting(self, awaiting: Awaiting) -> None:
        values = {"version": awaiting.version, "since": awaiting.since, "reason": awaiting.reason}
        upsert(self._connection, AWAITING, {"service": awaiting.service}, values)

    def clear_awaiting(self, service: str) -> None:
        self._connection.execute(delete(AWAITING).where(AWAITING.c.service == service))

    def schedule(self, batch: str) -> Schedule:
        row = self._connection.execute(select(SCHEDULES).where(SCHEDULES.c.batch == batch)).mappings().first()
        return Schedule(**row) if row else Schedule(batch=batch)

    def put_schedule(self, schedule: Schedule) -> None:
        values: dict[str, Any] = {
            "last_at": schedule.last_at,
            "after": schedule.after,
            "run": schedule.run,
            "note": schedule.note,
        }
        upsert(self._connection, SCHEDULES, {"batch": schedule.batch}, values)

    # plans

    def plan(self, kind: str) -> PlanEpoch:
        row = self._connection.execute(select(PLANS).where(PLANS.c.kind == kind)).mappings().first()
        return PlanEpoch(**row) if row else PlanEpoch(kind=kind)

    def put_plan(self, plan: PlanEpoch) -> None:
        upsert(self._connection, PLANS, {"kind": plan.kind}, {"epoch": plan.epoch, "digest": plan.digest})
