"""The metadata database: SQLAlchemy Core on SQLite (WAL) or PostgreSQL; one code path, one set of migrations.

Each room's tables and queries stand in a file of their own beside this one; all hang on `METADATA`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event

METADATA = MetaData()


def open_database(target: Path | str) -> Engine:
    """An engine on a SQLite file, or on the database of a URL. Commits are durable when they return."""
    url = f"sqlite:///{target}" if isinstance(target, Path) else target
    engine = create_engine(url, connect_args={"timeout": 30} if url.startswith("sqlite") else {})
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    return engine
