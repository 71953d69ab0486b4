"""The core of a worker, without sockets: a plan in, replies with receipts out.

Every reply was logged before it is given. A request's rows are routed to versions; the rows of a version that came in
one turn of the event loop are answered together, whatever requests they came with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
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
from flyball.serving.ladder import climb_down, without_model
from flyball.serving.observing import outcome_of
from flyball.serving.oip_reply import write_reply
from flyball.serving.oip_request import InferRequest, read_request
from flyball.serving.plan import Route, decode
from flyball.serving.ports import FeatureReader, Loop, NoObserver, Observer, OpenRuntime, RecordLog, Tensors, Timer
from flyball.serving.replies import Reply, outcomes, parameters_of, reply_data
from flyball.serving.request import Ask, Job
from flyball.serving.router import choose, key_of, unit_of
from flyball.serving.scoring import Result, score
from flyball.serving.state import Served, Service, State, load
from flyball.serving.tensors import reply_tensors, rows_of

logger = logging.getLogger(__name__)


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
        self._now = _Now()
        self._dispatcher = self._make_dispatcher(self._now, threads=False)

    def run_on(self, loop: Loop) -> None:
        """Answer on this event loop from now on: slow versions get threads of their own, and deadlines their timers."""
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
            self._state = loaded
            if decoded.segments > served.segments:
                self._log.begin_segment()

    def submit(self, ask: Ask) -> None:
        """Take a request; its `answer` is called when it has one, which may be before this returns. Never raises."""
        try:
            self._route(self._state, ask)
        except FlyballError as error:
            self._refuse(ask, error)
        except Exception:
            logger.exception("a request was not taken", extra={"service": ask.service})
            self._refuse(ask, InternalError("a defect of the worker; its log has the details"))

    def predict(
        self, service: str, rows: Sequence[Any], *, at: int | None = None, version: str | None = None
    ) -> list[Reply]:
        """Replies, one a row, at once. A row that fails has `{"error": {...}}` in its place; what fails as a whole
        raises. For a worker without an event loop; safe for several threads."""
        ask = Ask(service=service, rows=rows, at=at, version=version)
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
        ask = self.ask_of(model, asked, version=version)
        self.answer([ask])
        number, outputs, labels = inferred(ask)
        reply: dict[str, Any] = msgspec.json.decode(write_reply(asked, model, number, outputs, labels)[0])
        return reply

    def ask_of(self, model: str, request: InferRequest, *, version: str | None = None) -> Ask:
        """What a request of the protocol asks: rows of fields, or the model's own tensors."""
        service = self._state.service(model)
        described = service.of(version)
        if request.outputs:
            request.check_outputs(described.output_names)
        manifest = described.manifest
        ask = Ask(service=model, version=version, timeout_us=request.timeout_us, on=service)
        if request.priority is not None:
            ask.priority = request.priority
        if manifest.takes_tensors:
            ask.tensors = request.tensors
        else:
            ask.rows = rows_of(request.tensors, manifest.inputs, service.plan.key)
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
        plan = service.plan
        now = self._monotonic()
        arrived = now if ask.arrived is None else ask.arrived
        allowed = plan.deadline_us if ask.timeout_us is None else min(ask.timeout_us, plan.deadline_us)
        deadline = arrived + allowed / 1_000_000
        at = self._at(ask)
        if ask.tensors is not None:
            jobs = [self._tensor_job(service, ask, ask.tensors, at, arrived, deadline)]
        else:
            jobs = self._row_jobs(service, ask, at, arrived, deadline)
        ask.jobs, ask.pending = jobs, len(jobs)
        if not jobs:
            ask.conclude()
            return
        for job in jobs:
            try:
                if now > deadline:
                    raise late(job)
                self._dispatcher.add(job)
            except FlyballError as error:
                self._give_up(job, error)

    def _row_jobs(self, service: Service, ask: Ask, at: int, arrived: float, deadline: float) -> list[Job]:
        plan, rows = service.plan, ask.rows
        ids = [self._ids.new() for _ in rows]
        if not rows:
            return []
        if ask.version is not None:
            served = service.find(ask.version)
            route = Route(version=served.ref, digest=served.loaded.digest, weight=10_000, arm="pinned")
            return [self._job(ask, service, route, ids, list(rows), None, at, arrived, deadline)]
        keys = None
        if plan.key:
            keys = [key_of(plan, row) if isinstance(row, Mapping) else None for row in rows]
        if len(plan.routes) == 1:
            return [self._job(ask, service, plan.routes[0], ids, rows, keys, at, arrived, deadline)]
        routed: dict[str, tuple[Route, list[int]]] = {}
        for i, id in enumerate(ids):
            route = choose(plan, unit_of(None if keys is None else keys[i], id))
            routed.setdefault(route.version, (route, []))[1].append(i)
        if len(routed) == 1:
            return [self._job(ask, service, route, ids, rows, keys, at, arrived, deadline)]
        jobs = []
        for route, places in routed.values():
            part = self._job(
                ask,
                service,
                route,
                [ids[i] for i in places],
                [rows[i] for i in places],
                None if keys is None else [keys[i] for i in places],
                at,
                arrived,
                deadline,
            )
            part.indexes = places
            jobs.append(part)
        return jobs

    def _job(
        self,
        ask: Ask,
        service: Service,
        route: Route,
        ids: list[str],
        given: Sequence[Any],
        keys: list[dict[str, Any] | None] | None,
        at: int,
        arrived: float,
        deadline: float,
    ) -> Job:
        served = service.versions[route.version]
        return Job(
            ask,
            service,
            served,
            route,
            ids=ids,
            given=given,
            keys=keys,
            at=at,
            arrived=arrived,
            deadline=deadline,
            count=len(ids),
        )

    def _tensor_job(
        self, service: Service, ask: Ask, tensors: Tensors, at: int, arrived: float, deadline: float
    ) -> Job:
        """The job of a request with a model's own tensors: one prediction, however many rows they have."""
        id = self._ids.new()
        if ask.version is not None:
            served = service.find(ask.version)
            route = Route(version=served.ref, digest=served.loaded.digest, weight=10_000, arm="pinned")
        else:
            routes = service.plan.routes
            route = routes[0] if len(routes) == 1 else choose(service.plan, unit_of(None, id))
            served = service.versions[route.version]
        rows = served.tensor_check(tensors)
        return Job(
            ask,
            service,
            served,
            route,
            ids=[id],
            given=(),
            keys=None,
            at=at,
            arrived=arrived,
            deadline=deadline,
            tensors=tensors,
            count=max(1, rows),
        )

    def _at(self, ask: Ask) -> int:
        now = self._clock.now()
        if ask.at is not None and ask.at > now:
            raise InvalidError(
                f"`at` is {show_time(ask.at)}, ahead of the platform's time, {show_time(now)}", code="at_in_future"
            )
        return now if ask.at is None else ask.at

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
        result = without_model(job, error, self._features)
        if not result.rungs:
            job.error = error
        if result.rungs or job.accepted:
            job.done = False
            self._conclude([job], result)
        else:  # refused at arrival: no prediction, no record
            self._observer.failed(job.service.name, job.route.version, error.code, len(job.ids))
            self._answered(job.ask)

    def _finish(self, jobs: Sequence[Job], result: Result, began: float, took: float, expected: float) -> None:
        """A batch was scored: what failed climbs down, all is logged, then answered."""
        served, service = jobs[0].served, jobs[0].service
        self._observer.batch(service.name, served.ref, jobs, result, began, took, expected)
        if result.errors:
            climb_down(result, jobs, self._features)
            codes = sorted({error.code for error in result.errors.values() if not isinstance(error, InvalidError)})
            if codes:
                extra = {"service": service.name, "version": served.ref, "rows": len(result.errors), "codes": codes}
                logger.warning("rows were not scored", extra=extra)
        self._conclude(jobs, result)

    def _conclude(self, jobs: Sequence[Job], result: Result) -> None:
        """Log the rows of jobs that nobody answered yet, then answer them."""
        live = [job for job in jobs if not job.done]
        if not live:
            return
        now = self._monotonic()
        rows, owners = _predictions(live, result)
        latencies = [now - job.arrived for job in owners]
        if rows:
            states = result.states if isinstance(result.states, str) else [result.states[row] for row in rows]
            wall = self._wall()
            block = block_of(rows, owners, result, states, latencies, wall=wall, pii_key=self._pii_key)
            failed = self._write(block, durable=live[0].service.plan.log == "durable")
            if failed is not None:
                for row in rows:
                    result.answers[row], result.errors[row] = None, failed
        self._observer.concluded(live, result, now)
        for job in live:
            job.result, job.done = result, True
            self._answered(job.ask)

    def _answered(self, ask: Ask) -> None:
        ask.pending -= 1
        if ask.pending:
            return
        first = ask.jobs[0]
        if len(ask.jobs) == 1 and first.error is not None:
            ask.error = first.error
        fine = len(ask.jobs) == 1 and first.result is not None and not first.result.errors
        self._observer.answered(first.service.name, "answered" if fine else outcome_of(ask.jobs))
        try:
            ask.conclude()
        except Exception:
            logger.exception("an answer could not be given", extra={"service": ask.service})

    def _write(self, block: Block, *, durable: bool) -> FlyballError | None:
        """Log a block; an error means that nothing of it may be answered."""
        try:
            self._log.write([block], durable=durable)
        except Exception as error:
            logger.exception("predictions could not be logged, so they are not answered")
            return model_error(error)
        return None


def inferred(ask: Ask) -> tuple[str, Tensors, dict[str, Any]]:
    """The version's number, the outputs and the labels of a request with tensors that was answered.

    Raises what it failed with.
    """
    if ask.error is not None:
        raise ask.error
    if ask.tensors is None:
        replies: list[Reply] = []
        for outcome in outcomes(ask):
            if isinstance(outcome, FlyballError):
                raise outcome
            replies.append(outcome)
        number = replies[0]["version"].rpartition("/")[2] if replies else ""
        return number, reply_tensors(replies), parameters_of(replies)
    (job,) = ask.jobs
    result = job.result
    if result is None:
        raise job.error or InternalError("the request was not answered", code="not_answered")
    outputs = result.outputs[job.start]
    if outputs is None:
        raise result.errors[job.start]
    served = result.by.get(job.start, job.served) if result.by else job.served
    labels = {"prediction_id": job.ids[0], "rung": result.rungs.get(job.start, "model")}
    return served.ref.rpartition("/")[2], outputs, labels


def _predictions(jobs: Sequence[Job], result: Result) -> tuple[list[int], list[Job]]:
    """The rows that are predictions, which those are not that their senders got wrong, and whose they are."""
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


class _Now:
    """A loop for one caller: what is to be done soon is done before it gets its answer."""

    def __init__(self) -> None:
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self._soon.append((callback, args))

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        self.call_soon(callback, *args)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        return _Never()

    def run(self) -> None:
        while self._soon:
            callback, args = self._soon.popleft()
            callback(*args)


class _Never:
    def cancel(self) -> None: ...
