"""Intake: push → contract → log. Pushes that arrive together are checked together and committed together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.compiled import warm
from flyball.ingest.contract import Checked, check
from flyball.ingest.files import open_file
from flyball.ingest.frames import meanings
from flyball.ingest.keys import key_words
from flyball.ingest.ports import Entry, EventLog, NewBatch, StoredAnswer
from flyball.ingest.receipts import Push, Receipt, answer_of, fingerprint, receipt_of, replayed, total
from flyball.ingest.rejection import suggestion
from flyball.ingest.rows import Rows, from_dicts, from_frame
from flyball.ingest.seen import Seen
from flyball.kernel.clock import Clock
from flyball.kernel.errors import ConflictError, FlyballError, InvalidError, NotFoundError

SEEN = 1 << 23  # keys of a load that are remembered (up to 0.5 GB); a repetition further apart is found when applied
Progress = Callable[[int, float], None]  # rows so far, and the fraction of the file that they end


@dataclass(frozen=True, slots=True)
class _Part:
    """A push that is not answered yet: its place among the pushes, and its rows' place in the checked batch."""

    place: int
    push: Push
    print: str
    start: int
    end: int


class Intake:
    """The only writer of the log. Safe to call from several threads; commits one after another."""

    def __init__(self, log: EventLog, clock: Clock, *, chunk_rows: int) -> None:
        warm()
        self._log = log
        self._clock = clock
        self._chunk_rows = chunk_rows
        self._lock = threading.Lock()
        self._sources: Mapping[str, SourceSpec] = {}

    def use(self, sources: Mapping[str, SourceSpec]) -> None:
        """Take pushes for these sources from now on."""
        with self._lock:
            self._sources = sources

    def source(self, name: str) -> SourceSpec:
        """The declaration of a source. Raises `NotFoundError` (`source_not_found`)."""
        spec = self._sources.get(name)
        if spec is None:
            raise NotFoundError(
                f"there is no source {name!r}{suggestion(name, list(self._sources))}",
                code="source_not_found",
                hint=f"there are: {', '.join(sorted(self._sources)) or 'none yet; run flyball apply'}",
            )
        return spec

    # --- pushes

    def append(self, pushes: Sequence[Push]) -> list[Receipt | FlyballError]:
        """Check and commit pushes in one transaction; durable when it returns.

        The answer to each, in order: a receipt, or why this push was refused whole. Raises, with nothing stored, where
        the log could not be written.
        """
        with self._lock:
            answers: dict[int, Receipt | FlyballError] = {}
            batches = list(self._batches(pushes, answers))
            self._commit(batches, answers)
            self._answer_repeated(pushes, answers)
        return [answers[place] for place in range(len(pushes))]

    def _batches(
        self, pushes: Sequence[Push], answers: dict[int, Receipt | FlyballError]
    ) -> Iterator[tuple[NewBatch, list[_Part]]]:
        """One batch for the JSON pushes of each source, one for each table; answers what needs no commit."""
        together: dict[tuple[str, bool], list[tuple[int, Push, str]]] = {}
        seen: set[tuple[str, str]] = set()
        for place, push in enumerate(pushes):
            key = (push.source, push.idempotency_key)
            if push.idempotency_key and key in seen:
                continue  # answered after the commit of the first
            seen.add(key)
            try:
                print_ = self._admit(push)
                if isinstance(print_, Receipt):
                    answers[place] = print_
                elif isinstance(push.rows, list | tuple | dict):
                    together.setdefault((push.source, push.live), []).append((place, push, print_))
                else:
                    rows = from_frame(_table(push), self.source(push.source))
                    yield self._batch(rows, [_Part(place, push, print_, 0, rows.height)])
            except FlyballError as error:
                answers[place] = error
        for (source, _), members in together.items():
            objects: list[Any] = []
            parts: list[_Part] = []
            for place, push, print_ in members:
                own = [push.rows] if isinstance(push.rows, dict) else push.rows
                parts.append(_Part(place, push, print_, len(objects), len(objects) + len(own)))
                objects.extend(own)
            yield self._batch(from_dicts(objects, self.source(source)), parts)

    def _admit(self, push: Push) -> str | Receipt:
        """The fingerprint of a push that is to be stored; or the receipt it had before."""
        spec = self.source(push.source)
        if not push.live:
            require_history(spec)
        if not push.idempotency_key:
            return ""
        print_ = push.fingerprint or fingerprint(push.rows)
        stored = self._log.answer(push.source, push.idempotency_key)
        return print_ if stored is None else _again(push, print_, stored)

    def _batch(
        self, rows: Rows, parts: list[_Part], *, bulk: bool = False, load: _Load | None = None
    ) -> tuple[NewBatch, list[_Part]]:
        push = parts[0].push
        spec = self.source(push.source)
        checked = check(rows, spec, now=self._clock.now(), live=push.live)
        if load is not None:
            checked = load.once(checked)
        return (
            NewBatch(
                source=spec.name,
                frame=checked.frame,
                live=push.live,
                columns=meanings(spec),
                entries=tuple(_entry(part, checked, spec) for part in parts),
                rejected=tuple(row.to_data() for row in checked.rejected),
                duplicates=len(checked.duplicate_places),
                bulk=bulk,
            ),
            parts,
        )

    def _commit(
        self, batches: Sequence[tuple[NewBatch, list[_Part]]], answers: dict[int, Receipt | FlyballError]
    ) -> None:
        if not batches:
            return
        appended = self._log.append([batch for batch, _ in batches], now=self._clock.now())
        for (batch, parts), where in zip(batches, appended, strict=True):
            for part, entry in zip(parts, batch.entries, strict=True):
                answers[part.place] = receipt_of(
                    batch.source,
                    entry.answer,
                    first_lsn=where.first_lsn + entry.offset,
                    count=entry.count,
                    known_at=where.known_at,
                )

    def _answer_repeated(self, pushes: Sequence[Push], answers: dict[int, Receipt | FlyballError]) -> None:
        """Pushes with the idempotency key of an earlier one among the same."""
        for place, push in enumerate(pushes):
            if place in answers:
                continue
            try:
                again = self._admit(push)
                if isinstance(again, Receipt):
                    answers[place] = again
                else:  # the first of this key was refused whole, so this one has its own answer
                    first = next(i for i, p in enumerate(pushes) if p.idempotency_key == push.idempotency_key)
                    answers[place] = answers[first]
            except FlyballError as error:
                answers[place] = error

    # --- files

    def append_file(
        self, source: str, path: Path, *, idempotency_key: str = "", format: str = "", progress: Progress | None = None
    ) -> Receipt:
        """Load a file of history, a chunk at a time, each committed. A load that was cut off goes on where it stopped.

        Without a key, the file's content and the source's declaration are the key: the same file loaded twice is
        stored once, and is checked anew when the contract changed.
        """
        spec = self.source(source)
        require_history(spec)
        file = open_file(path, spec, format=format)
        key = idempotency_key or f"file:{file.digest[:32]}:{spec.hash[:16]}"
        load = _Load(spec, progress)
        with ThreadPoolExecutor(1, "bulk-commit") as committing:  # a chunk is written while the next one is read
            for number, chunk in enumerate(file.chunks(spec, size=self._chunk_rows)):
                push = Push(
                    source=source, rows=None, idempotency_key=f"{key}#{number}/{self._chunk_rows}", live=False,
                    fingerprint=file.digest[:32],
                )  # fmt: skip
                known = self._admit(push)
                if isinstance(known, Receipt):
                    load.after(chunk.fraction, known)
                    continue
                part = _Part(0, push, known, 0, chunk.rows.height)
                batch = self._batch(chunk.rows, [part], bulk=True, load=load)
                load.settle()  # before: what an earlier chunk had is left out of this one
                load.after(chunk.fraction, committing.submit(self._commit_chunk, *batch))
            load.settle()
        return total(source, load.receipts)

    def _commit_chunk(self, batch: NewBatch, parts: list[_Part]) -> Receipt:
        """Commits beside the pushes: the log orders them, and a large file does not keep them waiting."""
        answers: dict[int, Receipt | FlyballError] = {}
        self._commit([(batch, parts)], answers)
        receipt = answers[0]
        assert isinstance(receipt, Receipt)
        return receipt


class _Load:
    """One file's way: the receipts so far, the one that is still being committed, and the keys that were seen."""

    def __init__(self, spec: SourceSpec, progress: Progress | None) -> None:
        self._progress = progress
        self._pending: tuple[float, Future[Receipt]] | None = None
        self._seen = None if spec.corrections else Seen(SEEN)
        self.receipts: list[Receipt] = []

    def after(self, fraction: float, receipt: Receipt | Future[Receipt]) -> None:
        """Take the next chunk's receipt, and wait for the one before. Raises what its commit raised."""
        self.settle()
        if isinstance(receipt, Receipt):
            self._done(fraction, receipt)
        else:
            self._pending = fraction, receipt

    def settle(self) -> None:
        if self._pending is not None:
            (fraction, future), self._pending = self._pending, None
            self._done(fraction, future.result())

    def _done(self, fraction: float, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        if self._progress is not None:
            self._progress(sum(r.received for r in self.receipts), fraction)

    def once(self, checked: Checked) -> Checked:
        """Without the events that an earlier chunk had: it is committed before this one is."""
        if self._seen is None or checked.frame.is_empty():
            return checked
        keys = key_words(checked.frame["_key"])
        again = self._seen.holds(keys)
        self._seen.add(keys)
        if not again.any():
            return checked
        return replace(
            checked,
            frame=checked.frame.filter(pl.Series(~again)),
            places=checked.places[~again],
            duplicate_places=tuple(sorted([*checked.duplicate_places, *checked.places[again].tolist()])),
        )


def require_history(spec: SourceSpec) -> None:
    """Refuse history for a source that does not say when its history was known."""
    if spec.known.kind == "live":
        raise InvalidError(
            f"source {spec.name} takes live events only: it does not say when its history was known, so a training row "
            "could see what nobody knew at the time",
            code="history_not_declared",
            hint=f'declare it, for example: class {spec.name}(fb.Source, …, known=fb.delay("1h")), '
            'or known=fb.known_at("loaded_at")',
        )


def _again(push: Push, print_: str, stored: StoredAnswer) -> Receipt:
    if stored.fingerprint != print_:
        raise ConflictError(
            f"the idempotency key {push.idempotency_key!r} of source {push.source} was used for other rows",
            code="idempotency_key_used",
            hint="repeat a key only to repeat the same rows; give new rows a new key",
        )
    return replayed(push.source, stored)


def _table(push: Push) -> pl.DataFrame:
    if isinstance(push.rows, pl.DataFrame):
        return push.rows
    if hasattr(push.rows, "__arrow_c_stream__"):
        return pl.DataFrame(push.rows)
    raise InvalidError(
        f"rows for source {push.source} came as {type(push.rows).__name__}; give a list of dicts, a Polars frame or an "
        "Arrow table",
        code="bad_rows",
    )


def _entry(part: _Part, checked: Checked, spec: SourceSpec) -> Entry:
    """One push's share of a checked batch."""
    offset, end = np.searchsorted(checked.places, [part.start, part.end])
    low, high = np.searchsorted(checked.rejected_places, [part.start, part.end])
    own = checked.rejected[low:high]
    if part.start:
        own = tuple(replace(row, position=row.position - part.start) for row in own)
    low, high = np.searchsorted(checked.duplicate_places, [part.start, part.end])
    return Entry(
        key=part.push.idempotency_key,
        fingerprint=part.print,
        offset=int(offset),
        count=int(end - offset),
        answer=answer_of(
            spec,
            received=part.end - part.start,
            duplicates=int(high - low),
            rejected=own,
            ignored=checked.ignored,
        ),
    )
