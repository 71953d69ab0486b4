"""The skew audit as a loop: predictions are sampled by entity while they are collected, and recomputed a few at a time.

What is sampled is put into a queue in the transaction that closes the collector's manifest, and is taken out in the one
that adds what was found: a crash at any point neither loses nor counts a prediction twice. The share of entities that
is sampled shrinks where more comes than is audited, and grows up to all of them where less does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flyball.define.spec import ProjectSpec, ServiceSpec, SourceSpec, ViewSpec
from flyball.features.accumulator import Floats
from flyball.features.audit import EXAMPLES, Audited, Score, audit, entity_of, position
from flyball.features.causes import Known
from flyball.features.confidence import upper_bound
from flyball.features.ports import AuditEntry, AuditPeriod, AuditState, EventSlices
from flyball.features.recompute import Definition, Seal, Served
from flyball.governance.facts import Recorder
from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError, NotFoundError, UnavailableError
from flyball.kernel.facts import Actor
from flyball.kernel.ids import new_id
from flyball.kernel.times import DAY, MINUTE, SECOND
from flyball.loop.ports import IngestClient, Metadata, Packages, Unit
from flyball.loop.publish import services, version_digest
from flyball.loop.records import failed
from flyball.loop.views import OnlineValue
from flyball.monitoring.alerts import Finding, follow
from flyball.registry.gates import GateResult, decide_skew

LOOP = Actor(name="loop:audit")
logger = logging.getLogger(__name__)
Record = dict[str, Any]
OpenScore = Callable[[str], Callable[[Floats], Floats] | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRule:
    """How much is audited.

    Args:
        share: of the entities of a period that a service begins with; all predictions of a sampled one are audited,
            but for those that the queue has no room for. 0: nothing is ever sampled.
        rows: predictions of a service in one step.
        every: between two steps of a service, in domain time.
        settle: how old a prediction is when it is audited, so that its own row and late ones may have come; and how
            long the share stays before it is doubled again, as the queue tells no sooner what a share brings.
        give_up: how long a prediction waits that cannot be audited.
        waiting: predictions of a service in the queue; past them some are let go and the share of entities is halved,
            below an eighth of them it is doubled.
        period: over which the counts are added up and after which other entities are sampled, and `window`: over how
            much of them the bound is taken.
    """

    share: float = 0.05
    rows: int = 200
    every: int = 10 * SECOND
    settle: int = MINUTE
    give_up: int = DAY
    waiting: int = 2_000
    period: int = DAY
    window: int = 7 * DAY

    def sampled(self, state: AuditState) -> float:
        """The share of the entities that is sampled now; `state.share` is that of what is begun with, and may be
        above 1."""
        return min(1.0, state.share * self.share)


@dataclass(frozen=True, kw_only=True)
class Audits:
    """What the audit and explanations are wired with.

    Args:
        score: opens a version's model by its digest; None where running it would mean to execute a user's code.
        online: what online state says of a feature; None where it cannot be asked.
        lake: where the lake's tables lie.
    """

    history: EventSlices
    seal: Seal
    score: OpenScore = lambda digest: None
    rule: AuditRule = AuditRule()
    online: OnlineValue | None = None
    lake: str = ""


class SkewAudit:
    """Samples, recomputes, counts, and opens and closes alerts."""

    def __init__(
        self,
        metadata: Metadata,
        packages: Packages,
        ingest: IngestClient,
        audits: Audits,
        recorder: Recorder,
        clock: Clock,
        *,
        ids: Callable[[str], str] = new_id,
    ) -> None:
        self._metadata = metadata
        self._packages = packages
        self._ingest = ingest
        self._audits = audits
        self._rule = audits.rule
        self._recorder = recorder
        self._clock = clock
        self._ids = ids
        self._looked: dict[str, int] = {}
        self._grown: dict[str, int] = {}  # per service: when its share was last doubled
        self._reach: dict[str, int] = {}  # per source: the LSN up to which the lake is known to reach
        self._definitions: dict[str, Definition] = {}

    # sampling

    def sample(self, unit: Unit, records: Sequence[Record]) -> None:
        """Observer of the collector: put the predictions of sampled entities into the queue."""
        states: dict[str, AuditState] = {}
        found: dict[str, list[AuditEntry]] = {}
        for record in records:
            if not record.get("features") or failed(record) or record.get("feature_state") not in (None, "fresh"):
                continue  # what was answered with defaults says so itself
            service = str(record["service"])
            if service not in states:
                states[service] = unit.audit.state(service)
            try:
                definition = self._definition(version_digest(unit, str(record["version"])))
            except FlyballError:  # what cannot be audited must not keep predictions from the lake
                continue
            entity = entity_of(definition, Served.of(record))
            period = int(record["at"]) // self._rule.period
            if position(entity, service, period) < self._rule.sampled(states[service]):
                found.setdefault(service, []).append(_entry(record))
        for service, state in states.items():
            self._enqueue(unit, state, found.get(service, []))

    def _enqueue(self, unit: Unit, state: AuditState, entries: list[AuditEntry]) -> None:
        """Take what the queue has room for, and adapt the share of entities to what it holds.

        Which predictions are let go is drawn for each of them and not for entities: a service may have so few, with so
        much traffic each, that none of them would be left.
        """
        entries.sort(key=lambda entry: entry.place)
        for entry in entries[: self._rule.waiting]:
            unit.audit.enqueue(entry)
        waiting, cut = unit.audit.waiting(state.service), 1.0
        dropped = max(0, len(entries) - self._rule.waiting)
        while waiting > self._rule.waiting:
            cut /= 2
            gone = unit.audit.drop_from(state.service, cut)
            waiting, dropped = waiting - gone, dropped + gone
        if dropped:
            unit.audit.put_state(replace(state, share=state.share / 2, dropped=state.dropped + dropped))
        elif waiting < self._rule.waiting // 8:
            self._grow(unit, state)

    def _grow(self, unit: Unit, state: AuditState) -> None:
        now, last = self._clock.now(), self._grown.get(state.service)
        if not 0.0 < self._rule.sampled(state) < 1.0 or (last is not None and now < last + self._rule.settle):
            return
        self._grown[state.service] = now
        unit.audit.put_state(replace(state, share=min(2 * state.share, 1 / self._rule.share)))

    # the loop

    def tick(self) -> dict[str, str]:
        """Audit the oldest predictions of each service whose turn it is; what was found."""
        now = self._clock.now()
        with self._metadata.read() as unit:
            known = services(unit.projects.all())
        done: dict[str, str] = {}
        failures: list[Exception] = []
        for project, service in known:
            last = self._looked.get(service.name)
            if last is not None and now < last + self._rule.every:
                continue
            self._looked[service.name] = now
            with self._metadata.read() as unit:
                entries = unit.audit.oldest(service.name, before=now - self._rule.settle, limit=self._rule.rows)
            try:
                if entries:
                    done[service.name] = self._step(project, service, entries)
                self._watch(service, now)
            except Exception as error:  # one service must not keep the others from being audited
                failures.append(error)
                self._let_go(service.name, entries, now)
        if failures:
            raise failures[0]
        return done

    def _let_go(self, service: str, entries: Sequence[AuditEntry], now: int) -> None:
        """Take those from the queue that have waited too long: their source left, or they cannot be recomputed."""
        old = [entry.id for entry in entries if entry.at < now - self._rule.give_up]
        if old:
            with self._metadata.write() as unit:
                state = unit.audit.state(service)
                unit.audit.dequeue(old)
                unit.audit.put_state(replace(state, dropped=state.dropped + len(old)))

    def _step(self, project: ProjectSpec, service: ServiceSpec, entries: list[AuditEntry]) -> str:
        try:
            ready = self._ready(entries)
        except (UnavailableError, NotFoundError) as error:
            self._let_go(service.name, entries, self._clock.now())
            return f"not yet: {error.message}"
        if not ready:
            self._let_go(service.name, entries, self._clock.now())
            return "not yet: the lake does not reach so far"
        groups: dict[tuple[str, int], list[AuditEntry]] = {}
        for entry in ready:
            start = entry.at // self._rule.period * self._rule.period
            groups.setdefault((entry.version, start), []).append(entry)
        audited = {key: self._audit(project, key[0], mine) for key, mine in groups.items()}
        found = []
        for version in dict.fromkeys(version for version, _ in audited):
            results = [result for (ref, _), result in audited.items() if ref == version]
            compared, mismatched = sum(r.compared for r in results), sum(r.mismatched for r in results)
            found.append(f"{compared} values of {version}, {mismatched} differ")
        with self._metadata.write() as unit:
            for (version, start), result in audited.items():
                self._add(unit, service.name, version, result, start)
            unit.audit.dequeue([entry.id for entry in ready])
        return "; ".join(found)

    def _ready(self, entries: list[AuditEntry]) -> list[AuditEntry]:
        """Those whose events are in the lake; ingest is asked to bring what is missing."""
        wanted: dict[str, int] = {}
        for entry in entries:
            for source, lsn in (entry.record.get("lsn") or {}).items():
                wanted[source] = max(wanted.get(source, 0), int(lsn))
        behind = [source for source, lsn in wanted.items() if self._reach.get(source, 0) < lsn]
        if behind:
            self._reach |= {source: horizon.lsn for source, horizon in self._ingest.flush(behind).items()}
        return [
            entry
            for entry in entries
            if all(int(lsn) <= self._reach.get(source, 0) for source, lsn in (entry.record.get("lsn") or {}).items())
        ]

    def _audit(self, project: ProjectSpec, version: str, entries: list[AuditEntry]) -> Audited:
        with self._metadata.read() as unit:
            digest = version_digest(unit, version)
            others = self._others(unit, project, version)
        definition, history = self._definition(digest), self._audits.history
        return audit(
            definition,
            [Served.of(entry.record) for entry in entries],
            history,
            known=Known(others=others, kept_from=lambda name: history.kept_from(definition.source(name))),
            seal=self._audits.seal,
            score=self._score(digest),
        )

    def _score(self, digest: str) -> Score | None:
        predict: list[Callable[[Floats], Floats] | None] = []

        def score(matrix: Floats) -> Floats | None:
            if not predict:  # opened only where there is something to score
                predict.append(self._audits.score(digest))
            return None if predict[0] is None else predict[0](matrix)

        return score

    def _others(self, unit: Unit, project: ProjectSpec, version: str) -> dict[str, list[tuple[ViewSpec, SourceSpec]]]:
        """Other definitions of the version's views: the project's, and those of the model's newest versions."""
        mine = self._definition(version_digest(unit, version))
        model = version.rpartition("/")[0]
        newest = [self._definition(v.digest) for v in unit.versions.list(model, limit=5)]
        candidates = [(v, project.source(v.source)) for v in project.views]
        candidates += [(v, d.source(v.source)) for d in newest for v in d.views]
        found: dict[str, list[tuple[ViewSpec, SourceSpec]]] = {}
        for view, source in candidates:
            for own in mine.views:
                known = [other.definition for other, _ in found.get(own.name, [])]
                if view.name == own.name and view.definition not in (own.definition, *known):
                    found.setdefault(own.name, []).append((view, source))
        return found

    def _definition(self, digest: str) -> Definition:
        if digest not in self._definitions:
            self._definitions[digest] = Definition.of(self._packages.manifest(digest))
        return self._definitions[digest]

    def _add(self, unit: Unit, service: str, version: str, result: Audited, start: int) -> None:
        for feature, tally in result.features.items():
            unit.audit.add_period(
                AuditPeriod(
                    service=service,
                    version=version,
                    feature=feature,
                    start=start,
                    compared=tally.compared,
                    skipped=tally.skipped,
                    causes=tally.causes,
                )
            )
        state, effect = unit.audit.state(service), result.effect
        examples = [example.to_data() | {"version": version} for example in result.examples]
        unit.audit.put_state(
            replace(
                state,
                audited=state.audited + result.rows,
                at=self._clock.now(),
                examples=(*examples, *state.examples)[:EXAMPLES],
                effect_rows=state.effect_rows + effect.rows,
                effect_total=state.effect_total + effect.total,
                effect_largest=max(state.effect_largest, effect.largest),
            )
        )

    # alerts

    def _watch(self, service: ServiceSpec, now: int) -> None:
        """An alert where the bound is above the service's limit; none while there is too little to go by."""
        if service.max_skew is None:
            return
        with self._metadata.read() as unit:
            version = unit.rollouts.served(service.name).current
            compared, mismatched = counts(unit, service.name, version, now - self._rule.window)
            alerts = unit.monitoring.alerts(service.name, open_only=True)
        bound = upper_bound(mismatched, compared)
        least = 1 - upper_bound(compared - mismatched, compared)  # of the rate, at the same confidence
        enough = compared >= 3 / service.max_skew or least > service.max_skew
        details = {
            "reason": f"up to {bound:.3g} of the served values may differ; {service.max_skew:g} is allowed",
            "compared": compared,
            "mismatched": mismatched,
            "bound": bound,
            "limit": service.max_skew,
        }
        finding = Finding(
            kind="skew",
            service=service.name,
            version=version,
            firing=bound > service.max_skew if enough and version else None,
            details=details,
        )
        opened = next((alert for alert in alerts if alert.kind == "skew"), None)
        alert = follow(opened, finding, now=now, new_id=lambda: self._ids("alert"))
        if alert is None:
            return
        verb = "open" if alert.closed_at is None else "close"
        with self._metadata.write() as unit:
            unit.monitoring.put_alert(alert)
            after = {"alert": alert.id, "kind": alert.kind, "version": alert.version, "details": alert.details}
            self._recorder.record(unit.facts, LOOP, f"alert.{verb}", f"service:{alert.service}", after=after)
        logger.warning("alert %s: %s", verb, alert.kind, extra={"service": alert.service, "version": alert.version})


def _entry(record: Record) -> AuditEntry:
    kept = ("id", "at", "key", "inputs", "features", "lsn", "known_through")
    return AuditEntry(
        id=str(record["id"]),
        service=str(record["service"]),
        version=str(record["version"]),
        at=int(record["at"]),
        place=position({"id": str(record["id"])}),
        record={name: record.get(name) for name in kept},
    )


def counts(unit: Unit, service: str, version: str, since: int) -> tuple[int, int]:
    """Values of a version that were compared and that differ, in the periods since a time."""
    periods = unit.audit.periods(service, version=version, since=since) if version else []
    return sum(p.compared for p in periods), sum(p.mismatched for p in periods)


def skew_gate(
    unit: Unit, service: ServiceSpec, version: str, now: int, *, window: int = AuditRule().window
) -> GateResult | None:
    """Whether what `version` served agrees with training as the service asks; None: it asks nothing, or nothing was
    served yet."""
    if service.max_skew is None or not version:
        return None
    compared, mismatched = counts(unit, service.name, version, now - window)
    bound = upper_bound(mismatched, compared)
    return decide_skew(service.name, version, compared=compared, bound=bound, limit=service.max_skew)
