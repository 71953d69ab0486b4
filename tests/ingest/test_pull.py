"""Pull from a database by cursor: the same on PostgreSQL and on SQLite."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball.define.spec import ColumnSpec, KnownSpec, OriginSpec, SourceSpec
from flyball.http.ingest_metrics import metrics_text
from flyball.ingest.group import GroupCounters, GroupLimits
from flyball.ingest.pull import Puller, pause
from flyball.ingest.service import Ingest, IngestConfig
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import FlyballError, InvalidError, UnavailableError
from flyball.kernel.times import HOUR, SECOND, to_datetime
from flyball.storage.event_log import SqliteEventLog
from flyball.storage.lake import DeltaLake
from flyball.storage.sql import SqlDatabase
from tests.ingest.sources import NOW, MemoryApplier
from tests.postgres import ENCODED, PASSWORD, Postgres, postgres

__all__ = ["postgres"]
BASE = to_datetime(NOW) - timedelta(hours=1)
ORDERS = SourceSpec(
    name="Orders",
    columns=(
        ColumnSpec(name="id", type="integer"),
        ColumnSpec(name="amount", type="decimal", scale=2, ge=0.0),
        ColumnSpec(name="note", type="string", nullable=True),
        ColumnSpec(name="paid", type="boolean", nullable=True),
        ColumnSpec(name="at", type="timestamp"),
    ),
    event_time="at",
    event_time_unit="iso",
    key=("id",),
    origin=OriginSpec(dsn="PG_DSN", query="SELECT * FROM orders", cursor="updated_at"),
)


class Store:
    """A database with a table `orders`, of either kind."""

    def __init__(self, dsn: str, run: Callable[..., None]) -> None:
        self.dsn = dsn
        self.run = run

    def add(self, *ids: int, updated: int | None = 0, amount: str = "1.50", **changes: Any) -> None:
        """Orders changed `updated` seconds after BASE (None: null)."""
        at = None if updated is None else BASE + timedelta(seconds=updated)
        values = {"note": "n", "paid": True} | changes
        for id_ in ids:
            row = (id_, Decimal(amount), values["note"], values["paid"], BASE, at)
            self.run("INSERT INTO orders VALUES (%s, %s, %s, %s, %s, %s)", row)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        server.run("DROP TABLE IF EXISTS orders")
        server.run(
            "CREATE TABLE orders (id bigint, amount numeric(12,2), note text, paid boolean, at timestamptz,"
            " updated_at timestamptz)"
        )
        return Store(server.dsn, server.run)
    path = tmp_path / "orders.db"

    def run(sql: str, *rows: tuple[Any, ...]) -> None:
        def plain(value: Any) -> Any:
            if isinstance(value, datetime):
                return value.strftime("%Y-%m-%d %H:%M:%S.%f")
            return str(value) if isinstance(value, Decimal) else value

        with sqlite3.connect(path) as connection:
            for row in rows or ((),):
                connection.execute(sql.replace("%s", "?"), [plain(value) for value in row])
        connection.close()

    run("CREATE TABLE orders (id INTEGER, amount TEXT, note TEXT, paid BOOLEAN, at TEXT, updated_at TEXT)")
    return Store(f"sqlite:///{path}", run)


def open_ingest(
    folder: Path, store: Store, spec: SourceSpec = ORDERS, *, log: SqliteEventLog | None = None, page: int = 2
) -> Ingest:
    """The core over a folder; opening it again is a restart."""
    ingest = Ingest(
        log=log or SqliteEventLog(folder / "log"),
        lake=DeltaLake(folder / "lake"),
        applier=MemoryApplier(),
        clock=ManualClock(NOW),
        config=IngestConfig(page_rows=page),
        database=SqlDatabase(lambda name: {"PG_DSN": store.dsn}[name]),
    )
    ingest.load_plan({"epoch": 1, "digest": "d", "sources": [spec], "views": []})
    return ingest


def with_origin(spec: SourceSpec = ORDERS, **changes: Any) -> SourceSpec:
    assert spec.origin is not None
    return msgspec.structs.replace(spec, origin=msgspec.structs.replace(spec.origin, **changes))


def ids(ingest: Ingest) -> list[int]:
    """The ids in the log itself, duplicates included."""
    ingest.apply()
    batches = ingest._log.read("Orders", after=0, limit=10**6)
    return [row for batch in batches for row in batch.frame["id"].to_list()]


def test_rows_are_pulled_in_pages_once_and_new_ones_next_time(store: Store, tmp_path: Path) -> None:
    ingest = open_ingest(tmp_path, store)
    store.add(1, 2, 3, updated=0)
    store.add(4, updated=5)
    receipt = ingest.pull("Orders")
    assert (receipt.received, receipt.accepted, receipt.first_lsn, receipt.last_lsn) == (4, 4, 1, 4)
    assert sorted(ids(ingest)) == [1, 2, 3, 4]
    assert ingest.pull("Orders").received == 0
    store.add(5, updated=6)
    assert ingest.pull("Orders").accepted == 1
    assert sorted(ids(ingest)) == [1, 2, 3, 4, 5]


def test_types_come_exact_and_in_utc(store: Store, tmp_path: Path) -> None:
    ingest = open_ingest(tmp_path, store)
    store.add(1, amount="1234567.89", note="ü", paid=False)
    store.add(2, amount="0.10", note=None, paid=None, updated=1)
    ingest.pull("Orders")
    ingest.apply()
    rows = ingest.events("Orders").to_dicts()
    assert [(r["amount"], r["note"], r["paid"]) for r in rows] == [(123456789, "ü", False), (10, None, None)]
    at = NOW - HOUR
    assert {(r["at"], r["_event_time"], r["_known_at"]) for r in rows} == {(at, at, NOW)}


def test_a_tie_at_the_cursor_that_comes_later_is_not_skipped(store: Store, tmp_path: Path) -> None:
    ingest = open_ingest(tmp_path, store)
    store.add(1, 2, 3, 4, 5, updated=7)
    ingest.pull("Orders")
    store.add(6, 7, updated=7)
    ingest = open_ingest(tmp_path, store)
    assert ingest.pull("Orders").accepted == 2
    assert sorted(ids(ingest)) == [1, 2, 3, 4, 5, 6, 7]


def test_a_late_commit_within_the_lag_is_found_and_one_beyond_it_is_not(store: Store, tmp_path: Path) -> None:
    spec = with_origin(lag=5 * SECOND)
    ingest = open_ingest(tmp_path, store, spec)
    store.add(1, updated=100)
    ingest.pull("Orders")
    store.add(2, updated=97)  # a transaction that began earlier and was committed now
    store.add(3, updated=80)
    assert open_ingest(tmp_path, store, spec).pull("Orders").accepted == 1
    assert sorted(ids(ingest)) == [1, 2]


def test_a_row_that_is_read_again_counts_once_and_a_changed_one_again(store: Store, tmp_path: Path) -> None:
    spec = with_origin(lag=60 * SECOND)
    ingest = open_ingest(tmp_path, store, spec)
    store.add(1, 2, updated=0)
    ingest.pull("Orders")
    for _ in range(3):
        assert ingest.pull("Orders").received == 0
    assert source(ingest)["pull"]["again"] == 2
    store.run(
        "UPDATE orders SET amount = %s, updated_at = %s WHERE id = 1", (Decimal("9.99"), BASE + timedelta(seconds=3))
    )
    store.run("UPDATE orders SET updated_at = %s WHERE id = 2", (BASE + timedelta(seconds=4),))  # touched, not changed
    assert ingest.pull("Orders").received == 1
    assert ingest.pull("Orders").received == 0
    assert sorted(ids(ingest)) == [1, 1, 2]


def test_bad_rows_go_to_quarantine_and_the_good_ones_beside_them_count(store: Store, tmp_path: Path) -> None:
    ingest = open_ingest(tmp_path, store)
    store.add(1)
    store.add(2, amount="-3.00")
    receipt = ingest.pull("Orders")
    assert (receipt.accepted, receipt.quarantined, receipt.reasons) == (1, 1, {"ge": 1})
    (bad,) = ingest.quarantine("Orders")["rows"]
    assert (bad["column"], bad["row"]["id"]) == ("amount", 2)
    assert ingest.pull("Orders").received == 0


def test_a_null_cursor_is_refused_with_what_to_do(store: Store, tmp_path: Path) -> None:
    ingest = open_ingest(tmp_path, store)
    store.add(1)
    ingest.pull("Orders")
    store.add(2, updated=None)
    with pytest.raises(InvalidError, match="1 rows of the query of source Orders have no updated_at") as caught:
        ingest.pull("Orders")
    assert (caught.value.code, "IS NOT NULL" in caught.value.hint) == ("null_cursor", True)
    fixed = with_origin(query="SELECT * FROM orders WHERE updated_at IS NOT NULL;".rstrip(";"))
    assert open_ingest(tmp_path, store, fixed).pull("Orders").received == 0


class Cut(Exception):
    pass


class BreakingLog(SqliteEventLog):
    """Fails at a chosen moment of the n-th append."""

    moment = ""
    countdown = -1

    def _due(self, moment: str) -> None:
        if moment == self.moment:
            self.countdown -= 1
            if self.countdown < 0:
                raise Cut(moment)

    def append(self, batches: Any, *, now: int, refused: Any = ()) -> Any:
        self._due("before")
        answer = super().append(batches, now=now, refused=refused)
        self._due("after")
        return answer

    def _insert(self, batch: Any, payload: bytes, *, now: int) -> Any:
        answer = super()._insert(batch, payload, now=now)
        self._due("inside")  # events and position are written, and not committed
        return answer


@pytest.mark.parametrize("moment", ["before", "inside", "after"])
@pytest.mark.parametrize("known", ["live", "delay"])
def test_a_pull_that_is_cut_off_anywhere_goes_on_and_takes_each_row_once(
    store: Store, tmp_path: Path, moment: str, known: str
) -> None:
    spec = msgspec.structs.replace(with_origin(lag=2 * SECOND), known=KnownSpec(kind=known))  # type: ignore[arg-type]
    for number in range(9):
        store.add(number, updated=number // 2)
    for countdown in range(8):
        log = BreakingLog(tmp_path / "log")
        log.moment, log.countdown = moment, countdown % 3
        ingest = open_ingest(tmp_path, store, spec, log=log)
        try:
            ingest.pull("Orders")
        except Cut:
            store.add(100 + countdown, updated=3)  # a tie, or late
        log.close()
    ingest = open_ingest(tmp_path, store, spec)
    ingest.pull("Orders")
    found = ids(ingest)
    assert len(found) == len(set(found))
    assert set(range(9)) <= set(found)


def test_the_first_pull_of_a_source_with_a_history_is_history_and_later_rows_are_live(
    store: Store, tmp_path: Path
) -> None:
    spec = msgspec.structs.replace(ORDERS, known=KnownSpec(kind="delay", delay=60 * SECOND))
    ingest = open_ingest(tmp_path, store, spec)
    store.add(1, 2, 3)
    ingest.pull("Orders")
    store.add(4, updated=9)
    ingest.pull("Orders")
    ingest.apply()
    assert ingest.events("Orders")["_known_at"].to_list() == [NOW - HOUR + 60 * SECOND] * 3 + [NOW]


def test_another_cursor_starts_anew_and_another_query_goes_on(store: Store, tmp_path: Path) -> None:
    store.add(1, 2)
    open_ingest(tmp_path, store).pull("Orders")
    other = with_origin(query="SELECT * FROM orders WHERE id < 100")
    assert open_ingest(tmp_path, store, other).pull("Orders").received == 0
    anew = with_origin(cursor="id")
    assert open_ingest(tmp_path, store, anew).pull("Orders").received == 2
    store.add(3)
    assert open_ingest(tmp_path, store, anew).pull("Orders").received == 1


def test_a_wrong_query_or_column_is_said_in_the_status(store: Store, tmp_path: Path) -> None:
    wrong = {
        "SELECT * FROM nothing_here": "bad_query",
        "SELECT id, amount FROM orders": "bad_query",
        "SELECT id, updated_at FROM orders": "missing_column",
        "SELEC 1": "bad_query",
    }
    store.add(1)
    for query, code in wrong.items():
        ingest = open_ingest(tmp_path, store, with_origin(query=query))
        with pytest.raises(InvalidError) as caught:
            ingest.pull("Orders")
        assert caught.value.code == code
        shown = source(ingest)["pull"]
        assert (shown["code"], shown["failures"], shown["error"]) == (code, 1, caught.value.message)


def test_what_a_user_wrote_is_not_taken_for_parameters(store: Store, tmp_path: Path) -> None:
    store.add(1)
    query = "SELECT orders.*, ':x %(y)s 50% \\z' AS odd FROM orders WHERE note LIKE '%n' -- all: of them"
    assert open_ingest(tmp_path, store, with_origin(query=query)).pull("Orders").accepted == 1


def test_a_lag_needs_a_cursor_that_is_a_time(store: Store, tmp_path: Path) -> None:
    store.add(1)
    with pytest.raises(InvalidError, match="is no time") as caught:
        open_ingest(tmp_path, store, with_origin(cursor="id", lag=SECOND)).pull("Orders")
    assert caught.value.code == "lag_without_time"


def test_bytes_are_refused_with_a_cast_to_write(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run("DROP TABLE IF EXISTS orders")
    postgres.run("CREATE TABLE orders (id int, amount numeric, note bytea, paid bool, at timestamp, updated_at serial)")
    postgres.run("INSERT INTO orders VALUES (1, 1, 'x', true, now() - interval '1 hour')")
    store = Store(postgres.dsn, postgres.run)
    with pytest.raises(InvalidError, match="'note' of the query comes as bytes") as caught:
        open_ingest(tmp_path, store).pull("Orders")
    assert (caught.value.code, "encode(note, 'hex')" in caught.value.hint) == ("unreadable_type", True)


def test_zones_are_converted_and_times_without_one_are_utc(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run("DROP TABLE IF EXISTS orders")
    postgres.run(
        "CREATE TABLE orders (id int, amount numeric, note uuid, paid bool, at timestamp, updated_at timestamptz)"
    )
    row = (1, Decimal("2"), "0b0e7a3e-55fb-4c4b-8d0a-3c6d1f3f3f3f", True, BASE.replace(tzinfo=None), BASE)
    postgres.run("INSERT INTO orders VALUES (%s, %s, %s, %s, %s, %s)", row)
    postgres.run("ALTER ROLE postgres SET timezone = 'Asia/Kathmandu'")
    try:
        ingest = open_ingest(tmp_path, Store(postgres.dsn, postgres.run))
        ingest.pull("Orders")
        assert ingest.pull("Orders").received == 0
        ingest.apply()
        (event,) = ingest.events("Orders").to_dicts()
        assert (event["at"], event["note"]) == (NOW - HOUR, row[2])
        postgres.run("ALTER TABLE orders ALTER COLUMN at TYPE timestamptz USING at AT TIME ZONE 'UTC'")
        postgres.run("INSERT INTO orders SELECT 2, amount, note, paid, at, updated_at FROM orders")
        ingest.pull("Orders")
        ingest.apply()
        assert ingest.events("Orders")["at"].to_list() == [NOW - HOUR] * 2
    finally:
        postgres.run("ALTER ROLE postgres RESET timezone")


def test_a_query_that_writes_is_refused_by_postgres(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run("CREATE OR REPLACE FUNCTION meddle() RETURNS int LANGUAGE sql AS 'CREATE TABLE meddled (); SELECT 1'")
    store = Store(postgres.dsn, postgres.run)
    with pytest.raises(InvalidError, match="read-only transaction"):
        open_ingest(tmp_path, store, with_origin(query="SELECT meddle() AS updated_at")).pull("Orders")


def test_the_secret_is_nowhere_to_be_seen(postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    wrong = [
        postgres.dsn.replace(f":{postgres.port}/", ":1/"),
        postgres.dsn.replace("/postgres", f"/{ENCODED}"),  # a server that repeats it
        postgres.dsn.replace("postgres:", "nobody:"),
        postgres.dsn.replace("postgresql:", "mysql:"),
        f"host=127.0.0.1 password={PASSWORD}",
        f"sqlite:////nowhere/{PASSWORD}.db",
    ]
    for dsn in wrong:
        ingest = open_ingest(tmp_path, Store(dsn, postgres.run))
        with pytest.raises(FlyballError) as caught:
            ingest.pull("Orders")
        error = caught.value
        shown += [str(error), json.dumps(error.to_data()), json.dumps(ingest.status()), ingest._log.position("Orders")]
        shown += [repr(error.__cause__), metrics_text(ingest.status(), GroupCounters(), GroupLimits())]
        puller = Puller(ingest.pulls)
        puller.use({"Orders": ORDERS.origin})  # type: ignore[dict-item]
        failed = source(ingest)["pull"]["failed"]
        wait_for(lambda ingest=ingest, failed=failed: source(ingest)["pull"]["failed"] > failed)  # type: ignore[misc]
        puller.stop()
    shown += [record.getMessage() + str(record.exc_info) for record in caplog.records]
    assert any("a pull failed" in text for text in shown)
    for text in shown:
        assert PASSWORD not in text
        assert ENCODED not in text


def test_a_database_that_is_down_is_said_and_found_again(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run("DROP TABLE IF EXISTS orders")
    postgres.run("CREATE TABLE orders (id int, amount numeric, note text, paid bool, at timestamptz, updated_at int)")
    store = Store(postgres.dsn, postgres.run)
    ingest = open_ingest(tmp_path, store)
    ingest.pull("Orders")
    postgres.stop()
    try:
        for failures in (1, 2):
            with pytest.raises(UnavailableError, match="the database behind PG_DSN does not answer"):
                ingest.pull("Orders")
            assert source(ingest)["pull"]["failures"] == failures
        assert 'flyball_ingest_pull_failures{source="Orders"} 2' in metrics_text(
            ingest.status(), GroupCounters(), GroupLimits()
        )
    finally:
        postgres.start()
    assert ingest.pull("Orders").received == 0
    assert source(ingest)["pull"]["code"] == ""


def test_retries_come_further_apart_and_no_further_than_five_minutes() -> None:
    assert pause(60 * SECOND, 0) == 60.0
    assert [pause(60 * SECOND, n) for n in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert pause(SECOND, 10_000) == 300.0


def test_one_source_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    store = sqlite_with_orders(tmp_path)
    good = msgspec.structs.replace(ORDERS, name="Good")
    bad = msgspec.structs.replace(with_origin(query="SELECT * FROM nothing"), name="Bad")
    ingest = open_ingest(tmp_path, store, ORDERS)
    ingest.load_plan({"epoch": 2, "digest": "e", "sources": [good, bad], "views": []})
    woken: list[int] = []
    puller = Puller(ingest.pulls, on_stored=lambda: woken.append(1))
    try:
        puller.use({s.name: s.origin for s in (good, bad) if s.origin})
        wait_for(lambda: bool(woken) and source(ingest, "Bad")["pull"]["failed"] > 0)
        assert source(ingest, "Good")["rows"] == 1
        puller.use({})
        assert not puller._turns
    finally:
        puller.stop()


def test_a_source_without_an_origin_is_not_pulled(tmp_path: Path) -> None:
    plain = msgspec.structs.replace(ORDERS, origin=None)
    with pytest.raises(InvalidError, match="has no origin") as caught:
        open_ingest(tmp_path, Store("", lambda: None), plain).pull("Orders")
    assert caught.value.code == "no_origin"


def source(ingest: Ingest, name: str = "Orders") -> dict[str, Any]:
    return next(s for s in ingest.status()["sources"] if s["name"] == name)


def sqlite_with_orders(folder: Path) -> Store:
    path = folder / "one.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id, amount, note, paid, at, updated_at)")
        at = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        connection.execute("INSERT INTO orders VALUES (1, 1, 'n', 1, ?, ?)", (BASE.isoformat(), at))
    connection.close()
    return Store(f"sqlite:///{path}", lambda: None)


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds, with a deadline."""
    import time

    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
