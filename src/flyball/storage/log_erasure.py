"""Erasing rows of the event log: batches are cut around them, so that every other row keeps its LSN.

The file is then written anew and its journal cut, so that no freed page keeps what was in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from flyball.ingest.frames import numbered
from flyball.ingest.ports import NewBatch
from flyball.storage.event_log import _NOTHING, SqliteEventLog, _file_of, _header, _pack, _unpack

Mask = Callable[[pl.Series], pl.Series]
Hit = Callable[[dict[str, Any]], bool]
_ERASED: dict[str, Any] = {"row": {}, "value": None, "message": "erased"}


class LogErasure:
    """`ingest.erasing.ErasableLog` on the SQLite log."""

    def __init__(self, log: SqliteEventLog) -> None:
        self._log = log

    def matching(self, source: str, column: str, mask: Mask) -> pl.DataFrame:
        parts = []
        for _, first, _, live, known_at, payload, _ in self._batches(source):
            frame = numbered(self._log._frame(payload, None), first, known_at=known_at if live else None)
            if column in frame.columns:
                parts.append(frame.filter(mask(frame[column])))
        found = [part for part in parts if part.height]
        return pl.concat(found, how="diagonal") if found else pl.DataFrame(schema={"_lsn": pl.Int64})

    def rejected_matching(self, source: str, hit: Hit) -> int:
        rows = self._log._select("SELECT rejected FROM batches WHERE source = ? AND rejected IS NOT NULL", (source,))
        return sum(hit(row) for (data,) in rows for row in _unpack(data))

    def erase(self, source: str, column: str, mask: Mask, hit: Hit) -> None:
        log = self._log
        files = []
        with log._lock:
            with log._transaction():
                for batch in self._batches(source):
                    files += self._cut(batch, source, column, mask)
                self._reject(source, hit)
                self._answers(source)
            for name in files:
                log._remove(name)
            with log._read_lock, log._translated():
                log._writer.execute("VACUUM")
                log._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _batches(self, source: str) -> Iterator[tuple[Any, ...]]:
        sql = "SELECT batch, first_lsn, count, live, known_at, payload, rejected FROM batches WHERE batch = ?"
        numbers = self._log._select(
            "SELECT batch FROM batches WHERE source = ? AND count > 0 ORDER BY batch", (source,)
        )
        for (number,) in numbers:
            yield from self._log._select(sql, (number,))

    def _cut(self, batch: tuple[Any, ...], source: str, column: str, mask: Mask) -> list[str]:
        """Replace a batch by what is left of it: one batch for each run of rows that stay. Gives the file it was in."""
        number, first, _, live, known_at, payload, rejected = batch
        frame = self._log._frame(payload, None)
        if column not in frame.columns:
            return []
        gone = mask(frame[column])
        if not gone.any():
            return []
        run = self._log._writer.execute
        pieces = list(_runs(gone.to_list()))
        if not pieces and rejected is None:
            run("DELETE FROM batches WHERE batch = ?", (number,))
        elif not pieces:
            run("UPDATE batches SET count = 0, payload = ? WHERE batch = ?", (_header(_NOTHING), number))
        for position, (start, length) in enumerate(pieces):
            kept = NewBatch(source=source, frame=frame.slice(start, length), live=bool(live), columns={})
            data = self._log._payload(kept, [])
            if position == 0:
                run(
                    "UPDATE batches SET first_lsn = ?, count = ?, payload = ? WHERE batch = ?",
                    (first + start, length, data, number),
                )
            else:
                run(
                    "INSERT INTO batches (source, first_lsn, count, live, known_at, payload, rejected)"
                    " VALUES (?,?,?,?,?,?,NULL)",
                    (source, first + start, length, live, known_at, data),
                )
        name = _file_of(payload[:200])
        return [name] if name else []

    def _reject(self, source: str, hit: Hit) -> None:
        run = self._log._writer.execute
        rows = run(
            "SELECT batch, rejected FROM batches WHERE source = ? AND rejected IS NOT NULL", (source,)
        ).fetchall()
        for number, data in rows:
            refused = _unpack(data)
            if any(hit(row) for row in refused):  # in their places, which name the others
                kept = [row | _ERASED if hit(row) else row for row in refused]
                run("UPDATE batches SET rejected = ? WHERE batch = ?", (_pack(kept), number))
        run("UPDATE quarantine_states SET value = NULL, message = '' WHERE source = ?", (source,))
        run("UPDATE refused SET message = '', examples = '[]' WHERE source = ?", (source,))

    def _answers(self, source: str) -> None:
        """Answers stay, so that nothing is taken twice; their examples of refused rows go, whosesoever they are."""
        run = self._log._writer.execute
        for key, text in run("SELECT key, answer FROM answers WHERE source = ?", (source,)).fetchall():
            answer = json.loads(text)
            if answer.get("examples"):
                changed = json.dumps(answer | {"examples": []})
                run("UPDATE answers SET answer = ? WHERE source = ? AND key = ?", (changed, source, key))


def _runs(gone: list[bool]) -> Iterator[tuple[int, int]]:
    """Where rows that stay begin, and how many follow each other.

    >>> list(_runs([False, True, False, False]))
    [(0, 1), (2, 2)]
    """
    start = None
    for position, erased in enumerate([*gone, True]):
        if erased and start is not None:
            yield start, position - start
            start = None
        elif not erased and start is None:
            start = position
