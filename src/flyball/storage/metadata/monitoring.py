"""Drift counts, quality per period, and alerts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, Float, Index, String, Table, select

from flyball.monitoring.counts import add
from flyball.monitoring.ports import Alert, DriftPeriod, QualityPeriod
from flyball.storage.metadata.database import METADATA, upsert

DRIFT = Table(
    "drift_periods",
    METADATA,
    Column("service", String(200), primary_key=True),
    Column("version", String(300), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("rows", BigInteger, nullable=False),
    Column("counts", JSON, nullable=False),
)

QUALITY = Table(
    "quality_periods",
    METADATA,
    Column("service", String(200), primary_key=True),
    Column("version", String(300), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("rows", BigInteger, nullable=False),
    Column("matured", BigInteger, nullable=False),
    Column("labelled", BigInteger, nullable=False),
    Column("metric", String(80), nullable=False),
    Column("value", Float),
)

ALERTS = Table(
    "alerts",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("service", String(200), nullable=False),
    Column("version", String(300), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    Column("details", JSON, nullable=False),
    Index("alerts_service", "service", "closed_at"),
)


class SqlMonitoring:
    """`monitoring.ports.MonitoringStore` on a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_drift(self, period: DriftPeriod) -> None:
        key = {"service": period.service, "version": period.version, "start": period.start}
        where = [DRIFT.c[name] == value for name, value in key.items()]
        row = self._connection.execute(select(DRIFT.c.rows, DRIFT.c.counts).where(*where)).first()
        rows, counts = (row.rows, row.counts) if row else (0, {})
        values = {"rows": rows + period.rows, "counts": add(counts, period.counts)}
        upsert(self._connection, DRIFT, key, values)

    def drift(self, service: str, *, version: str = "", limit: int = 60) -> list[DriftPeriod]:
        return [DriftPeriod(**row) for row in self._periods(DRIFT, service, version, limit)]

    def put_quality(self, period: QualityPeriod) -> None:
        key = {"service": period.service, "version": period.version, "start": period.start}
        names = ("rows", "matured", "labelled", "metric", "value")
        upsert(self._connection, QUALITY, key, {name: getattr(period, name) for name in names})

    def quality(self, service: str, *, version: str = "", limit: int = 60) -> list[QualityPeriod]:
        return [QualityPeriod(**row) for row in self._periods(QUALITY, service, version, limit)]

    def put_alert(self, alert: Alert) -> None:
        names = ("service", "version", "kind", "opened_at", "closed_at", "details")
        upsert(self._connection, ALERTS, {"id": alert.id}, {name: getattr(alert, name) for name in names})

    def alerts(self, service: str = "", *, open_only: bool = False, limit: int = 100) -> list[Alert]:
        query = select(ALERTS).order_by(ALERTS.c.opened_at.desc(), ALERTS.c.id.desc()).limit(limit)
        if service:
            query = query.where(ALERTS.c.service == service)
        if open_only:
            query = query.where(ALERTS.c.closed_at.is_(None))
        return [Alert(**row) for row in self._connection.execute(query).mappings()]

    def _periods(self, table: Table, service: str, version: str, limit: int) -> list[dict[str, Any]]:
        query = select(table).where(table.c.service == service).order_by(table.c.start.desc()).limit(limit)
        if version:
            query = query.where(table.c.version == version)
        return [dict(row) for row in self._connection.execute(query).mappings()]
