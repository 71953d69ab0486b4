"""One transaction over all rooms' stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import cast

from sqlalchemy import Connection, Engine

from flyball.storage.metadata.audit import SqlAudit
from flyball.storage.metadata.database import scrub
from flyball.storage.metadata.erasure import SqlErasures
from flyball.storage.metadata.governance import SqlFacts
from flyball.storage.metadata.loop import SqlLoop
from flyball.storage.metadata.monitoring import SqlMonitoring
from flyball.storage.metadata.projects import SqlProjects
from flyball.storage.metadata.registry import SqlVersionStore
from flyball.storage.metadata.rollout import SqlRollouts
from flyball.storage.metadata.training import SqlRunStore


class SqlUnit:
    """`loop.ports.Unit`: the stores of one connection, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def facts(self) -> SqlFacts:
        return SqlFacts(self._connection)

    @cached_property
    def erasures(self) -> SqlErasures:
        return SqlErasures(self._connection)

    @cached_property
    def projects(self) -> SqlProjects:
        return SqlProjects(self._connection)

    @cached_property
    def rollouts(self) -> SqlRollouts:
        return SqlRollouts(self._connection)

    @cached_property
    def monitoring(self) -> SqlMonitoring:
        return SqlMonitoring(self._connection)

    @cached_property
    def audit(self) -> SqlAudit:
        return SqlAudit(self._connection)

    @cached_property
    def loop(self) -> SqlLoop:
        return SqlLoop(self._connection)

    @cached_property
    def runs(self) -> SqlRunStore:
        return SqlRunStore(cast(Engine, Joined(self._connection)))

    @cached_property
    def versions(self) -> SqlVersionStore:
        return SqlVersionStore(cast(Engine, Joined(self._connection)))


class Joined:
    """Stands in for an engine, so that a store which begins transactions of its own takes part in an open one: its
    transactions become savepoints, and are durable when the outer one commits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self._connection.begin_nested():
            yield self._connection

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        yield self._connection


class SqlMetadata:
    """`loop.ports.Metadata` on an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def write(self) -> Iterator[SqlUnit]:
        with self._engine.begin() as connection:
            yield SqlUnit(connection)

    @contextmanager
    def read(self) -> Iterator[SqlUnit]:
        with self._engine.connect().execution_options(read_only=True) as connection:
            yield SqlUnit(connection)

    def scrub(self) -> bool:
        return scrub(self._engine)
