"""Pull: rows of a database's query into the log, in the order of a cursor, each once.

A page of rows and the position after it are one transaction of the log, so that a pull which is cut off anywhere goes
on where the last committed page ended. What one source's database does holds up no other source.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from flyball.define.spec import OriginSpec, SourceSpec
from flyball.ingest.cursor import Position, position_of
from flyball.ingest.intake import Intake
from flyball.ingest.ports import Database, EventLog, PulledRow
from flyball.ingest.receipts import Receipt, total
from flyball.ingest.rejection import readable
from flyball.ingest.rows import require_columns
from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError, InvalidError, UnavailableError
from flyball.kernel.times import SECOND

logger = logging.getLogger(__name__)
FIRST_RETRY, LONGEST_RETRY = 1.0, 300.0  # seconds after a failed pull


@dataclass(kw_only=True, slots=True)
class PullState:
    """What became of a source's pulls in this process. Times are domain times, None: not yet.

    Args:
        error, code: of the last pull, empty where it went well. `failures`: how many failed one after another.
        pulls, rows: how many went well, and how many rows they took.
        again: rows of the last pull that had been taken before.
    """

    pulled_at: int | None = None
    failed_at: int | None = None
    error: str = ""
    code: str = ""
    failures: int = 0
    failed: int = 0
    pulls: int = 0
    rows: int = 0
    again: int = 0


class Pulls:
    """Pulls sources that have an origin. Any thread may call; the pulls of one source follow one another."""

    def __init__(
        self, *, log: EventLog, intake: Intake, database: Database | None, clock: Clock, page_rows: int
    ) -> None:
        self._log = log
        self._intake = intake
        self._database = database
        self._clock = clock
        self._page_rows = page_rows
        self._states: dict[str, PullState] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def pull(self, source: str, *, stopping: Callable[[], bool] = lambda: False) -> Receipt:
        """Take all rows that are new or changed; those of each page are durable before the next is read.

        Raises `InvalidError` (`no_origin`, `null_cursor`, `missing_column`, and what `Database.rows` raises).
        """
        spec = self._intake.source(source)
        if spec.origin is None:
            raise InvalidError(
                f"source {spec.name} has no origin to pull from",
                code="no_origin",
                hint=f'declare it: class {spec.name}(fb.Source, …, origin=fb.Sql(fb.secret("PG_DSN"), "SELECT …", …))',
            )
        with self._guard:
            state = self._states.setdefault(spec.name, PullState())
            lock = self._locks.setdefault(spec.name, threading.Lock())
        with lock:
            try:
                receipt = self._pull(spec, spec.origin, state, stopping)
            except FlyballError as error:
                state.error, state.code, state.failed_at = error.message, error.code, self._clock.now()
                state.failures += 1
                state.failed += 1
                raise
            state.error = state.code = ""
            state.failures, state.pulled_at, state.pulls = 0, self._clock.now(), state.pulls + 1
            return receipt

    def status(self, spec: SourceSpec) -> dict[str, Any]:
        """The origin as declared and what became of its pulls; the address stays behind its name."""
        origin, state = spec.origin, self._states.get(spec.name, PullState())
        assert origin is not None
        return {
            "dsn": origin.dsn,
            "cursor": origin.cursor,
            "every": origin.every,
            "lag": origin.lag,
            **{name: getattr(state, name) for name in PullState.__slots__},
        }

    def failures(self, source: str) -> int:
        """How many pulls failed since the last that went well."""
        return self._states.get(source, PullState()).failures

    def _pull(self, spec: SourceSpec, origin: OriginSpec, state: PullState, stopping: Callable[[], bool]) -> Receipt:
        if self._database is None:
            raise UnavailableError("this platform was opened without databases", code="database_unavailable")
        state.again = 0
        position = position_of(self._log.position(spec.name), origin, history=spec.known.kind != "live")
        receipts: list[Receipt] = []
        since = position.floor(origin)
        with closing(self._database.rows(origin, readable(spec), since=since, size=self._page_rows)) as pages:
            for page in pages:
                _check_page(page, spec, origin)
                fresh = position.fresh(page, origin)
                state.again += len(page) - len(fresh)
                if fresh:
                    receipts.append(self._append(spec, fresh, position))
                    state.rows += len(fresh)
                if stopping():
                    return total(spec.name, receipts)
        if position.history:
            position.history = False  # what comes from now on is known from when it is taken
            self._append(spec, [], position)
        return total(spec.name, receipts)

    def _append(self, spec: SourceSpec, rows: list[dict[str, Any]], position: Position) -> Receipt:
        return self._intake.append_read(spec.name, rows, live=not position.history, position=position.dumps())


def _check_page(page: list[PulledRow], spec: SourceSpec, origin: OriginSpec) -> None:
    if not page:
        return
    require_columns(list(page[0].values), spec)
    nulls = sum(row.cursor is None for row in page)
    if nulls:
        raise InvalidError(
            f"{nulls} rows of the query of source {spec.name} have no {origin.cursor}, and rows are pulled by it",
            code="null_cursor",
            hint=f"give them one in the database, or leave them out: … WHERE {origin.cursor} IS NOT NULL",
        )


def pause(every: int, failures: int) -> float:
    """Seconds until the next pull, `every` in µs: after a failure one, then twice as long each time, to five minutes.

    >>> pause(60_000_000, 0), pause(60_000_000, 1), pause(60_000_000, 4), pause(60_000_000, 99)
    (60.0, 1.0, 8.0, 300.0)
    """
    if not failures:
        return every / SECOND
    return min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 20))


class Puller:
    """Pulls each source with an origin when it is due, from a thread of its own."""

    def __init__(self, pulls: Pulls, *, on_stored: Callable[[], None] = lambda: None) -> None:
        self._pulls = pulls
        self._on_stored = on_stored
        self._turns: dict[str, _Turn] = {}

    def use(self, sources: Mapping[str, OriginSpec]) -> None:
        """Pull these sources from now on, and no others; one whose origin is new is pulled at once."""
        for name, turn in list(self._turns.items()):
            if sources.get(name) != turn.origin:
                turn.stop(wait=False)
                del self._turns[name]
        for name, origin in sources.items():
            if name not in self._turns:
                self._turns[name] = _Turn(name, origin, self._pulls, self._on_stored)

    def stop(self, timeout: float = 10.0) -> None:
        """Let each pull end with the page it is at, and start no other."""
        for turn in self._turns.values():
            turn.stop(wait=False)
        for turn in self._turns.values():
            turn.thread.join(timeout)
        self._turns.clear()


class _Turn:
    """The thread of one source."""

    def __init__(self, source: str, origin: OriginSpec, pulls: Pulls, on_stored: Callable[[], None]) -> None:
        self.source = source
        self.origin = origin
        self._pulls = pulls
        self._on_stored = on_stored
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"pull-{source}", daemon=True)
        self.thread.start()

    def stop(self, *, wait: bool) -> None:
        self._stopping.set()
        if wait:
            self.thread.join()

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            failures = 0
            try:
                if self._pulls.pull(self.source, stopping=self._stopping.is_set).received:
                    self._on_stored()
            except FlyballError as error:
                failures = self._pulls.failures(self.source) or 1
                # Its message only: what a driver raised below it may hold the address.
                extra = {"source": self.source, "code": error.code, "failures": failures}
                logger.warning("a pull failed: %s", error.message, extra=extra)
            except Exception as error:
                failures = 1
                logger.error(
                    "a pull failed by a defect of ours: %s", type(error).__name__, extra={"source": self.source}
                )
            wait = pause(self.origin.every, failures)
