"""Intake: push → contract → log. Pushes that arrive together are checked together and committed together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flyball.define.spec import SourceSpec
from flyball.ingest.backlog import Backlog
from flyball.ingest.batching import Batch, Part, read_push
from flyball.ingest.body import RowReader
from flyball.ingest.contract import Checked, check
from flyball.ingest.files import open_file
from flyball.ingest.frames import meanings
from flyball.ingest.ports import Entry, EventLog, NewBatch, StoredAnswer
from flyball.ingest.receipts import Push, Receipt, answer_of, fingerprint, receipt_of, replayed, total
from flyball.ingest.rejection import suggestion
from flyball.ingest.rows import Rows
from flyball.kernel.clock import Clock
from flyball.kernel.errors import ConflictError, FlyballError, InvalidError, NotFoundError

Progress = Callable[[int, float], None]  # rows so far, and the fraction of the file that they end


class Intake:
    """The only writer of the log. Safe to call from several threads; commits one after another."""

    def __init__(self, log: EventLog, clock: Clock, backlog: Backlog, *, chunk_rows: int) -> None:
        self._log = log
        self._backlog = backlog
        self._clock = clock
        self._chunk_rows = chunk_rows
        self._lock = threading.Lock()
        self._sources: Mapping[str, SourceSpec] = {}
        self._readers: dict[str, RowReader] = {}

    def use(self, sources: Mapping[str, SourceSpec]) -> None:
        """Take pushes for these sources from now on."""
        with self._lock:
            self._sources = sources
            self._readers = {}

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
    ) -> Iterator[tuple[NewBatch, list[Part]]]:
        """A batch for each run of pushes that can be judged together; answers what needs no commit."""
        batches: list[Batch] = []
        newest: dict[tuple[str, bool], Batch] = {}
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
                    continue
                given = read_push(push, self.source(push.source), self._reader(push.source))
            except FlyballError as error:
                answers[place] = error
                continue
            batch = newest.get((push.source, push.live))
            if batch is None or not batch.takes(given):
                batch = newest[push.source, push.live] = Batch(given)
                batches.append(batch)
            batch.add(place, push, print_, given)
        for batch in batches:
            source = batch.parts[0].push.source
            yield self._batch(batch.rows(self.source(source), self._reader(source)), batch.parts)

    def _reader(self, source: str) -> RowReader:
        """What reads the source's bodies; made at its first push under a plan."""
        reader = self._readers.get(source)
        if reader is None:
            reader = self._readers[source] = RowReader(self.source(source))
        return reader

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

    def _batch(self, rows: Rows, parts: list[Part], *, bulk: bool = False) -> tuple[NewBatch, list[Part]]:
        push = parts[0].push
        spec = self.source(push.source)
        checked = check(rows, spec, now=self._clock.now(), live=push.live)
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
        self, batches: Sequence[tuple[NewBatch, list[Part]]], answers: dict[int, Receipt | FlyballError]
    ) -> None:
        if not batches:
            return
        appended = self._log.append([batch for batch, _ in batches], now=self._clock.now())
        for (batch, parts), where in zip(batches, appended, strict=True):
            last = where.first_lsn + where.count - 1
            self._backlog.stored(batch.source, where.first_lsn, last, live=batch.live)
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
        receipts: list[Receipt] = []
        for number, chunk in enumerate(file.chunks(spec, size=self._chunk_rows)):
            push = Push(
                source=source, rows=None, idempotency_key=f"{key}#{number}/{self._chunk_rows}", live=False,
                fingerprint=file.digest[:32],
            )  # fmt: skip
            receipts.append(self._append_chunk(push, chunk.rows))
            if progress is not None:
                progress(sum(r.received for r in receipts), chunk.fraction)
        return total(source, receipts)

    def _append_chunk(self, push: Push, rows: Rows) -> Receipt:
        with self._lock:
            known = self._admit(push)
            if isinstance(known, Receipt):
                return known
            answers: dict[int, Receipt | FlyballError] = {}
            part = Part(0, push, known, 0, rows.height)
            self._commit([self._batch(rows, [part], bulk=True)], answers)
            receipt = answers[0]
            assert isinstance(receipt, Receipt)
            return receipt


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


def _entry(part: Part, checked: Checked, spec: SourceSpec) -> Entry:
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
