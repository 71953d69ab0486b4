"""The metadata database: SQLAlchemy Core on SQLite (WAL) or PostgreSQL; one code path, one set of migrations.

Each room's tables and queries stand in a file of their own beside this one; all hang on `METADATA`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, event, insert, update

METADATA = MetaData()


def open_database(target: Path | str) -> Engine:
    """An engine on a SQLite file, or on the database of a URL. Commits are durable when they return.

    On SQLite a transaction takes the write lock when it begins, so that one that reads and then writes never fails
    half-way; a connection with the execution option `read_only=True` takes none and never waits for a writer.
    """
    url = f"sqlite:///{target}" if isinstance(target, Path) else target
    engine = create_engine(url, connect_args={"timeout": 30} if url.startswith("sqlite") else {})
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver must not begin transactions of its own
            cursor = connection.cursor()
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            read_only = connection.get_execution_options().get("read_only", False)
            connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def scrub(engine: Engine) -> bool:
    """Write the tables anew, so that no page holds what was deleted; False: a reader keeps SQLite's journal alive.

    PostgreSQL's own journal of changes is kept as the server is told to.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name != "sqlite":
            connection.exec_driver_sql("VACUUM FULL")
            return True
        cursor = connection.connection.cursor()  # the driver's: no transaction may be open
        try:
            cursor.execute("VACUUM")
            (busy, _, _) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            cursor.close()
    return not busy


def upsert(connection: Connection, table: Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    """Update the row with this key, or insert it; the caller's transaction keeps the two steps together."""
    where = [table.c[name] == value for name, value in key.items()]
    if values and connection.execute(update(table).where(*where).values(**values)).rowcount:
        return
    connection.execute(insert(table).values(**key, **values))
