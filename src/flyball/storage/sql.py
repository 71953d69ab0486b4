"""Rows of other people's databases, by SQLAlchemy: PostgreSQL and SQLite, one code path.

The address is read from the environment when a connection is opened and kept nowhere. Nothing of a driver's exception
leaves this file but its first line, with the address and the password taken out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

from sqlalchemy import Connection, Row, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool

from flyball.define.spec import OriginSpec
from flyball.ingest.ports import CursorValue, PulledRow
from flyball.kernel.errors import FlyballError, InvalidError, UnavailableError
from flyball.kernel.settings import secret_value

CONNECT_SECONDS = 10
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite"}
_PLAIN = (str, int, float, Decimal)


class SqlDatabase:
    """`Database` over SQLAlchemy. `secret` gives the value behind a name."""

    def __init__(self, secret: Callable[[str], str] = secret_value) -> None:
        self._secret = secret

    def rows(
        self, origin: OriginSpec, columns: Sequence[str], *, since: CursorValue | None, size: int
    ) -> Generator[list[PulledRow], None, None]:
        url = _address(self._secret(origin.dsn), origin.dsn)
        try:
            engine = create_engine(url, poolclass=NullPool, connect_args=_connecting(url), hide_parameters=True)
            with engine.connect() as connection:
                if connection.dialect.name == "postgresql":  # a SELECT that writes is refused
                    connection = connection.execution_options(postgresql_readonly=True)
                yield from _pages(connection, origin, columns, since, size)
        except FlyballError:
            raise
        except (ImportError, NoSuchModuleError):
            raise InvalidError(
                "PostgreSQL needs the driver psycopg, which is not installed",
                code="driver_missing",
                hint='pip install "flyball[postgres]"',
            ) from None
        except DBAPIError as error:
            raise _translated(error, url, origin) from None
        except SQLAlchemyError as error:
            raise InvalidError(
                f"the query behind {origin.dsn} cannot be read: {type(error).__name__}", code="bad_query"
            ) from None


def _pages(
    connection: Connection, origin: OriginSpec, columns: Sequence[str], since: CursorValue | None, size: int
) -> Generator[list[PulledRow], None, None]:
    cursor = connection.dialect.identifier_preparer.quote_identifier(origin.cursor)
    query = origin.query.replace("\\", "\\\\").replace(":", "\\:")  # no bound parameters in what a user wrote
    # A null sorts where the database likes; it has to be seen, so that it can be refused.
    where = "" if since is None else f" WHERE {cursor} >= :since OR {cursor} IS NULL"
    statement = text(f"SELECT * FROM (\n{query}\n) AS pulled{where} ORDER BY {cursor}")
    streaming = connection.execution_options(stream_results=True, max_row_buffer=size)
    with streaming.execute(statement, {} if since is None else {"since": since}) as result:
        names = list(result.keys())
        if origin.cursor not in names:
            raise InvalidError(
                f"the query behind {origin.dsn} has no column {origin.cursor!r}; it has {', '.join(names)}",
                code="bad_query",
                hint="select the cursor's column, spelled as the database spells it",
            )
        at, wanted = names.index(origin.cursor), [(i, name) for i, name in enumerate(names) if name in columns]
        while page := result.fetchmany(size):
            yield [_row(row, wanted, at, origin) for row in page]


def _row(row: Row[Any], wanted: list[tuple[int, str]], at: int, origin: OriginSpec) -> PulledRow:
    return PulledRow(_cursor(row[at], origin), {name: _value(row[place], name) for place, name in wanted})


def _cursor(value: Any, origin: OriginSpec) -> CursorValue | None:
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC)
    if value is None or (isinstance(value, (*_PLAIN, date)) and not isinstance(value, bool)):
        return value
    raise InvalidError(
        f"the cursor {origin.cursor!r} comes as {type(value).__name__}; pull by a time, a number or a text",
        code="unreadable_type",
        hint=f"cast it in the query, such as CAST({origin.cursor} AS text) AS {origin.cursor}",
    )


def _value(value: Any, name: str) -> Any:
    """A value as the contract reads it; times in UTC without a zone."""
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    if value is None or isinstance(value, (*_PLAIN, date)):
        return value
    if isinstance(value, UUID):
        return str(value)
    binary = isinstance(value, (bytes, bytearray, memoryview))
    raise InvalidError(
        f"column {name!r} of the query comes as {type(value).__name__}, and a source's column holds text, a number, "
        "true or false, or a time",
        code="unreadable_type",
        hint=f"write encode({name}, 'hex') AS {name} in the query" if binary else f"cast {name} in the query",
    )


def _address(dsn: str, name: str) -> URL:
    """The address with the driver that we use. No message repeats any of it."""
    try:
        url = make_url(dsn)
    except (ArgumentError, ValueError):
        url = None
    driver = _DRIVERS.get(url.drivername.partition("+")[0]) if url is not None else None
    if url is None or driver is None:
        raise InvalidError(
            f"the secret {name} is not the address of a database",
            code="bad_dsn",
            hint=f"export {name}=postgresql://USER:PASSWORD@HOST:5432/DATABASE, or sqlite:////path/to/file.db",
        )
    if driver == "sqlite" and url.database and not Path(url.database).is_file():  # it would be made, empty
        raise UnavailableError(f"the file that {name} names is not there", code="database_unavailable")
    return url.set(drivername=driver)


def _connecting(url: URL) -> dict[str, Any]:
    if url.drivername == "sqlite":
        return {"timeout": CONNECT_SECONDS}
    return {"connect_timeout": CONNECT_SECONDS, "application_name": "flyball", "keepalives_idle": 30}


def _translated(error: DBAPIError, url: URL, origin: OriginSpec) -> FlyballError:
    said = _without_secrets(str(error.orig), url)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    said = lines[0][:300] if lines else type(error.orig).__name__
    lost = isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated
    if url.drivername == "sqlite" and re.match(r"no such|near |unrecognized|.*syntax", said):
        lost = False  # SQLite's driver calls a wrong query an operational error
    if lost:
        return UnavailableError(
            f"the database behind {origin.dsn} does not answer: {said}",
            code="database_unavailable",
            hint="the pull is tried again by itself; flyball ingest SOURCE --pull tries now",
        )
    return InvalidError(
        f"the database behind {origin.dsn} refuses the query: {said}",
        code="bad_query",
        hint="mend the query or the cursor of fb.Sql and flyball apply; it is tried again by itself",
    )


def _without_secrets(said: str, url: URL) -> str:
    password = str(url.password or "")
    spellings = {url.render_as_string(hide_password=False), password, quote(password, safe=""), quote_plus(password)}
    for spelling in sorted(filter(None, spellings), key=len, reverse=True):
        said = said.replace(spelling, "***")
    return said
