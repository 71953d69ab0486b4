"""Intake: push → contract → log. Pushes that arrive together are checked together and committed together."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from flyball.define.derive import stem_of
from flyball.define.spec import SourceSpec
from flyball.ingest.backlog import Backlog
from flyball.ingest.batching import Batch, Part, read_push, untaken
from flyball.ingest.body import RowReader
from flyball.ingest.compiled import warm
from flyball.ingest.contract import Checked, check
from flyball.ingest.derive import Moment
from flyball.ingest.files import open_file
from flyball.ingest.frames import meanings
from flyball.ingest.keysets import warm_sets
from flyball.ingest.load import Load, Progress, ahead, with_more
from flyball.ingest.ports import (
    Conditions,
    Entry,
    EventLog,
    LakeTables,
    NewBatch,
    QuarantineChange,
    RefusedBatch,
    StoredAnswer,
)
from flyball.ingest.receipts import Push, Receipt, added, answer_of, fingerprint, receipt_of, replayed, total
from flyball.ingest.rejection import suggestion
from flyball.ingest.rows import Rows, from_dicts
from flyball.ingest.rules import Came, no_conditions, refusal_error
from flyball.ingest.versions import Versions, judged_again
from flyball.kernel.clock import Clock
from flyball.kernel.errors import ConflictError, FlyballError, InvalidError, NotFoundError


class Intake:
    """The only writer of the log. Safe to call from several threads; commits one after another."""

    def __init__(
        self, log: EventLog, clock: Clock, backlog: Backlog, *, chunk_rows: int, conditions: Conditions = no_conditions
    ) -> None:
        warm()
        warm_sets()
        self._log = log
        self._backlog = backlog
        self._clock = clock
        self._chunk_rows = chunk_rows
        self._conditions = conditions
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
        spec = self._sources.get(name) or self._derived(name)
        if spec is None:
            raise NotFoundError(
                f"there is no source {name!r}{suggestion(name, list(self._sources))}",
                code="source_not_found",
                hint=f"there are: {', '.join(sorted(self._sources)) or 'none yet; run flyball apply'}",
            )
        return spec

    def _derived(self, name: str) -> SourceSpec | None:
        """A derived source by what it is called, without the hash of its definition."""
        return next((s for s in self._sources.values() if s.derive and stem_of(s.name) == name), None)

    # --- pushes

    def append(self, pushes: Sequence[Push]) -> list[Receipt | FlyballError]:
        """Check and commit pushes in one transaction; durable when it returns.

        The answer to each, in order: a receipt, or why this push was refused whole. Raises, with nothing stored, where
        the log could not be written.
        """
        with self._lock:
            answers: dict[int, Receipt | FlyballError] = {}
            refused: list[RefusedBatch] = []
            batches: list[tuple[NewBatch, list[Part]]] = []
            left, prints = list(range(len(pushes))), dict[int, str]()
            while left:
                batches += self._batches(pushes, left, answers, refused)
                left = untaken(pushes, left, batches, answers, prints)
            self._commit(batches, answers, refused)
            self._answer_repeated(pushes, answers)
        return [answers[place] for place in range(len(pushes))]

    def _batches(
        self,
        pushes: Sequence[Push],
        places: Sequence[int],
        answers: dict[int, Receipt | FlyballError],
        refused: list[RefusedBatch],
    ) -> Iterator[tuple[NewBatch, list[Part]]]:
        """A batch for each run of the pushes at `places` that can be judged together, the first of each idempotency
        key; answers what needs no commit."""
        batches: list[Batch] = []
        newest: dict[tuple[str, bool], Batch] = {}
        seen: set[tuple[str, str]] = set()
        for place in places:
            push = pushes[place]
            if push.idempotency_key and push.key in seen:
                continue  # what becomes of it depends on what becomes of the first
            seen.add(push.key)
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
            while batch.parts:
                source = batch.parts[0].push.source
                made = self._batch(batch.rows(self.source(source), self._reader(source)), batch.parts)
                if _all_good(made, batch.parts, answers, refused):
                    yield made, batch.parts
                    break
                batch = batch.without(answers)  # again, without those that are refused whole

    def _reader(self, source: str) -> RowReader:
        """What reads the source's bodies; made at its first push under a plan."""
        reader = self._readers.get(source)
        if reader is None:
            reader = self._readers[source] = RowReader(self.source(source))
        return reader

    def _admit(self, push: Push) -> str | Receipt:
        """The fingerprint of a push that is to be stored; or the receipt it had before."""
        spec = self.source(push.source)
        require_given(spec)
        if not push.live:
            require_history(spec)
        if not push.idempotency_key:
            return ""
        print_ = push.fingerprint or fingerprint(push.rows)
        stored = self._log.answer(push.source, push.idempotency_key)
        return print_ if stored is None else _again(push, print_, stored)

    def _batch(
        self,
        rows: Rows,
        parts: list[Part],
        *,
        bulk: bool = False,
        before: int = 0,
        more: bool = False,
        load: Load | None = None,
    ) -> NewBatch | dict[int, RefusedBatch]:
        """What is to be appended; or, where a push of these is refused whole, which ones and why."""
        push = parts[0].push
        spec = self.source(push.source)
        came = Came(live=push.live, pushes=tuple((part.start, part.end) for part in parts), before=before, more=more)
        now = self._clock.now()
        checked = check(rows, spec, now=now, live=push.live, came=came, conditions=self._conditions)
        if checked.refused:
            return checked.refused
        if load is not None:
            checked = load.once(checked)
        sized = any(rule.kind == "volume" for rule in spec.rules)
        return NewBatch(
            source=spec.name,
            frame=checked.frame,
            live=push.live,
            columns=meanings(spec),
            entries=tuple(_entry(number, part, checked, spec) for number, part in enumerate(parts)),
            rejected=tuple(row.to_data() for row in checked.rejected),
            rejected_after=_good_before(checked) if spec.corrections else (),
            duplicates=len(checked.duplicate_places),
            bulk=bulk,
            warnings=added(checked.warnings),
            rows_of_last=before + parts[-1].end - parts[-1].start if sized else None,
        )

    def _commit(
        self,
        batches: Sequence[tuple[NewBatch, list[Part]]],
        answers: dict[int, Receipt | FlyballError],
        refused: Sequence[RefusedBatch] = (),
    ) -> None:
        if not (batches or refused):
            return
        appended = self._log.append([batch for batch, _ in batches], now=self._clock.now(), refused=refused)
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
        """Pushes with an idempotency key that an earlier one among the same took: they are in the log by now."""
        for place, push in enumerate(pushes):
            if place in answers:
                continue
            try:
                again = self._admit(push)
                assert isinstance(again, Receipt)
                answers[place] = again
            except FlyballError as error:
                answers[place] = error

    # --- rows that the platform reads elsewhere

    def append_read(self, source: str, rows: Sequence[dict[str, Any]], *, live: bool, position: str) -> Receipt:
        """Check and commit rows together with the position that their reader stands at after them."""
        with self._lock:
            spec = self.source(source)
            parts = [Part(0, Push(source=source, rows=rows, live=live), "", 0, len(rows))]
            batch = self._batch(from_dicts(rows, spec), parts)
            answers: dict[int, Receipt | FlyballError] = {}
            refused: list[RefusedBatch] = []
            good = [(replace(batch, position=position), parts)] if _all_good(batch, parts, answers, refused) else []
            self._commit(good, answers, refused)
            receipt = answers[0]
            if isinstance(receipt, FlyballError):  # the position stays, so the rows come again once they are mended
                raise receipt
            return receipt

    def moment(self, sources: Collection[str]) -> Moment:
        """The time, and where the logs of these sources stand.

        No commit is under way that took an earlier time: every append of the log takes its time under this lock.
        """
        if not sources:
            return Moment(now=self._clock.now(), lsns={})
        with self._lock:
            return Moment(now=self._clock.now(), lsns={name: self._log.last_lsn(name) for name in sources})

    def append_derived(self, batch: NewBatch) -> None:
        """Commit events that were computed from events; they were judged before."""
        with self._lock:
            self._log.append([batch], now=self._clock.now())

    # --- files

    def append_file(
        self, source: str, path: Path, *, idempotency_key: str = "", format: str = "", progress: Progress | None = None
    ) -> Receipt:
        """Load a file of history, a chunk at a time, each committed. A load that was cut off goes on where it stopped.

        Without a key, the file's content and the source's declaration are the key: the same file loaded twice is
        stored once, and is checked anew when the contract changed.
        """
        spec = self.source(source)
        require_given(spec)
        require_history(spec)
        file, load = open_file(path, format=format), Load(spec, progress)
        # A chunk is written while the next one is judged and the one after it is read; the first, while it is not known
        # yet what the file is.
        with ThreadPoolExecutor(1, "bulk-commit") as committing, ThreadPoolExecutor(1, "bulk-read") as reading:
            chunks = ahead(with_more(file.chunks(spec, size=self._chunk_rows), spec), reading)
            digest = file.look_through(spec)[:32]
            key = idempotency_key or f"file:{digest}:{spec.hash[:16]}"
            for number, (chunk, more) in enumerate(chunks):
                push = Push(
                    source=source, rows=None, idempotency_key=f"{key}#{number}/{self._chunk_rows}", live=False,
                    fingerprint=digest,
                )  # fmt: skip
                known = self._admit(push)
                if isinstance(known, Receipt):
                    load.after(chunk, known)
                    continue
                parts = [Part(0, push, known, 0, chunk.rows.height)]
                batch = self._batch(chunk.rows, parts, bulk=True, before=load.read, more=more, load=load)
                load.settle()  # before: what an earlier chunk had is left out of this one
                load.after(chunk, committing.submit(self._commit_chunk, batch, parts, load.stored))
            load.settle()
        return total(source, load.receipts)

    def _commit_chunk(self, batch: NewBatch | dict[int, RefusedBatch], parts: list[Part], before: int) -> Receipt:
        """Commits beside the pushes: the log orders them, and a large file does not keep them waiting."""
        answers: dict[int, Receipt | FlyballError] = {}
        refused: list[RefusedBatch] = []
        self._commit([(batch, parts)] if _all_good(batch, parts, answers, refused) else [], answers, refused)
        receipt = answers[0]
        if isinstance(receipt, FlyballError):
            if before:
                receipt.hint += f"; the {before:,} rows before these are stored, and are not stored twice"
            raise receipt
        return receipt

    # --- quarantine

    def append_again(
        self,
        source: str,
        rows: Sequence[Any],
        places: Sequence[QuarantineChange],
        *,
        live: bool,
        strict: bool,
        lake: LakeTables,
    ) -> Counter[str]:
        """Judge quarantined rows by the contract of now and take those that pass, in one transaction with what becomes
        of each. `places` says which rows they are; counts rows by `accepted`, `duplicates`, `superseded` and
        `quarantined`. Called while nothing moves from the log to the lake, and under one plan.

        Raises `ConflictError` (`quarantine_changed`), with nothing stored, where one of them is not open any more.
        """
        spec = self.source(source)
        came = Came(live=live, pushes=((0, len(rows)),), again=True)
        checked = check(
            from_dicts(rows, spec, strict=strict), spec, now=self._clock.now(), live=live, came=came,
            conditions=self._conditions,
        )  # fmt: skip
        versions = Versions(self._log, lake, source, checked, places) if spec.corrections else None
        if versions is not None:
            versions.catch_up()  # most of the reading is done before pushes have to wait for it
        with self._lock:
            old = () if versions is None else versions.superseded()
            checked, changes = judged_again(checked, places, old)
            if checked.frame.is_empty():
                self._log.resolve(source, changes, now=self._clock.now())
            else:
                batch = NewBatch(
                    source=source, frame=checked.frame, live=live, columns=meanings(spec), changes=changes,
                    duplicates=len(checked.duplicate_places), warnings=added(checked.warnings),
                )  # fmt: skip
                self._log.append([batch], now=self._clock.now())
        return Counter(
            accepted=checked.frame.height,
            duplicates=len(checked.duplicate_places),
            superseded=len(old),
            quarantined=len(checked.rejected),
        )


def require_given(spec: SourceSpec) -> None:
    """Refuse events for a source that the platform computes."""
    if spec.derive is not None:
        raise InvalidError(
            f"source {stem_of(spec.name)} is derived from {spec.derive.source}; it takes no events of its own",
            code="derived_source",
            hint=f"give the events to {spec.derive.source}, and {stem_of(spec.name)} follows",
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


def _all_good(
    batch: NewBatch | dict[int, RefusedBatch],
    parts: Sequence[Part],
    answers: dict[int, Receipt | FlyballError],
    refused: list[RefusedBatch],
) -> TypeGuard[NewBatch]:
    """Whether a batch can be appended; else the pushes that are refused whole are answered, and noted in `refused`."""
    if isinstance(batch, NewBatch):
        return True
    for number, refusal in batch.items():
        answers[parts[number].place] = refusal_error(refusal)
        refused.append(refusal)
    return False


def _good_before(checked: Checked) -> tuple[int, ...]:
    """Of each rejected row, how many of the good ones stood before it."""
    return tuple(np.searchsorted(checked.places, checked.rejected_places).tolist())


def _entry(number: int, part: Part, checked: Checked, spec: SourceSpec) -> Entry:
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
            warnings=checked.warnings[number],
        ),
    )
