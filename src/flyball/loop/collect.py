"""The collector: from the workers' prediction logs to the lake, each record exactly once.

A manifest (batch n = ranges of segments) is committed to the metadata database before its rows are appended to the
lake as version n of this application; evidence and drift counts are added in the transaction that closes it. A crash
at any point leaves a manifest that is replayed from the same bytes, and an append that the lake knows it has. Only
the last segment of a slot is ever written to, so one with a successor is finished: what is torn at its end was never
answered and is cut with it. The last segment stays, so that a worker never gives a name twice.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.kernel.clock import Clock
from flyball.kernel.errors import InternalError, UnavailableError
from flyball.loop.ports import Lake, Manifest, Metadata, Piece, PredictionLog, Unit
from flyball.loop.records import TABLE, failed, frame
from flyball.rollout.evidence import TOTAL_WEIGHT, ArmCounts
from flyball.rollout.state import Phase, RolloutState

APP_ID = "flyball.collector"
MAX_RECORDS = 50_000  # in one manifest: what is in memory at once
HISTORY = 5  # rollouts of a service that late records may still belong to

Record = dict[str, Any]
Observer = Callable[[Unit, Sequence[Record]], None]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """What one tick of the collector did: rows brought to the lake, torn bytes' segments cut, segments removed."""

    rows: int = 0
    torn: int = 0
    removed: int = 0


class Collector:
    """Collects predictions. `observers` add what they derive from the records, in the closing transaction; `at` is
    called with the name of each step before it, and is where tests crash."""

    def __init__(
        self,
        metadata: Metadata,
        log: PredictionLog,
        lake: Lake,
        clock: Clock,
        *,
        observers: Sequence[Observer] = (),
        at: Callable[[str], None] = lambda step: None,
        max_records: int = MAX_RECORDS,
    ) -> None:
        self._metadata = metadata
        self._log = log
        self._lake = lake
        self._clock = clock
        self._observers = (count_evidence, *observers)
        self._at = at
        self._max_records = max_records

    def tick(self) -> Collected:
        """Collect what there is; a manifest that a crash left open is finished first.

        Raises, with the manifest left open, `ExhaustedError` (`disk_full`) or `InternalError` (`collection_stopped`)
        where the lake takes no rows.
        """
        with self._metadata.read() as unit:
            pending = unit.loop.pending()
        rows = self._commit(pending, None) if pending else 0
        while True:
            gathered = self._gather()
            if gathered is None:
                break
            manifest, records = gathered
            rows += self._commit(manifest, records)
            if len(records) < self._max_records:
                break
        torn, removed = self._clean()
        return Collected(rows=rows, torn=torn, removed=removed)

    def _gather(self) -> tuple[Manifest, list[Record]] | None:
        with self._metadata.read() as unit:
            collected = unit.loop.collected()
        pieces: list[Piece] = []
        records: list[Record] = []
        for slot in self._log.slots():
            for segment in self._log.segments(slot):
                start = collected.get((slot, segment), 0)
                part = self._log.read(slot, segment, start)
                if part.records:
                    pieces.append(Piece(slot=slot, segment=segment, start=start, end=part.end))
                    records.extend(part.records)
                if len(records) >= self._max_records:
                    break
        if not pieces:
            return None
        self._at("open")
        with self._metadata.write() as unit:
            manifest = unit.loop.open_manifest(tuple(pieces), at=self._clock.now())
        return manifest, records

    def _commit(self, manifest: Manifest, records: list[Record] | None) -> int:
        if records is None:
            records = []
            for piece in manifest.pieces:
                records.extend(self._log.read(piece.slot, piece.segment, piece.start, end=piece.end).records)
        self._at("append")
        try:
            self._lake.append(TABLE, frame(records), app_id=APP_ID, version=manifest.n)
        except UnavailableError as error:  # the lake is no process that comes back by itself: a waiting loop looks well
            raise InternalError(
                f"predictions are not collected, {len(records)} of them wait in the prediction log: {error.message}",
                code="collection_stopped",
                hint="nothing is lost; each tick tries again",
            ) from error
        self._at("close")
        with self._metadata.write() as unit:
            for observe in self._observers:
                observe(unit, records)
            self._at("commit")
            unit.loop.close_manifest(manifest, rows=len(records))
        return len(records)

    def _clean(self) -> tuple[int, int]:
        """Remove the segments that are collected and will not grow."""
        with self._metadata.read() as unit:
            collected = unit.loop.collected()
        torn = removed = 0
        gone = set(collected)
        for slot in self._log.slots():
            segments = self._log.segments(slot)
            gone -= {(slot, segment) for segment in segments}
            for segment in segments[:-1]:
                rest = self._log.read(slot, segment, collected.get((slot, segment), 0))
                if rest.records:
                    continue  # written after this tick gathered: the next one takes it
                if rest.torn:
                    torn += 1
                    logger.warning("a torn record was cut", extra={"slot": slot, "segment": segment})
                self._at("remove")
                self._log.remove(slot, segment)
                gone.add((slot, segment))
                removed += 1
        if gone:
            self._at("forget")
            with self._metadata.write() as unit:
                for slot, segment in gone:
                    unit.loop.forget_segment(slot, segment)
        return torn, removed


def count_evidence(unit: Unit, records: Sequence[Record]) -> None:
    """Add requests and failures per arm and weight to the rollouts in which the records were answered."""
    rollouts: dict[str, list[RolloutState]] = {}
    requests: Counter[tuple[str, str, int]] = Counter()
    errors: Counter[tuple[str, str, int]] = Counter()
    for record in records:
        service = str(record.get("service", ""))
        if service not in rollouts:
            rollouts[service] = unit.rollouts.history(service, limit=HISTORY)
        found = _rollout_of(record, rollouts[service])
        if found is None:
            continue
        rollout, arm, weight = found
        requests[rollout.id, arm, weight] += 1
        errors[rollout.id, arm, weight] += failed(record)
    for (rollout_id, arm, weight), count in requests.items():
        counts = ArmCounts(arm=arm, weight=weight, requests=count, errors=errors[rollout_id, arm, weight])
        unit.rollouts.add_counts(rollout_id, [counts])


def _rollout_of(record: Record, rollouts: list[RolloutState]) -> tuple[RolloutState, str, int] | None:
    """The rollout, arm and canary weight of a record; None where it was answered outside of a split."""
    propensity = record.get("propensity")
    if propensity is None or not 0.0 < float(propensity) < 1.0:
        return None
    arm = "canary" if record.get("arm") == "canary" else "stable"
    share = float(propensity) if arm == "canary" else 1.0 - float(propensity)
    for rollout in rollouts:  # the newest first
        version = rollout.version if arm == "canary" else rollout.previous
        if record.get("version") != version or int(record.get("at") or 0) < rollout.started_at:
            continue
        if rollout.phase in (Phase.PROMOTING, Phase.PROMOTED) and rollout.spec.kind == "full":
            continue
        return rollout, arm, round(share * TOTAL_WEIGHT)
    return None
