"""Derived sources, kept up: ranges of a parent's events become events of the derived source, each once.

A range begins where the last one ended, and its events and its end are one transaction of the log. So a crash anywhere
repeats what was not committed and nothing else, and a new definition, which is a source of its own, is built from the
parent's first event on in the same steps, across crashes.

An event is derived from when it is known on, and then everything that was known before it is in the log: live events
get their `known_at` from one clock that never goes back, when they are committed. A `Moment` is a time and where the
logs stood at it; inputs are applied up to there before a range is derived. Of two events known at one and the same
microsecond, as a replay clock makes them, the one that was there first does not see the other. History of an input that
is loaded when events were derived that it was known before is counted as late: those are not derived again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import polars as pl

from flyball.define.derive import inputs_of
from flyball.define.spec import SourceSpec
from flyball.ingest.frames import meanings
from flyball.ingest.ports import Derivation, Deriver, EventLog, NewBatch
from flyball.kernel.errors import FlyballError, InvalidError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A domain time, and for each source the last LSN at it: what is known by then is in the log up to there."""

    now: int
    lsns: Mapping[str, int]


class Events(Protocol):
    """What a derivation reads of the ingest core."""

    def applied(self, source: str) -> int:
        """The last LSN that may be asked for."""

    def between(self, source: str, after: int, through: int) -> pl.DataFrame:
        """The physical events with an LSN in (after, through], each key once; of a source with corrections, all."""

    def store(self, batch: NewBatch) -> None:
        """Append to the log, in one transaction with the batch's position."""


@dataclass(kw_only=True, slots=True)
class _Reached:
    """How far a derivation is: what is stored with its last batch.

    Args:
        lsn: of the parent, the last one derived. `known`: the greatest `known_at` among those events.
        held: `[known_at, lsn]` of events up to `lsn` that were not known yet, and wait.
        inputs: source → the LSN of it that was there to be seen.
        late: events of inputs that came when events they were known before had been derived.
    """

    lsn: int = 0
    known: int = 0
    held: list[list[int]] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    late: int = 0

    def due(self, now: int) -> list[int]:
        """The LSNs that waited and are known now."""
        return sorted(lsn for known, lsn in self.held if known <= now)


class _Running:
    """A derived source and what was fed to it in this process."""

    def __init__(self, spec: SourceSpec, derivation: Derivation) -> None:
        self.spec = spec
        self.derivation = derivation
        self.fed = dict.fromkeys(derivation.inputs, 0)
        self.error = ""
        self.code = ""


class Derivations:
    """All derived sources of a plan. Called by one thread at a time."""

    def __init__(self, *, log: EventLog, events: Events, deriver: Deriver | None, step_rows: int) -> None:
        self._log = log
        self._events = events
        self._deriver = deriver
        self._step_rows = step_rows
        self._running: dict[str, _Running] = {}

    def prepare(self, sources: Mapping[str, SourceSpec]) -> dict[str, _Running]:
        """The derivations of a plan, inputs before what reads them; those that run already are kept.

        Raises `InvalidError` (`bad_plan`, and what `Deriver.open` raises).
        """
        found: dict[str, _Running] = {}
        for spec in ordered(sources):
            known = self._running.get(spec.name)
            if known is not None and known.spec == spec:
                found[spec.name] = known
            else:
                found[spec.name] = self._begin(spec, sources)
        return found

    def _begin(self, spec: SourceSpec, sources: Mapping[str, SourceSpec]) -> _Running:
        if self._deriver is None:
            raise InvalidError("this platform was opened without derived sources", code="bad_plan")
        return _Running(spec, self._deriver.open(spec, sources))

    def use(self, prepared: dict[str, _Running]) -> None:
        self._running = prepared

    def renew(self, source: str, sources: Mapping[str, SourceSpec]) -> None:
        """Read a source anew where it is looked up: events of it were erased, and are still in memory."""
        for name, running in self._running.items():
            if source in running.fed:
                self._running[name] = self._begin(running.spec, sources)

    @property
    def names(self) -> tuple[str, ...]:
        """The derived sources, inputs before what reads them."""
        return tuple(self._running)

    @property
    def parents(self) -> frozenset[str]:
        """The sources that others are derived from."""
        return frozenset(r.spec.derive.source for r in self._running.values() if r.spec.derive)

    def step(self, source: str, moment: Moment) -> int:
        """Derive the next range, if there is one and what it reads is there; 0: nothing was done.

        A derivation that fails says so in its status and holds up no other.
        """
        running = self._running[source]
        try:
            count = self._step(running, moment)
        except FlyballError as error:
            if error.code != running.code:
                logger.warning("a source was not derived: %s", error.message, extra={"source": source})
            running.error, running.code = error.message, error.code
            return 0
        except Exception as error:
            if running.code != "internal":
                logger.exception("a source was not derived by a defect of ours", extra={"source": source})
            running.error, running.code = f"a defect of ours ({type(error).__name__}); see the log", "internal"
            return 0
        running.error = running.code = ""
        return count

    def behind(self, source: str, moment: Moment) -> int:
        """How many events of the parent are not derived yet."""
        reached = self._reached(source)
        return max(0, self._target(self._running[source], moment) - reached.lsn) + len(reached.due(moment.now))

    def status(self, source: str) -> dict[str, Any] | None:
        """Where a derivation stands: `lsn` of the parent's `of`, and what went wrong; None: it is not derived."""
        running, reached = self._running.get(source), self._reached(source)
        if running is None or running.spec.derive is None:
            return None
        parent = running.spec.derive.source
        last = self._log.last_lsn(parent)
        where = {"from": parent, "lsn": reached.lsn, "of": last, "behind": last - reached.lsn, "late": reached.late}
        where["held"] = len(reached.held)
        return {**where, "inputs": reached.inputs, "error": running.error, "code": running.code}

    def _target(self, running: _Running, moment: Moment) -> int:
        """Up to where the parent may be derived. A derived parent's events come from events that may be themselves."""
        assert running.spec.derive is not None
        parent = running.spec.derive.source
        return self._log.last_lsn(parent) if parent in self._running else moment.lsns.get(parent, 0)

    def _step(self, running: _Running, moment: Moment) -> int:
        spec = running.spec
        assert spec.derive is not None
        reached = self._reached(spec.name)
        if any(name in self._running and self.behind(name, moment) for name in running.fed):
            return 0  # a view over a derived source is read once that source is there
        frame = self._next(running, reached, moment)
        if frame is None:
            return 0
        reached.late += self._feed(running, reached)
        reached.inputs, reached.known = dict(running.fed), max(reached.known, _greatest(frame))
        batch = NewBatch(
            source=spec.name,
            frame=running.derivation.derive(frame),
            live=False,  # the events bring the time at which they were known
            columns=meanings(spec),
            bulk=True,
            position=json.dumps(asdict(reached)),
        )
        self._events.store(batch)
        return max(1, frame.height)

    def _next(self, running: _Running, reached: _Reached, moment: Moment) -> pl.DataFrame | None:
        """The parent's next events that are known, as `reached` then says; None: there is nothing to do."""
        assert running.spec.derive is not None
        parent = running.spec.derive.source
        due = reached.due(moment.now)[: self._step_rows]
        if due:
            reached.held = [pair for pair in reached.held if pair[1] not in set(due)]
            frame = self._events.between(parent, due[0] - 1, due[-1])
            return frame.filter(pl.col("_lsn").is_in(due))
        target = min(self._target(running, moment), self._events.applied(parent))
        through = min(target, reached.lsn + self._step_rows)
        if through <= reached.lsn:
            return None
        frame = self._events.between(parent, reached.lsn, through)
        reached.lsn = through
        later = frame.filter(pl.col("_known_at") > moment.now)
        reached.held += [list(pair) for pair in later.select("_known_at", "_lsn").iter_rows()]
        return frame.filter(pl.col("_known_at") <= moment.now)

    def _feed(self, running: _Running, reached: _Reached) -> int:
        """Bring the inputs up to what is applied; how many of their new events were known before derived ones."""
        late = 0
        for source in running.derivation.inputs:
            applied = self._events.applied(source)
            seen = reached.inputs.get(source, 0) if reached.known else applied
            while running.fed[source] < applied:
                through = min(applied, running.fed[source] + self._step_rows)
                frame = self._events.between(source, running.fed[source], through)
                running.derivation.feed(source, frame)
                running.fed[source] = through
                late += frame.filter((pl.col("_lsn") > seen) & (pl.col("_known_at") < reached.known)).height
        return late

    def _reached(self, source: str) -> _Reached:
        text = self._log.position(source)
        return _Reached(**json.loads(text)) if text else _Reached()


def ordered(sources: Mapping[str, SourceSpec]) -> list[SourceSpec]:
    """The derived sources, each after those that it is computed from.

    Raises `InvalidError` (`bad_plan`), where one is computed from what is not there, or from itself.
    """
    found: dict[str, SourceSpec] = {}

    def visit(spec: SourceSpec, path: Sequence[str]) -> None:
        if spec.name in path:
            raise InvalidError(f"source {spec.name} is derived from itself", code="bad_plan")
        for name in inputs_of(spec):
            if name not in sources:
                raise InvalidError(
                    f"source {spec.name} is derived from {name}, which is not in the plan", code="bad_plan"
                )
            visit(sources[name], (*path, spec.name))
        if spec.derive is not None:
            found.setdefault(spec.name, spec)

    for name in sorted(sources):
        visit(sources[name], ())
    return list(found.values())


def _greatest(frame: pl.DataFrame) -> int:
    greatest = frame["_known_at"].max()
    return greatest if isinstance(greatest, int) else 0
