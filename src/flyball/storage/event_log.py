"""The event log: batches of events in one SQLite file, committed with an fsync before anyone is told so.

    sources   what was ever given out: the next LSN of each source, totals
    batches   one row a batch: first LSN, count, payload, rejected rows with their reasons
    answers   idempotency key → what it was answered
    positions how far the reader of a source that is pulled or derived is, as of its last batch

A payload is an 8-byte header (`FBEV`, format version, key id, kind), then the physical frame as an Arrow IPC stream,
or, for a large load, the name of an fsynced Parquet file in `bulk/`: since version 2 in the types of the lake and with
the LSNs that it should get, so that the lake can take the file as it is.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import polars as pl

from flyball.ingest.frames import SYSTEM_COLUMNS, from_lake, numbered, to_lake
from flyball.ingest.ports import (
    Appended,
    LakeFile,
    LogBatch,
    LogTotals,
    NewBatch,
    QuarantineChange,
    RefusedBatch,
    RejectedBatch,
    StoredAnswer,
)
from flyball.ingest.rejection import DELETED
from flyball.kernel.errors import ConflictError, InternalError, UnavailableError
from flyball.kernel.files import KEY_ID_NONE, sync_directory, translate_os_error
from flyball.kernel.ids import new_id
from flyball.kernel.times import DAY
from flyball.storage import contract_log
from flyball.storage.statistics import statistics

BULK_ROWS = 20_000  # from here on, a bulk batch goes to a file of its own
KEPT_FILES = 4
KEEP_LIVE_ANSWERS = 30 * DAY  # wall time; answers to loads of history are kept for good
_HEADER = struct.Struct("<4sHBB")
_MAGIC = b"FBEV"
_NOTHING, _ARROW, _FILE, _JSON, _LAKE_FILE = range(5)
VERSION = 2  # of the log and of what is in it; 1 had no `_LAKE_FILE`

_SCHEMA = """
CREATE TABLE IF NOT EXISTS format (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sources (
    source TEXT PRIMARY KEY, next_lsn INTEGER NOT NULL, last_batch INTEGER NOT NULL, last_known_at INTEGER NOT NULL,
    last_event INTEGER NOT NULL, rejected INTEGER NOT NULL, duplicates INTEGER NOT NULL, rules TEXT NOT NULL,
    columns TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
    batch INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, first_lsn INTEGER NOT NULL, count INTEGER NOT NULL,
    live INTEGER NOT NULL, known_at INTEGER NOT NULL, payload BLOB NOT NULL, rejected BLOB
);
CREATE INDEX IF NOT EXISTS batches_by_lsn ON batches (source, first_lsn, batch);
CREATE TABLE IF NOT EXISTS answers (
    source TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, first_lsn INTEGER NOT NULL,
    count INTEGER NOT NULL, known_at INTEGER NOT NULL, live INTEGER NOT NULL, wall INTEGER NOT NULL,
    answer TEXT NOT NULL, PRIMARY KEY (source, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (source TEXT PRIMARY KEY, position TEXT NOT NULL);
"""


class SqliteEventLog:
    """`EventLog` in a folder. One process writes (it holds the ingest lock); any thread of it may call."""

    def __init__(self, folder: Path) -> None:
        self._bulk = folder / "bulk"
        self._bulk.mkdir(parents=True, exist_ok=True)
        self._path = folder / "events.sqlite"
        self._lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._fresh: dict[str, pl.DataFrame] = {}  # a load's file → its columns of the system, until they are read
        self._doubtful = False  # a commit failed, and what it left in the write-ahead log is still there
        self._writer = self._connect()
        self._prepare()
        self._reader = self._connect()
        self._remove_orphans()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _prepare(self) -> None:
        with self._translated():
            self._writer.executescript(_SCHEMA + contract_log.SCHEMA)
            found = self._writer.execute("SELECT version FROM format").fetchone()
            if found is None:
                self._writer.execute("INSERT INTO format VALUES (?)", (VERSION,))
                sync_directory(self._path.parent)
            elif found[0] < VERSION:
                self._writer.execute("UPDATE format SET version = ?", (VERSION,))  # an older Flyball must not read it
            elif found[0] > VERSION:
                raise ConflictError(
                    f"the event log {self._path.name} has format version {found[0]}; this Flyball reads up to "
                    f"{VERSION}",
                    code="newer_format",
                    hint="install the version of Flyball that wrote it, or a newer one",
                )

    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    # --- writing

    def append(self, batches: Sequence[NewBatch], *, now: int, refused: Sequence[RefusedBatch] = ()) -> list[Appended]:
        written: list[Path] = []
        try:
            payloads = [self._payload(batch, written) for batch in batches]
            with self._lock, self._transaction():
                contract_log.note_refused(self._writer.execute, refused, at=now)
                return [self._insert(batch, payload, now=now) for batch, payload in zip(batches, payloads, strict=True)]
        except BaseException as error:
            for path in written:
                path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise translate_os_error(error, self._path) from error
            raise

    def _payload(self, batch: NewBatch, written: list[Path]) -> bytes:
        if batch.frame.is_empty():
            return _header(_NOTHING)
        if batch.bulk and batch.frame.height >= BULK_ROWS:
            return self._bulk_payload(batch, written)
        buffer = io.BytesIO()
        batch.frame.write_ipc_stream(buffer, compression="lz4" if batch.frame.height > 100 else "uncompressed")
        return _header(_ARROW) + buffer.getvalue()

    def _bulk_payload(self, batch: NewBatch, written: list[Path]) -> bytes:
        """Write the rows to a file, numbered from the next LSN: if another batch comes in between, they are read with
        other numbers than the file has, and the lake does not take the file."""
        path = self._bulk / f"{new_id('bulk')}.parquet"
        written.append(path)
        first = self.last_lsn(batch.source) + 1
        frame = batch.frame if batch.live else numbered(batch.frame, first, known_at=None)
        rows = frame if batch.live else to_lake(frame, batch.columns)
        whole = not batch.live and rows.width == frame.width
        with path.open("wb") as file:
            (rows if whole else batch.frame).write_parquet(file, compression="snappy")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(self._bulk)
        self._keep(path.name, batch.frame)
        if not whole:
            return _header(_FILE) + path.name.encode()
        return _header(_LAKE_FILE) + f"{path.name}\0{first}\0{statistics(rows)}".encode()

    def _keep(self, name: str, frame: pl.DataFrame) -> None:
        """Have at hand what the applier asks for first; of the newest files alone."""
        self._fresh[name] = frame.select(c for c in (*SYSTEM_COLUMNS, DELETED) if c in frame.columns)
        while len(self._fresh) > KEPT_FILES:
            del self._fresh[next(iter(self._fresh))]

    def _insert(self, batch: NewBatch, payload: bytes, *, now: int) -> Appended:
        run, source, count = self._writer.execute, batch.source, batch.frame.height
        state = run(
            "SELECT next_lsn, last_known_at, rules, columns FROM sources WHERE source = ?", (source,)
        ).fetchone()
        first, _, rules, columns = state or (1, 0, "{}", "{}")
        newest_commit = run("SELECT coalesce(max(last_known_at), 0) FROM sources").fetchone()[0]
        known_at = max(now, newest_commit)  # over all sources: the wall clock may have been set back while nobody ran
        rejected = _pack(batch.rejected) if batch.rejected else None
        number = run(
            "INSERT INTO batches (source, first_lsn, count, live, known_at, payload, rejected) VALUES (?,?,?,?,?,?,?)",
            (source, first, count, batch.live, known_at, payload, rejected),
        ).lastrowid
        assert number is not None
        counts = (len(batch.rejected), batch.duplicates)
        newest = cast(int, batch.frame["_event_time"].max()) if count else 0
        known = json.dumps(json.loads(columns) | dict(batch.columns))
        tally: dict[str, int] = json.loads(rules)
        for row in batch.rejected:
            tally[row["rule"]] = tally.get(row["rule"], 0) + 1
        run(
            "INSERT INTO sources VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (source) DO UPDATE SET"
            " next_lsn = excluded.next_lsn, last_batch = excluded.last_batch, last_known_at = excluded.last_known_at,"
            " last_event = max(last_event, excluded.last_event), rules = excluded.rules, columns = excluded.columns,"
            " rejected = rejected + excluded.rejected, duplicates = duplicates + excluded.duplicates",
            (source, first + count, number, known_at, newest, *counts, json.dumps(tally), known),
        )
        contract_log.add_to_contract(run, source, warnings=batch.warnings, last_rows=batch.rows_of_last)
        contract_log.note_changes(run, source, batch.changes, first_lsn=first, at=known_at)
        contract_log.note_arrivals(run, source, number, batch.rejected_after, first_lsn=first)
        if batch.position is not None:
            run("INSERT OR REPLACE INTO positions VALUES (?,?)", (source, batch.position))
        wall = time.time_ns() // 1_000
        for entry in batch.entries:
            if entry.key:
                where = (first + entry.offset, entry.count, known_at, batch.live, wall)
                run(
                    "INSERT INTO answers VALUES (?,?,?,?,?,?,?,?,?)",
                    (source, entry.key, entry.fingerprint, *where, json.dumps(entry.answer)),
                )
        return Appended(batch=number, first_lsn=first, count=count, known_at=known_at)

    def resolve(self, source: str, changes: Sequence[QuarantineChange], *, now: int) -> None:
        with self._lock, self._transaction():
            contract_log.note_changes(self._writer.execute, source, changes, first_lsn=1, at=now)

    def trim(self, source: str, *, through_lsn: int, through_batch: int) -> int:
        done = "source = ? AND (count = 0 OR first_lsn + count - 1 <= ?) AND (rejected IS NULL OR batch <= ?)"
        values = (source, through_lsn, through_batch)
        with self._lock:
            with self._transaction():
                payloads = self._writer.execute(f"SELECT substr(payload, 1, 200) FROM batches WHERE {done}", values)
                files = [name for (payload,) in payloads if (name := _file_of(payload))]
                gone = self._writer.execute(f"DELETE FROM batches WHERE {done}", values).rowcount
                oldest = time.time_ns() // 1_000 - KEEP_LIVE_ANSWERS
                self._writer.execute("DELETE FROM answers WHERE source = ? AND live AND wall < ?", (source, oldest))
            for name in files:
                self._remove(name)
        return gone

    def _remove(self, name: str) -> None:
        """A load's file, which no batch names any more."""
        self._fresh.pop(name, None)
        (self._bulk / name).unlink(missing_ok=True)

    def _remove_orphans(self) -> None:
        """Files whose transaction never committed, or whose batch was trimmed just before the process died."""
        rows = self._writer.execute("SELECT substr(payload, 1, 200) FROM batches")
        kept = {_file_of(payload) for (payload,) in rows}
        for path in self._bulk.iterdir():
            if path.name not in kept:
                path.unlink()

    # --- reading

    def position(self, source: str) -> str:
        rows = self._select("SELECT position FROM positions WHERE source = ?", (source,))
        return str(rows[0][0]) if rows else ""

    def answer(self, source: str, key: str) -> StoredAnswer | None:
        sql = "SELECT fingerprint, first_lsn, count, known_at, answer FROM answers WHERE source = ? AND key = ?"
        rows = self._select(sql, (source, key))
        if not rows:
            return None
        fingerprint, first, count, known_at, answer = rows[0]
        return StoredAnswer(
            fingerprint=fingerprint, first_lsn=first, count=count, known_at=known_at, answer=json.loads(answer)
        )

    def read(self, source: str, *, after: int, limit: int) -> list[LogBatch]:
        rows = self._select(
            "SELECT batch, first_lsn, count, live, known_at FROM batches WHERE source = ? AND count > 0"
            " AND first_lsn >= coalesce((SELECT max(first_lsn) FROM batches WHERE source = ? AND first_lsn <= ?), 0)"
            " AND first_lsn + count - 1 > ? ORDER BY first_lsn LIMIT 2000",
            (source, source, after, after),
        )
        batches: list[LogBatch] = []
        total = 0
        for batch, first, count, live, known_at in rows:
            total += count
            if batches and total > limit:
                break
            payload = self._select("SELECT payload FROM batches WHERE batch = ?", (batch,))[0][0]
            batches.append(
                LogBatch(
                    batch=batch,
                    source=source,
                    first_lsn=first,
                    last_lsn=first + count - 1,
                    live=bool(live),
                    load=partial(self._numbered, payload, first, known_at if live else None),
                    file=self._lake_file(payload, first),
                )
            )
        return batches

    def _numbered(self, payload: bytes, first: int, known_at: int | None, names: Sequence[str] | None) -> pl.DataFrame:
        return numbered(self._frame(payload, names), first, known_at=known_at)

    def _lake_file(self, payload: bytes, first: int) -> LakeFile | None:
        kind, body = _open(payload)
        if kind != _LAKE_FILE:
            return None
        name, numbered_from, stats = body.decode().split("\0", 2)
        return LakeFile(path=self._bulk / name, stats=stats) if int(numbered_from) == first else None

    def read_rejected(self, source: str, *, after: int, limit: int) -> list[RejectedBatch]:
        rows = self._select(
            "SELECT batch, known_at, live, rejected FROM batches WHERE source = ? AND batch > ?"
            " AND rejected IS NOT NULL ORDER BY batch LIMIT ?",
            (source, after, limit),
        )
        return [
            RejectedBatch(batch=batch, known_at=known_at, live=bool(live), rows=tuple(_unpack(data)))
            for batch, known_at, live, data in rows
        ]

    def refusals(self, source: str, *, limit: int) -> list[RefusedBatch]:
        return contract_log.refusals(self._select, source, limit=limit)

    def arrivals(self, source: str, batches: Collection[int]) -> dict[int, Sequence[int]]:
        return contract_log.arrivals(self._select, source, batches)

    def quarantine_states(self, source: str) -> list[QuarantineChange]:
        return contract_log.states(self._select, source)

    def quarantine_changes(self, source: str, *, after: int, limit: int) -> list[QuarantineChange]:
        return contract_log.changes(self._select, source, after=after, limit=limit)

    def last_lsn(self, source: str) -> int:
        rows = self._select("SELECT next_lsn - 1 FROM sources WHERE source = ?", (source,))
        return int(rows[0][0]) if rows else 0

    def live_after(self, source: str, lsn: int) -> int:
        sql = "SELECT coalesce(sum(count), 0) FROM batches WHERE source = ? AND first_lsn > ? AND live"
        return int(self._select(sql, (source, lsn))[0][0])

    def totals(self) -> dict[str, LogTotals]:
        rows = self._select(
            "SELECT s.source, next_lsn - 1, last_batch, last_known_at, last_event, s.rejected, duplicates, rules,"
            " columns, count(b.batch), coalesce(min(CASE WHEN b.count > 0 THEN first_lsn END), 0)"
            " FROM sources s LEFT JOIN batches b ON b.source = s.source GROUP BY s.source",
            (),
        )
        contracts = contract_log.contract_totals(self._select)
        refused_only = {source: LogTotals(**more) for source, more in contracts.items()}
        return refused_only | {
            source: LogTotals(
                last_lsn=lsn,
                last_batch=batch,
                last_known_at=known_at,
                last_event_time=newest,
                oldest_lsn=oldest,
                rejected=rejected,
                duplicates=duplicates,
                pending_batches=pending,
                rules=json.loads(rules),
                columns={name: (kind, scale) for name, (kind, scale) in json.loads(columns).items()},
                **contracts.get(source, {}),
            )
            for source, lsn, batch, known_at, newest, rejected, duplicates, rules, columns, pending, oldest in rows
        }

    def _frame(self, payload: bytes, names: Sequence[str] | None) -> pl.DataFrame:
        kind, body = _open(payload)
        if kind not in (_FILE, _LAKE_FILE):
            return pl.read_ipc_stream(io.BytesIO(body))
        if names is None:
            return self._columns(payload, None)
        fresh = self._fresh.pop(_file_of(payload), None)
        if fresh is None:
            return self._columns(payload, {*names, *SYSTEM_COLUMNS, DELETED})
        others = set(names).difference(fresh.columns)
        if not others:
            return fresh
        rest = self._columns(payload, others)
        return rest.hstack(fresh) if rest.width else fresh

    def _columns(self, payload: bytes, names: set[str] | None) -> pl.DataFrame:
        """The columns of a load's file, or those of these that it has."""
        scan = pl.scan_parquet(self._bulk / _file_of(payload), glob=False)
        if names is not None:
            scan = scan.select(name for name in scan.collect_schema() if name in names)
        frame = scan.collect()
        return from_lake(frame) if _open(payload)[0] == _LAKE_FILE else frame

    def _select(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        with self._read_lock, self._translated():
            return self._reader.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            if self._doubtful:
                self._bury()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._doubtful = True  # until the commit says that it is on the disk
                self._writer.execute("COMMIT")
                self._doubtful = False
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if self._doubtful:
                    with suppress(sqlite3.Error):
                        self._bury()
                raise

    def _bury(self) -> None:
        """Write over what a failed commit left in the write-ahead log.

        Its pages may all be there, with the mark of a commit, though their fsync failed: another process that opens the
        log would take them for committed, and apply what nobody was promised. An empty transaction takes their place in
        the file, and with it the chain of checksums that they hang on. Nothing is stored before that has worked.
        """
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for change in ("+ 1", "- 1"):  # an update that changes nothing would write nothing
                self._writer.execute(f"UPDATE format SET version = version {change}")
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self._doubtful = False

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translate(error, self._path) from error


def _translate(error: sqlite3.Error, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL:
        return translate_os_error(OSError(errno.ENOSPC, "database or disk is full"), path)
    if isinstance(error, sqlite3.IntegrityError):
        return ConflictError("an idempotency key of this push was used before", code="idempotency_key_used")
    return UnavailableError(
        f"the event log {path} cannot be used: {error}; nothing was acknowledged", code="event_log_unavailable"
    )


def _header(kind: int) -> bytes:
    return _HEADER.pack(_MAGIC, VERSION, KEY_ID_NONE, kind)


def _open(payload: bytes) -> tuple[int, bytes]:
    """The kind and the body of a stored value, after its header was checked."""
    magic, version, key_id, kind = _HEADER.unpack_from(payload)
    if magic != _MAGIC:
        raise InternalError("a batch of the event log does not begin as one", code="bad_batch")
    if version > VERSION or key_id != KEY_ID_NONE:
        raise ConflictError(
            f"a batch of the event log has format version {version} and key {key_id}; this Flyball reads up to "
            f"version {VERSION}, not encrypted",
            code="newer_format",
            hint="install the version of Flyball that wrote it, or a newer one",
        )
    return kind, payload[_HEADER.size :]


def _file_of(payload: bytes) -> str:
    kind, body = _open(payload)
    if kind == _LAKE_FILE:
        return body.split(b"\0", 1)[0].decode()
    return body.decode() if kind == _FILE else ""


def _pack(rows: Sequence[dict[str, Any]]) -> bytes:
    return _header(_JSON) + zlib.compress(json.dumps(list(rows), default=str, ensure_ascii=False).encode(), 1)


def _unpack(data: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(zlib.decompress(_open(data)[1]))
    return rows
