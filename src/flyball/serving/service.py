"""The core of a worker, without sockets: a plan in, replies with receipts out.

Every reply was logged before it is given. A request's rows are routed to versions; the rows of a version that came in
one turn of the event loop are answered together, whatever requests they came with.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError, InternalError, InvalidError
from flyball.kernel.times import show_time
from flyball.serving.batcher import model_error
from flyball.serving.blocks import Block, block_of
from flyball.serving.dispatcher import Dispatcher, late
from flyball.serving.guard import GuardedFeatures
from flyball.serving.ids import PredictionIds
from flyball.serving.inferred import reply_to
from flyball.serving.ladder import climb_down, has_rungs, without_model
from flyball.serving.now import Now
from flyball.serving.observing import outcome_of
from flyball.serving.oip_reply import ReplyForm
from flyball.serving.oip_request import InferRequest, read_request
from flyball.serving.plan import decode
from flyball.serving.ports import FeatureReader, Loop, NoObserver, Observer, OpenRuntime, RecordLog
from flyball.serving.replies import Reply, outcomes, reply_data
from flyball.serving.request import Ask, Job
from flyball.serving.routing import jobs_of
from flyball.serving.scoring import Result, score
from flyball.serving.state import Served, Service, State, load
from flyball.serving.tensors import rows_of

logger = logging.getLogger(__name__)

TOGETHER = 64  # requests that were turned away are counted together


class Worker:
    """Serves a plan, on the event loop that `run_on` names; until then, at once and on whoever asks.

    Args:
        features: reads features from online state.
        open_runtime: opens the runtime that a manifest names.
        log: the slot's prediction log.
        clock: domain time.
        pii_key: key of the digests that stand for pii values in the log.
    """

    def __init__(
        self,
        *,
        features: FeatureReader,
        open_runtime: OpenRuntime,
        log: RecordLog,
        clock: Clock,
        pii_key: bytes,
        observer: Observer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._reader = features
        self._features = GuardedFeatures(features, monotonic=monotonic)
        self._open_runtime = open_runtime
        self._log = log
        self._clock = clock
        self._pii_key = pii_key
        self._observer: Observer = observer or NoObserver()
        self._monotonic = monotonic
        self._wall = wall
        self._ids = PredictionIds()
        self._asking = threading.Lock()
        self._loading = threading.Lock()
        self._state = State()
        self._now = Now()
        self._loop: Loop = self._now
        self._flush: Callable[[], None] = lambda: None
        self._dispatcher = self._make_dispatcher(self._now, threads=False)

    def run_on(self, loop: Loop, *, flush: Callable[[], None] = lambda: None) -> None:
        """Answer on this event loop from now on: slow versions get threads of their own, and deadlines their timers.

        Args:
            flush: sends the answers that were given; called when those of a batch are.
        """
        self._flush, self._loop = flush, loop
        self._dispatcher = self._make_dispatcher(loop, threads=True)

    @property
    def state(self) -> State:
        return self._state

    def load_plan(self, plan: dict[str, Any]) -> None:
        """Load and warm what is new beside what is served, then swap; on an error what was served stays.

        Idempotent: a plan that is served already is not loaded again. Raises `UnavailableError` (`view_not_built`)
        while a version that is new here reads a view that is being built: what was served goes on until it is there.
        """
        with self._loading:
            decoded = decode(plan)
            served = self._state.plan
            if (decoded.epoch, decoded.digest) == (served.epoch, served.digest):
                return
            loaded = load(decoded, self._state, self._open_runtime)
            if served.epoch:  # a worker that serves nothing yet has nothing to go on with: it answers with defaults
                for digest in {route.digest for service in decoded.services.values() for route in service.routes}:
                    if digest not in self._state.loaded:
                        self._reader.check(loaded.loaded[digest].manifest)
            before, self._state = self._state, loaded
            self._retire(before, loaded)
            if decoded.segments > served.segments:
                self._log.begin_segment()

    def _retire(self, before: State, after: State) -> None:
        """Have the event loop end the threads of versions that are served no longer."""
        kept = {id(served) for service in after.services.values() for served in service.versions.values()}
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            for service in before.services.values():
                for served in service.versions.values():
                    if id(served) not in kept:
                        self._loop.call_soon_threadsafe(self._dispatcher.retire, served.lane)

    def submit(self, ask: Ask) -> None:
        """Take a request; its `answer` is called when it has one, which may be before this returns. Never raises."""
        try:
            self._route(self._state, ask)
        except FlyballError as error:
            self._refuse(ask, error)
        except Exception:
            logger.exception("a request was not taken", extra={"service": ask.service})
            self._refuse(ask, InternalError("a defect of the worker; its log has the details"))

    def turn_away(self, service: Service, served: Served, timeout_us: int | None) -> FlyballError | None:
        """Why a request for this version, with this deadline, is refused whatever it brings; None: read it.

        Only where nothing below the version could answer either.
        """
        if not served.lane.running or len(service.plan.routes) > 1 or has_rungs(service, tensors=served.takes_tensors):
            return None
        refused = self._dispatcher.turn_away(served.lane, served.ref, service.plan.allowed(timeout_us))
        if refused is not None and served.lane.turned_away >= TOGETHER:
            self._count_turned_away(service.name, served)
        return refused

    def predict(
        self, service: str, rows: Sequence[Any], *, at: int | None = None, version: str | None = None
    ) -> list[Reply]:
        """Replies, one a row, at once. A row that fails has `{"error": {...}}` in its place; what fails as a whole
        raises. For a worker without an event loop; safe for several threads."""
        ask = Ask(service, rows, at=at, version=version)
        self.answer([ask])
        if ask.error is not None:
            raise ask.error
        return [reply_data(outcome) for outcome in outcomes(ask)]

    def answer(self, asks: Sequence[Ask]) -> None:
        """Answer requests together, at once; as `predict`."""
        with self._asking:
            for ask in asks:
                self.submit(ask)
            self._now.run()

    def infer(self, model: str, request: Mapping[str, Any], *, version: str | None = None) -> dict[str, Any]:
        """Answer an Open Inference Protocol request at once; outputs are JSON tensors. `model` is a service."""
        asked = read_request(msgspec.json.encode(request))
        service = self._state.service(model)
        ask = self.ask_of(service, service.of(version), asked, version=version)
        self.answer([ask])
        if ask.error is not None:
            raise ask.error
        reply: dict[str, Any] = msgspec.json.decode(reply_to(asked, ask, ReplyForm(model))[0])
        return reply

    def ask_of(self, service: Service, described: Served, request: InferRequest, *, version: str | None = None) -> Ask:
        """What a request of the protocol asks: rows of fields, or the model's own tensors.

        Args:
            described: the version whose metadata the request was made from.
        """
        if request.outputs:
            request.check_outputs(described.output_names)
        if described.takes_tensors:
            ask = Ask(service.name, tensors=request.tensors, version=version, on=service)
        else:
            rows = rows_of(request.tensors, described.manifest.inputs, service.plan.key)
            ask = Ask(service.name, rows, version=version, on=service)
        if request.timeout_us is not None:
            ask.timeout_us = request.timeout_us
        if request.priority is not None:
            ask.priority = request.priority
        return ask

    def status(self) -> dict[str, Any]:
        state = self._state
        return {
            "epoch": state.plan.epoch,
            "digest": state.plan.digest,
            "services": {
                name: {
                    "routes": [{"version": r.version, "weight": r.weight, "arm": r.arm} for r in service.plan.routes],
                    "lanes": {ref: _lane_data(served) for ref, served in service.versions.items()},
                }
                for name, service in state.services.items()
            },
            "store": "resting" if self._features.resting else "asked",
            "versions": sorted({ref for service in state.services.values() for ref in service.versions}),
            "log": self._log.position(),
        }

    def _make_dispatcher(self, loop: Loop, *, threads: bool) -> Dispatcher:
        return Dispatcher(
            loop,
            score=lambda jobs: score(jobs, self._features),
            finish=self._finish,
            give_up=self._give_up,
            threads=threads,
            monotonic=self._monotonic,
        )

    def _route(self, state: State, ask: Ask) -> None:
        """Make the jobs of a request and hand them to their versions."""
        service = ask.on or state.service(ask.service)
        now = self._monotonic()
        arrived = now if ask.arrived is None else ask.arrived
        deadline = arrived + service.plan.allowed(ask.timeout_us)
        at = self._clock.now() if ask.at is None else self._past(ask.at)
        jobs = jobs_of(ask, service, self._ids, at=at, arrived=arrived, deadline=deadline)
        ask.jobs, ask.pending = jobs, len(jobs)
        if not jobs:
            ask.conclude()
        for job in jobs:
            refused = late(job) if now > deadline else self._dispatcher.add(job)
            if refused is not None:
                self._give_up(job, refused)

    def _past(self, at: int) -> int:
        now = self._clock.now()
        if at > now:
            raise InvalidError(
                f"`at` is {show_time(at)}, ahead of the platform's time, {show_time(now)}", code="at_in_future"
            )
        return at

    def _count_turned_away(self, service: str, served: Served) -> None:
        count, served.lane.turned_away = served.lane.turned_away, 0
        if count:
            self._observer.dropped(service, served.ref, "deadline_infeasible", count)
            self._observer.failed(service, served.ref, "deadline_infeasible", count)
            self._observer.answered(service, "deadline_infeasible", count)

    def _refuse(self, ask: Ask, error: FlyballError) -> None:
        self._observer.refused(error.code)
        ask.error = error
        ask.conclude()

    def _give_up(self, job: Job, error: FlyballError) -> None:
        """A job that its version does not answer: another rung may. What nobody waits for is dropped."""
        job.done = True
        if job.ask.left:
            self._observer.dropped(job.service.name, job.route.version, "client_left", job.count)
            return
        self._observer.dropped(job.service.name, job.route.version, error.code, job.count)
        result = None
        if job.accepted or has_rungs(job.service, tensors=job.tensors is not None):
            result = without_model(job, error, self._features)
        if result is None or not result.rungs:
            job.error = error
        if result is not None and (result.rungs or job.accepted):
            job.done = False
            self._conclude([job], result)
        else:  # refused at arrival: no prediction, no record
            self._observer.failed(job.service.name, job.route.version, error.code, len(job.ids))
            self._answered([job])

    def _finish(self, jobs: Sequence[Job], result: Result, began: float, took: float, expected: float) -> None:
        """A batch was scored: what failed climbs down, all is logged, then answered."""
        served, service = jobs[0].served, jobs[0].service
        if result.errors:
            climb_down(result, jobs, self._features)
            codes = sorted({error.code for error in result.errors.values() if not isinstance(error, InvalidError)})
            if codes:
                extra = {"service": service.name, "version": served.ref, "rows": len(result.errors), "codes": codes}
                logger.warning("rows were not scored", extra=extra)
        self._conclude(jobs, result)
        self._observer.batch(jobs, result, began, took, expected)
        self._count_turned_away(service.name, served)

    def _conclude(self, jobs: Sequence[Job], result: Result) -> None:
        """Log the rows of jobs that nobody answered yet, then answer them."""
        live = [job for job in jobs if not job.done]
        if not live:
            return
        now = self._monotonic()
        rows, owners = _predictions(live, result)
        if rows:
            wall = self._wall()
            block = block_of(rows, owners, result, now=now, wall=wall, pii_key=self._pii_key)
            failed = self._write(block, durable=live[0].service.plan.log == "durable")
            if failed is not None:
                for row in rows:
                    result.answers[row], result.errors[row] = None, failed
        for job in live:
            job.result, job.done = result, True
        self._answered(live)
        self._observer.concluded(live, result, now)

    def _answered(self, jobs: Sequence[Job]) -> None:
        """Answer the requests whose last jobs these were."""
        fine = 0
        for job in jobs:
            ask = job.ask
            ask.pending -= 1
            if ask.pending:
                continue
            result = job.result
            if len(ask.jobs) == 1 and result is not None and not result.errors:
                fine += 1
            else:
                if len(ask.jobs) == 1:
                    ask.error = job.error
                self._observer.answered(job.service.name, outcome_of(ask.jobs), 1)
            try:
                ask.conclude()
            except Exception:
                logger.exception("an answer could not be given", extra={"service": ask.service})
        self._flush()  # what is counted from here on is counted while the replies are on their way
        if fine:
            self._observer.answered(jobs[0].service.name, "answered", fine)

    def _write(self, block: Block, *, durable: bool) -> FlyballError | None:
        """Log a block; an error means that nothing of it may be answered."""
        try:
            self._log.write([block], durable=durable)
        except Exception as error:
            logger.exception("predictions could not be logged, so they are not answered")
            return model_error(error)
        return None


def _predictions(jobs: Sequence[Job], result: Result) -> tuple[Sequence[int], Sequence[Job]]:
    """The rows that are predictions, which those are not that their senders got wrong, and whose they are."""
    if not result.errors and len(jobs) == len(result):  # a row each
        return range(len(jobs)), jobs
    rows: list[int] = []
    owners: list[Job] = []
    for job in jobs:
        for row in range(job.start, job.start + len(job.ids)):
            if result.answers[row] is not None or not isinstance(result.errors.get(row), InvalidError):
                rows.append(row)
                owners.append(job)
    return rows, owners


def _lane_data(served: Served) -> dict[str, Any]:
    lane = served.lane
    return {
        "mode": "inline" if lane.inline else "thread",
        "waiting_rows": lane.waiting_rows,
        "breaker": lane.breaker.state.value,
        "row_us": round(lane.latency.expect(1) * 1e6),
    }
