"""The ingest core: no sockets, no threads of its own; what an ingest process does, as methods."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.backlog import Backlog, BacklogLimits
from flyball.ingest.committing import Horizon, LakeCommitter
from flyball.ingest.derive import Derivations, Moment
from flyball.ingest.erasing import Eraser
from flyball.ingest.frames import fitted
from flyball.ingest.intake import Intake
from flyball.ingest.load import Progress
from flyball.ingest.plan import FEEDBACK, Plan, read_plan
from flyball.ingest.ports import (
    Applier,
    Conditions,
    Database,
    Deriver,
    EventLog,
    LakeTables,
    LogBatch,
    LogTotals,
    NewBatch,
)
from flyball.ingest.pull import Pulls
from flyball.ingest.quarantine import Quarantine
from flyball.ingest.reading import Stored
from flyball.ingest.receipts import Push, Receipt
from flyball.ingest.receipts import fingerprint as print_of
from flyball.ingest.retention import Retention
from flyball.ingest.rules import contract_state, no_conditions
from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError, InternalError, NotFoundError, UnavailableError


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestConfig:
    """Rows of a file's chunk, of one commit to the lake, of one transaction of the online state, of one page of a pull,
    and of one step of a derivation; and how far the lake and the online state may be behind."""

    chunk_rows: int = 500_000
    commit_rows: int = 250_000
    apply_rows: int = 50_000
    page_rows: int = 10_000
    derive_rows: int = 50_000
    backlog: BacklogLimits = field(default_factory=BacklogLimits)


class Ingest:
    """Takes events into the log, applies them to the online state, commits them to the lake.

    Any thread may call. Appends do not wait for applying or flushing; these two exclude each other.

    Args:
        conditions: computes the sources' checks across columns (`fb.check`); the one evaluator of expressions.
        retention_notes: a file that remembers how long sources which leave the plan keep their rows.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        lake: LakeTables,
        applier: Applier,
        clock: Clock,
        conditions: Conditions = no_conditions,
        config: IngestConfig | None = None,
        database: Database | None = None,
        deriver: Deriver | None = None,
        eraser: Eraser | None = None,
        retention_notes: Path | None = None,
    ) -> None:
        self._log = log
        self._lake = lake
        self._applier = applier
        self._clock = clock
        self._eraser = eraser
        self._config = config or IngestConfig()
        self._backlog = Backlog(self._config.backlog)
        self._intake = Intake(log, clock, self._backlog, chunk_rows=self._config.chunk_rows, conditions=conditions)
        self._quarantine = Quarantine(log, lake, self._intake, clock)
        self._stored = Stored(log, lake, step=self._config.apply_rows)
        self._committer = LakeCommitter(log, lake, applier, commit_rows=self._config.commit_rows)
        self._retention = Retention(lake, clock, notes=retention_notes)
        self.pulls = Pulls(
            log=log, intake=self._intake, database=database, clock=clock, page_rows=self._config.page_rows
        )
        self._derivations = Derivations(
            log=log, events=_Reading(self), deriver=deriver, step_rows=self._config.derive_rows
        )
        for name, total in log.totals().items():
            self._begin(name, total)
        self._lock = threading.RLock()
        self._plan = Plan()
        self._floor: dict[str, int] = {}  # the LSN up to which the online state was fed from the lake
        self._applied_until: dict[str, int] = {}  # known_at of the newest event applied by this process
        self._intake.use(self._plan.sources)

    # --- the plan

    def load_plan(self, plan: dict[str, Any]) -> None:
        """Take the sources and views of a plan, or raise and keep the old ones.

        Raises `InvalidError` (`bad_plan`), `ConflictError` (`column_type_changed`).
        """
        taken = read_plan(plan, self._log.totals())
        with self._lock:
            derivations = self._derivations.prepare(taken.sources)
            self._hand(taken.after(self._plan, self._log.totals()))
            self._derivations.use(derivations)
            self._intake.use(taken.sources)
            self._retention.note(taken.sources.values())

    def _hand(self, plan: Plan) -> None:
        """Make a plan the one in force, if the applier takes it; meanwhile it may ask for events of its sources."""
        before, self._plan = self._plan, plan
        try:
            plan.hand_to(self._applier)
        except BaseException:
            self._plan = before
            raise

    def sources(self) -> list[SourceSpec]:
        """The sources that events are taken for, the built-in one last."""
        return sorted(self._plan.sources.values(), key=lambda spec: (spec.name == FEEDBACK.name, spec.name))

    # --- taking events

    def append(self, source: str, rows: Any, *, idempotency_key: str = "", live: bool = True) -> Receipt:
        """Check rows and commit what is good and what is not; durable when it returns.

        Args:
            rows: a list of dicts, a Polars frame or an Arrow table.
            live: known from this commit on. History (`live=False`) is known when the source's `known` says.

        Raises `NotFoundError` (`source_not_found`), `InvalidError` (`missing_column`, `history_not_declared`),
        `ConflictError` (`idempotency_key_used`), `ExhaustedError` (`disk_full`).
        """
        push = Push(source=source, rows=rows, idempotency_key=idempotency_key, live=live)
        return _only(self.append_many([push]))

    def append_many(self, pushes: Sequence[Push]) -> list[Receipt | FlyballError]:
        """Several pushes in one transaction: a receipt or the reason of its refusal for each, in order."""
        return self._intake.append(pushes)

    def append_file(
        self,
        source: str,
        path: Path,
        *,
        idempotency_key: str = "",
        format: str = "",
        progress: Progress | None = None,
    ) -> Receipt:
        """Load history from a CSV, Parquet or JSON Lines file; each chunk is durable when it is done.

        Args:
            format: `csv`, `parquet` or `jsonl`; empty: by the file's name.
            progress: called after each chunk with the rows so far and the fraction of the file.

        Raises, before anything is stored, `InvalidError` (`missing_column`, `bad_file`, `bad_encoding`, `empty_file`,
        `history_not_declared`).
        """
        return self._intake.append_file(source, path, idempotency_key=idempotency_key, format=format, progress=progress)

    def pull(self, source: str, *, stopping: Callable[[], bool] = lambda: False) -> Receipt:
        """Pull a source from its origin now; see `Pulls.pull`."""
        return self.pulls.pull(source, stopping=stopping)

    def feedback(self, items: Any, *, idempotency_key: str = "") -> Receipt:
        """Take labels of predictions: `{"prediction_id": …, "label": number or boolean}`, timed now."""
        return _only(self.append_many([self.feedback_push(items, idempotency_key=idempotency_key)]))

    def feedback_push(self, items: Any, *, idempotency_key: str = "", fingerprint: str = "") -> Push:
        """`feedback` as a push among others."""
        now = self._clock.now()
        rows = [_label(item, now) for item in ([items] if isinstance(items, dict) else items)]
        if idempotency_key and not fingerprint:
            fingerprint = print_of(items)  # of what was sent: the time is ours and differs
        return Push(source=FEEDBACK.name, rows=rows, idempotency_key=idempotency_key, fingerprint=fingerprint)

    # --- log → online state → lake

    def apply(self) -> int:
        """Bring the online state up to the log, derived sources a step further, and release history that is known by
        now; events applied and derived from."""
        with self._lock:
            return self._apply_all(self._intake.moment(self._derivations.parents))

    def _apply_all(self, moment: Moment) -> int:
        derived = self._derivations.names
        count = sum(self._apply(source) for source in self._plan.names if source not in derived)
        for source in derived:
            count += self._derivations.step(source, moment)
            count += self._apply(source)
        self._applier.release(self._clock.now())
        return count

    def flush(self, sources: Sequence[str] | None = None) -> dict[str, Horizon]:
        """Apply, then commit what was applied to the lake. A source that fails is tried again next time."""
        with self._lock:
            moment = self._intake.moment(self._derivations.parents)
            self._apply_all(moment)
            names = self._plan.names if sources is None else [self._intake.source(name).name for name in sources]
            if sources is not None:
                self._require_derived(names, moment)
            return self._commit(names)

    def _commit(self, names: Iterable[str]) -> dict[str, Horizon]:
        totals = self._log.totals()
        horizons: dict[str, Horizon] = {}
        for name in names:
            if name in totals:
                horizons[name] = self._committer.commit(name, totals[name].columns)
                self._backlog.flushed(name, horizons[name].lsn)
            else:
                horizons[name] = self._committer.horizon(name)
        return horizons

    def check_backlog(self) -> None:
        """Raises `ExhaustedError` (`backlog_full`, `lake_backlog_full`) where too much waits to take more pushes."""
        self._backlog.check()

    def _begin(self, source: str, total: LogTotals) -> None:
        """Count what an earlier process left in the log."""
        applied, flushed = self._applier.applied_lsn(source), max(0, (total.oldest_lsn or total.last_lsn + 1) - 1)
        applied = max(applied, flushed)  # an online state that was lost is fed from the lake up to there
        self._backlog.begin(
            source,
            stored=total.last_lsn,
            applied=applied,
            unapplied=self._log.live_after(source, applied),
            flushed=flushed,
            unflushed=self._log.live_after(source, flushed),
        )

    def retain(self) -> int:
        """Delete a bounded piece of what is older than its source keeps it; how many rows. 0: nothing is due, or it
        waits for what is derived from it, as `status` then says."""
        with self._lock:  # what is derived stands still between the question and the deletion
            moment = self._intake.moment(self._derivations.parents)
            if any(self._derivations.behind(name, moment) for name in self._derivations.names):
                self._apply_all(moment)
            return self._retention.step(self.sources(), lambda name: self._unread(name, moment))

    def _unread(self, derived: str, moment: Moment) -> int:
        """How many events a derived source has yet to read, those among them that are not known yet."""
        state = self._derivations.status(derived)
        return self._derivations.behind(derived, moment) + (state["held"] if state is not None else 0)

    def _require_derived(self, names: Sequence[str], moment: Moment) -> None:
        """Refuse to give the horizon of a derived source that lacks events of its parent."""
        for name in names:
            behind = self._derivations.behind(name, moment) if name in self._derivations.names else 0
            if behind:
                raise UnavailableError(
                    f"{name} is still being derived: {behind} events of its parent are to come",
                    code="not_derived_yet",
                    hint="flyball status shows how far it is, and whether something is wrong",
                )

    def _apply(self, source: str) -> int:
        count = self._feed_from_lake(source)
        after = self._reach(source)
        if self._log.last_lsn(source) <= after:
            return count
        while batches := self._log.read(source, after=after, limit=self._config.apply_rows):
            frame = self._read(source, batches)
            count += self._applier.apply(source, frame)
            after = batches[-1].last_lsn
            self._backlog.applied(source, after)
            self._applied_until[source] = int(frame["_known_at"][-1])
        return count

    def _read(self, source: str, batches: Sequence[LogBatch]) -> pl.DataFrame:
        """What the applier needs of batches: of a file few columns, unless it has to hold rows back until they are
        known."""
        if len(batches) > 1:
            return pl.concat([self._fitted(source, batch.frame) for batch in batches], how="diagonal")
        (batch,) = batches
        if batch.file is None:
            return self._fitted(source, batch.frame)
        wanted = self._applier.columns(source)
        frame = batch.columns(wanted)
        known, events = frame["_known_at"].max(), frame["_event_time"].max()
        assert isinstance(known, int)
        assert isinstance(events, int)
        enough = max(known, events) <= self._clock.now() and set(wanted) <= set(frame.columns)
        return frame if enough else self._fitted(source, batch.frame)

    def _feed_from_lake(self, source: str) -> int:
        """After an online state was lost, the log alone does not have the old events; once per process."""
        if source in self._floor:
            return 0
        reach, count = self._lake.version(source, source), 0
        after = self._applier.applied_lsn(source)
        while after < reach:
            through = min(reach, after + self._config.apply_rows)
            frame = self._lake.read(source, after_lsn=after, through_lsn=through)
            if frame.height:
                count += self._applier.apply(source, self._fitted(source, frame))
            after = through
        self._floor[source] = reach
        return count

    def _fitted(self, source: str, frame: pl.DataFrame) -> pl.DataFrame:
        return fitted(frame, self._known(source))

    # --- reading

    def events(
        self, source: str, columns: Sequence[str] | None = None, *, through_lsn: int | None = None
    ) -> pl.DataFrame:
        """The physical frame of a source's events in LSN order, each key once: from the lake, then from the log.

        Of a source with corrections all versions of a key, deletions among them (`_deleted`).
        Reaches to `through_lsn` (None: to what was applied). Columns: the asked ones (None: all) and the system's own.
        Asks nothing of the applier where `through_lsn` is given, so that the applier may ask for events itself.
        """
        with self._lock:
            spec = self._known(source)
            through = self._reach(source) if through_lsn is None else through_lsn
            events = self._stored.span(spec, columns, after_lsn=0, through_lsn=through)
        return events if spec.corrections else events.unique("_key", keep="first", maintain_order=True)

    def between(self, source: str, after: int, through: int) -> pl.DataFrame:
        """The physical events with an LSN in (after, through], each key once; of a source with corrections, all.

        Asks the applier which are first, so `through` may be at most what was applied.
        """
        with self._lock:
            return self._stored.span(
                self._known(source), after_lsn=after, through_lsn=through, first=self._applier.seen_first
            )

    def span(self, source: str, columns: Iterable[str], *, after_lsn: int, through_lsn: int) -> pl.DataFrame:
        """The events of a range of LSNs, each as often as the log has it: `features.build.RangeReader`."""
        with self._lock:
            return self._stored.span(self._known(source), columns, after_lsn=after_lsn, through_lsn=through_lsn)

    def _reach(self, source: str) -> int:
        """The LSN up to which the online state stands."""
        return max(self._applier.applied_lsn(source), self._floor.get(source, 0))

    def _known(self, source: str) -> SourceSpec:
        return self._plan.source(source) or self._intake.source(source)

    # --- quarantine

    def quarantine(self, source: str, *, rule: str = "", state: str = "", limit: int = 100) -> dict[str, Any]:
        """The newest quarantined rows with their reasons, pii redacted: `{source, total, open, rules, rows, refused}`.

        `state` is `open`, `retried`, `superseded` or `dropped`; empty: any. `refused` are the newest pushes refused
        whole.
        """
        with self._lock:
            return self._quarantine.listed(source, rule=rule, state=state, limit=limit)

    def quarantined(self, id: str) -> dict[str, Any]:
        """One quarantined row. Raises `NotFoundError` (`quarantined_not_found`)."""
        with self._lock:
            return self._quarantine.show(id)

    def retry(self, source: str, *, rule: str = "", ids: Sequence[str] = ()) -> dict[str, Any]:
        """Take open rows of the quarantine that the contract of now accepts, each once: `{retried, accepted,
        duplicates, superseded, quarantined}`. `superseded`: a version of the row's key was accepted after it came."""
        with self._lock:
            return self._quarantine.retry(source, rule=rule, ids=ids)

    def drop(self, source: str, *, rule: str = "", ids: Sequence[str] = ()) -> dict[str, Any]:
        """Give open rows of the quarantine up: `{dropped}`."""
        with self._lock:
            return self._quarantine.drop(source, rule=rule, ids=ids)

    def count_erased(self, source: str, column: str, digests: Sequence[str]) -> dict[str, Any]:
        """What `erase` would take: `{"rows", "quarantined", "lsns"}`."""
        with self._lock:
            spec = self._erasable(source, column)
            if spec is None:
                return {"rows": 0, "quarantined": 0, "lsns": []}
            return self._erasing().count(spec, column, digests)

    def erase(self, source: str, column: str, digests: Sequence[str], *, entity: bytes | None = None) -> None:
        """Erase what log, lake, quarantine and online state hold of one value, known by its keyed digests. What is
        pushed meanwhile stays. Idempotent; a crash leaves what doing it again completes.

        A derived source that is behind its parent is no hindrance: whoever erases from the parent first leaves nothing
        of the value to be derived."""
        eraser = self._erasing()
        with self._lock:
            spec = self._erasable(source, column)
            if spec is None:
                return
            if self._plan.source(spec.name) is None:
                self._hand(self._plan.recalling(spec.name, self._log.totals()))
            self._apply_all(self._intake.moment(self._derivations.parents))
            self._commit([spec.name])
            try:
                eraser.erase(spec, column, digests, entity)
            finally:
                self._derivations.renew(spec.name, self._plan.sources)

    def _erasable(self, source: str, column: str) -> SourceSpec | None:
        """A source with a column, though either may have left the plan. None: it never had any."""
        with suppress(NotFoundError):  # out of the plan: the log may remember it
            source = self._known(source).name
        return self._plan.with_column(source, column, self._log.totals())

    def _erasing(self) -> Eraser:
        if self._eraser is None:
            raise InternalError("this ingest was wired without an eraser", code="no_eraser")
        return self._eraser

    def status(self) -> dict[str, Any]:
        """The plan's epoch and digest; per source what was taken, applied and committed, and how far each is behind.

        `rows`, `quarantined` and `duplicates` are of all time, as are `warnings` and `refused` (pushes), by rule;
        `quarantine_open` waits to be retried or dropped. `lag` is in events, `lag_us` in domain time. `contract` is how
        the source's rules on freshness and volume stand now. `retention_waits_for` are the derived sources that rows
        which are due to be deleted are kept for.
        """
        totals = self._log.totals()
        return {
            "epoch": self._plan.epoch,
            "digest": self._plan.digest,
            "backlog": self._backlog.status(),
            "sources": [self._source_status(spec, totals.get(spec.name, LogTotals())) for spec in self.sources()],
        }

    def _source_status(self, spec: SourceSpec, total: LogTotals) -> dict[str, Any]:
        source = spec.name
        applied = self._reach(source)
        committed = self._lake.version(source, source)
        behind = max(0, total.last_lsn - applied)
        since = self._applied_until.get(source, total.last_known_at)
        return {
            "name": source,
            "rows": total.last_lsn,
            "quarantined": total.rejected,
            "quarantine_open": total.rejected - total.resolved,
            "duplicates": total.duplicates,
            "rules": total.rules,
            "warnings": total.warnings,
            "refused": total.refused,
            "contract": contract_state(spec, total, now=self._clock.now()),
            "lsn": total.last_lsn,
            "applied_lsn": applied,
            "lake_lsn": committed,
            "lag": behind,
            "lag_us": max(0, self._clock.now() - since) if behind else 0,
            "lake_lag": max(0, total.last_lsn - committed),
            "last_event": total.last_event_time or None,
            "known_at": total.last_known_at or None,
            "pending_batches": total.pending_batches,
            "pull": self.pulls.status(spec) if spec.origin else None,
            "derive": self._derivations.status(source) if spec.derive else None,
            "retention_waits_for": self._retention.waits_for(source),
        }


class _Reading:
    """The core as `derive.Events`."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def applied(self, source: str) -> int:
        return self._ingest._reach(source)

    def between(self, source: str, after: int, through: int) -> pl.DataFrame:
        return self._ingest.between(source, after, through)

    def store(self, batch: NewBatch) -> None:
        self._ingest._intake.append_derived(batch)


def _only(answers: Sequence[Receipt | FlyballError]) -> Receipt:
    answer = answers[0]
    if isinstance(answer, FlyballError):
        raise answer
    return answer


def _label(item: Any, now: int) -> Any:
    if not isinstance(item, dict):
        return item
    label = item.get("label")
    return {**item, "label": float(label) if isinstance(label, bool) else label, "at": now}
