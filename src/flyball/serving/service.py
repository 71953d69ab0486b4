"""The core of a worker, without sockets: a plan in, replies with receipts out.

Every reply was logged before it is returned. A request's rows are routed, checked, given features and scored in groups
of one version, whatever requests they came with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError, InvalidError, LateError
from flyball.kernel.times import show_time
from flyball.serving.batcher import model_error, score_rows
from flyball.serving.guard import GuardedFeatures
from flyball.serving.ids import PredictionIds
from flyball.serving.inputs import check_row
from flyball.serving.oip_reply import write_reply
from flyball.serving.oip_request import InferRequest, read_request
from flyball.serving.outputs import answers, default_answer
from flyball.serving.plan import Route, decode
from flyball.serving.ports import (
    FeatureBatch,
    FeatureReader,
    FeatureState,
    NoObserver,
    Observer,
    OpenRuntime,
    RecordLog,
    Tensors,
)
from flyball.serving.records import error_data, tensor_data
from flyball.serving.replies import Outcome, Reply, no_features, parameters_of, reply_data, reply_of
from flyball.serving.router import choose, key_of, propensity, unit_of
from flyball.serving.state import Served, Service, State, load
from flyball.serving.tensor_model import check_tensors, infer_rows, own_fields
from flyball.serving.tensors import reply_tensors, rows_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request: rows of fields for a service. `at`: domain time, None for now; `version`: None to be routed;
    `arrived`: monotonic seconds, None for now."""

    service: str
    rows: Sequence[Any]
    at: int | None = None
    version: str | None = None
    arrived: float | None = None


@dataclass(slots=True)
class _Row:
    """A row on its way: what it asks, where it went, and what came of it."""

    ask: int
    index: int
    id: str
    given: Any
    at: int
    arrived: float
    route: Route
    served: Served
    key: dict[str, Any] | None
    fields: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None


class Worker:
    """Serves a plan. Safe for several threads.

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
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._state = State()

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

    def predict(
        self, service: str, rows: Sequence[Any], *, at: int | None = None, version: str | None = None
    ) -> list[Reply]:
        """Replies, one a row. A row that fails has `{"error": {...}}` in its place; what fails as a whole raises."""
        outcomes = self.predict_many([Ask(service=service, rows=rows, at=at, version=version)])[0]
        if isinstance(outcomes, FlyballError):
            raise outcomes
        return [reply_data(outcome) for outcome in outcomes]

    def predict_many(self, asks: Sequence[Ask]) -> list[list[Outcome] | FlyballError]:
        """Answer the requests of a tick together; a request that fails as a whole has its error in its place."""
        return self._predict(self._state, asks)

    def _predict(self, state: State, asks: Sequence[Ask]) -> list[list[Outcome] | FlyballError]:
        results: list[list[Outcome] | FlyballError] = []
        rows: list[_Row] = []
        for ask in asks:
            try:
                rows.extend(self._rows(state, ask, len(results)))
                results.append([])
            except FlyballError as error:
                results.append(error)
        groups: dict[tuple[str, str], list[_Row]] = {}
        for row in rows:
            self._check(state, row, asks[row.ask].service)
            if row.outcome is None:
                groups.setdefault((asks[row.ask].service, row.route.version), []).append(row)
        records: list[dict[str, Any]] = []
        for (name, _), group in groups.items():
            records.extend(self._answer(state.services[name], group))
        durable = any(state.services[name].plan.log == "durable" for name, _ in groups)
        failed = self._write(records, durable=durable)
        for row in rows:
            outcome = row.outcome if failed is None or isinstance(row.outcome, FlyballError) else failed
            slot = results[row.ask]
            if isinstance(slot, list) and outcome is not None:
                slot.append(outcome)
            self._count(asks[row.ask].service, row, outcome)
        return results

    def infer(self, model: str, request: Mapping[str, Any], *, version: str | None = None) -> dict[str, Any]:
        """Answer an Open Inference Protocol request; outputs are JSON tensors. `model` is a service."""
        asked = read_request(msgspec.json.encode(request))
        name, number, outputs, labels = self.infer_tensors(model, asked, version=version)
        reply: dict[str, Any] = msgspec.json.decode(write_reply(asked, name, number, outputs, labels)[0])
        return reply

    def infer_tensors(
        self, model: str, request: InferRequest, *, version: str | None = None
    ) -> tuple[str, str, Tensors, dict[str, Any]]:
        """The service's name, the version's number, the outputs that the request asks for, in its order, and the
        reply's labels."""
        state = self._state  # one for the whole request: another plan may be loaded meanwhile
        service = state.service(model)
        described = service.of(version)
        request.check_outputs([spec.name for spec in described.signature.outputs])
        if described.manifest.takes_tensors:
            served, outputs = self._infer_own(state, service, request.tensors, version)
            labels: dict[str, Any] = {}
        else:
            served, outputs, labels = self._infer_fields(state, service, request.tensors, version)
        return model, served.ref.rpartition("/")[2], request.select(outputs), labels

    def status(self) -> dict[str, Any]:
        state = self._state
        return {
            "epoch": state.plan.epoch,
            "digest": state.plan.digest,
            "services": {
                name: {
                    "routes": [{"version": r.version, "weight": r.weight, "arm": r.arm} for r in service.plan.routes],
                    "slow": service.slow,
                }
                for name, service in state.services.items()
            },
            "store": "resting" if self._features.resting else "asked",
            "versions": sorted({ref for service in state.services.values() for ref in service.versions}),
            "log": self._log.position(),
        }

    def _rows(self, state: State, ask: Ask, index: int) -> list[_Row]:
        """Route each row of a request."""
        service = state.service(ask.service)
        now = self._monotonic()
        arrived = now if ask.arrived is None else ask.arrived
        if (now - arrived) * 1_000_000 > service.plan.deadline_us:
            raise LateError(
                f"the request waited longer than its deadline of {service.plan.deadline_us} µs",
                code="deadline_passed",
                hint="send fewer requests at once, or serve with more workers",
            )
        at = self._at(ask)
        fixed = service.find(ask.version) if ask.version is not None else None
        with self._lock:
            ids = [self._ids.new() for _ in ask.rows]
        rows = []
        for position, (id, given) in enumerate(zip(ids, ask.rows, strict=True)):
            key = key_of(service.plan, given) if isinstance(given, Mapping) else None
            if fixed is None:
                route = choose(service.plan, unit_of(key, id))
                served = service.versions[route.version]
            else:
                served = fixed
                route = Route(version=fixed.ref, digest=fixed.loaded.digest, weight=10_000, arm="pinned")
            rows.append(_Row(index, position, id, given, at, arrived, route, served, key))
        return rows

    def _at(self, ask: Ask) -> int:
        now = self._clock.now()
        if ask.at is not None and ask.at > now:
            raise InvalidError(
                f"`at` is {show_time(ask.at)}, ahead of the platform's time, {show_time(now)}", code="at_in_future"
            )
        return now if ask.at is None else ask.at

    def _check(self, state: State, row: _Row, service: str) -> None:
        """Check the row's fields, or note what is wrong with them: its sender's error, not the version's."""
        manifest = row.served.manifest
        try:
            if not isinstance(row.given, Mapping):
                raise InvalidError("a row must be an object of fields and values", code="bad_rows")
            if manifest.takes_tensors:
                row.fields = own_fields(row.served.signature.inputs, row.given)
            else:
                key = state.services[service].plan.key
                row.fields = check_row(manifest.inputs, row.given, keep=key, ignore=row.served.ignored)
        except FlyballError as error:
            row.outcome = error

    def _answer(self, service: Service, rows: list[_Row]) -> list[dict[str, Any]]:
        """Score one group of one version; sets the rows' outcomes and gives their records."""
        served = rows[0].served
        started = self._monotonic()
        batch, answered, errors = self._score(service, served, rows)
        model_us = int((self._monotonic() - started) * 1_000_000)
        served.timings.append(model_us)
        self._observer.batch(service.name, served.ref, len(rows), model_us)
        names = [spec.name for spec in served.manifest.features]
        matrix = batch.matrix.tolist() if batch is not None else []
        if errors:
            codes = sorted({error.code for error in errors.values()})
            extra = {"service": service.name, "version": served.ref, "rows": len(errors), "codes": codes}
            logger.warning("rows were not scored", extra=extra)
        records = []
        for position, row in enumerate(rows):
            error = errors.get(position)
            values = matrix[position] if matrix and position not in (batch.errors if batch else ()) else None
            answer = answered.get(position)
            rung = "model"
            if isinstance(error, InvalidError):
                row.outcome = error  # its sender's mistake, not the version's: no prediction
                continue
            if error is not None:
                rung = "error"
                if service.plan.default is not None:
                    answer, rung = default_answer(served.manifest.task, service.plan.default), "default"
            state: FeatureState = "fresh"
            if batch is not None:
                state = batch.state_of(position, row.at, max_staleness=service.plan.max_staleness)
            self._observer.features(service.name, served.ref, state, 1)
            row.outcome = error
            if answer is not None:
                row.outcome = reply_of(
                    service.name,
                    answer,
                    id=row.id,
                    at=row.at,
                    route=row.route,
                    served=row.served,
                    rung=rung,
                    state=state,
                    behind=batch.behind(row.at) if batch is not None else 0,
                    values=values,
                )
            record = self._record(service, row, answer, rung, error, len(rows))
            record["feature_state"] = state
            if batch is not None:
                record["lsn"], record["known_through"] = dict(batch.lsn), dict(batch.known_through)
            if values is not None:
                record["features"] = served.privacy.hide_features(names, values, self._pii_key)
            records.append(record)
        return records

    def _score(
        self, service: Service, served: Served, rows: list[_Row]
    ) -> tuple[FeatureBatch | None, dict[int, Reply], dict[int, FlyballError]]:
        """Features, answers and errors of a group, by position."""
        manifest, runtime = served.manifest, served.loaded.runtime
        if manifest.takes_tensors and runtime is not None:
            answered, failed = infer_rows(runtime, served.signature.inputs, [row.fields for row in rows])
            return None, answered, failed
        try:
            batch = self._features.read(
                manifest,
                [row.fields for row in rows],
                [row.at for row in rows],
                version=served.loaded.digest,
                deadline_us=service.plan.deadline_us,
            )
        except Exception as error:
            logger.exception("features could not be read", extra={"version": served.ref})
            return None, {}, dict.fromkeys(range(len(rows)), model_error(error))
        errors = dict(batch.errors)
        good = [position for position in range(len(rows)) if position not in errors]
        if batch.state == "default" and service.plan.views == "required":
            return batch, {}, errors | dict.fromkeys(good, no_features())
        if runtime is None:
            return batch, {position: {"prediction": None} for position in good}, errors
        if not good:
            return batch, {}, errors
        matrix = batch.matrix if not errors else batch.matrix[good]
        scores, failed = score_rows(runtime.predict, matrix)
        errors |= {good[position]: error for position, error in failed.items()}
        if scores is None:
            return batch, {}, errors
        found = zip(good, answers(manifest.task, scores), strict=True)
        return batch, {position: answer for position, answer in found if position not in errors}, errors

    def _record(
        self,
        service: Service,
        row: _Row,
        answer: Reply | None,
        rung: str,
        error: FlyballError | None,
        size: int,
    ) -> dict[str, Any]:
        privacy = row.served.privacy
        return {
            "id": row.id,
            "service": service.name,
            "version": row.route.version,
            "arm": row.route.arm,
            "propensity": propensity(row.route),
            "at": row.at,
            "wall": self._wall(),
            "latency_us": int((self._monotonic() - row.arrived) * 1_000_000),
            "batch": size,
            "key": None if row.key is None else privacy.hide(row.key, self._pii_key),
            "inputs": privacy.hide(row.fields, self._pii_key),
            "features": {},
            "lsn": {},
            "known_through": {},
            "output": answer,
            "rung": rung,
            "feature_state": "fresh",
            "error": None if error is None else error_data(error),
            "usage": {"rows": 1},
            "cost": None,
        }

    def _infer_fields(
        self, state: State, service: Service, given: Tensors, version: str | None
    ) -> tuple[Served, Tensors, dict[str, Any]]:
        served = service.of(version)
        rows = rows_of(given, served.manifest.inputs, service.plan.key)
        outcomes = self._predict(state, [Ask(service=service.name, rows=rows, version=version)])[0]
        if isinstance(outcomes, FlyballError):
            raise outcomes
        replies: list[Reply] = []
        for outcome in outcomes:
            if isinstance(outcome, FlyballError):
                raise outcome
            replies.append(outcome)
        if replies:
            served = service.find(replies[0]["version"])
        return served, reply_tensors(replies), parameters_of(replies)

    def _infer_own(self, state: State, service: Service, given: Tensors, version: str | None) -> tuple[Served, Tensors]:
        """A model of its own tensors: one prediction, and one record, for the request."""
        row = self._rows(state, Ask(service=service.name, rows=[{}], version=version), 0)[0]
        started = self._monotonic()
        runtime = row.served.loaded.runtime
        outputs: Tensors = {}
        error: FlyballError | None = None
        try:
            check_tensors(row.served.signature.inputs, given)
            outputs = runtime.infer(given) if runtime is not None else {}
        except InvalidError:
            raise
        except Exception as caught:
            error = model_error(caught)
        model_us = int((self._monotonic() - started) * 1_000_000)
        row.served.timings.append(model_us)
        self._observer.batch(service.name, row.served.ref, 1, model_us)
        row.fields = {name: tensor_data(array) for name, array in given.items()}
        answer = {"prediction": {name: tensor_data(array) for name, array in outputs.items()}}
        rung = "model" if error is None else "error"
        record = self._record(service, row, answer if error is None else None, rung, error, 1)
        error = self._write([record], durable=service.plan.log == "durable") or error
        self._count(service.name, row, error or {"rung": "model"})
        if error is not None:
            raise error
        return row.served, outputs

    def _write(self, records: list[dict[str, Any]], *, durable: bool) -> FlyballError | None:
        """Log the records; an error means that nothing of them may be answered."""
        if not records:
            return None
        try:
            self._log.write(records, durable=durable)
        except Exception as error:
            logger.exception("predictions could not be logged, so they are not answered")
            return model_error(error)
        return None

    def _count(self, service: str, row: _Row, outcome: Outcome | None) -> None:
        name = outcome.code if isinstance(outcome, FlyballError) else str((outcome or {}).get("rung", ""))
        latency_us = int((self._monotonic() - row.arrived) * 1_000_000)
        self._observer.replied(service, row.route.version, name, latency_us)
