"""A batch of one version: rows checked, features read, the cache asked, the model run. Touches no queue and no socket,
so it runs on the event loop or on a version's own thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flyball.kernel.errors import FlyballError, InvalidError
from flyball.serving.batcher import model_error, score_rows
from flyball.serving.cache import Looked, digest_of
from flyball.serving.guard import GuardedFeatures
from flyball.serving.inputs import check_object
from flyball.serving.outputs import answers
from flyball.serving.ports import FeatureBatch, FeatureState, Matrix, Runtime, Tensors
from flyball.serving.replies import Reply, no_features
from flyball.serving.request import Job
from flyball.serving.state import Served, Service
from flyball.serving.tensor_batch import Joined, infer_together
from flyball.serving.tensor_model import infer_rows, own_fields

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Result:
    """What came of a batch's rows, by their places in it.

    Args:
        fields: the checked fields of each row; None where they are wrong, or where the request brought tensors.
        answers: None where there is an error.
        errors: an InvalidError is its sender's, all others are the version's.
        rungs: of the rows whose answer is not the model's own.
        by: the version that answered, where it is another than was asked.
        batch, places: features, and for each row its place among them; None where there are none for it.
        outputs: of requests with tensors: one set of tensors a row.
        states: what each row's features are worth; one word where it is the same for all.
        joined: these requests and their outputs as they were run, where that was all of them at once.
        looks, hits, coalesced: of the cache.
    """

    fields: list[dict[str, Any] | None]
    answers: list[Reply | None]
    errors: dict[int, FlyballError] = field(default_factory=dict)
    rungs: dict[int, str] = field(default_factory=dict)
    by: dict[int, Served] = field(default_factory=dict)
    batch: FeatureBatch | None = None
    places: Sequence[int | None] = ()
    outputs: list[Tensors | None] = field(default_factory=list)
    joined: Joined | None = None
    states: FeatureState | list[FeatureState] = "fresh"
    looks: int = 0
    hits: int = 0
    coalesced: int = 0

    def outputs_of(self, row: int) -> Tensors | None:
        """What a request with tensors is answered; None where it is not."""
        if self.joined is not None:
            return self.joined.outputs_of(row) if self.answers[row] is not None else None
        return self.outputs[row] if self.outputs else None

    def count(self, looked: Looked) -> None:
        """Note what the cache knew."""
        self.hits, self.coalesced = len(looked.hits), len(looked.followers)
        self.looks = self.hits + self.coalesced + len(looked.asked)

    def __len__(self) -> int:
        return len(self.answers)

    def failed_by_version(self) -> bool:
        """Whether no row was answered, and not by the senders' mistakes alone."""
        return not any(answer is not None for answer in self.answers) and any(
            not isinstance(error, InvalidError) for error in self.errors.values()
        )


def score(jobs: Sequence[Job], features: GuardedFeatures) -> Result:
    """Score the jobs of one version of one service, whose rows follow one another. Never raises."""
    served, service = jobs[0].served, jobs[0].service
    try:
        if jobs[0].tensors is not None:
            return _tensors(jobs, served)
        if served.takes_tensors:
            return _tensor_rows(jobs, served)
        return _rows(jobs, service, served, features)
    except Exception as error:
        logger.exception("a batch was not scored", extra={"service": service.name, "version": served.ref})
        rows = sum(len(job.ids) for job in jobs)
        return Result([None] * rows, [None] * rows, dict.fromkeys(range(rows), model_error(error)))


def _rows(jobs: Sequence[Job], service: Service, served: Served, features: GuardedFeatures) -> Result:
    """Rows of fields: checked, given features, scored."""
    manifest, plan = served.manifest, service.plan
    result = Result([], [])
    rows: list[dict[str, Any]] = []
    at: list[int] = []
    fields, errors = result.fields, result.errors
    for job in jobs:
        for given in job.given:
            try:
                row = served.check(given)
                fields.append(row)
                rows.append(row)
                at.append(job.at)
            except InvalidError as error:
                errors[len(fields)] = error
                fields.append(None)
    n = len(fields)
    result.answers = [None] * n
    places = [i for i in range(n) if i not in errors] if errors else range(n)  # row of each of the features' rows
    if not rows:
        return result
    try:
        batch = features.read(manifest, rows, at, version=served.loaded.digest, deadline_us=plan.deadline_us)
    except Exception as error:
        logger.exception("features could not be read", extra={"version": served.ref})
        result.errors |= dict.fromkeys(places, model_error(error))
        return result
    result.batch = batch
    _label(result, batch, jobs, plan.max_staleness)
    if batch.errors or len(rows) < n:
        of_row: list[int | None] = [None] * n
        for place, row_at in enumerate(places):
            if place in batch.errors:
                errors[row_at] = batch.errors[place]
            else:
                of_row[row_at] = place
        result.places = of_row
    else:
        result.places = range(n)
    good = [i for i, place in enumerate(result.places) if place is not None]
    if batch.state == "default" and plan.views == "required":
        errors |= dict.fromkeys(good, no_features())
    elif served.loaded.runtime is None:
        for i in good:
            result.answers[i] = {"prediction": None}
    elif good:
        matrix = (
            batch.matrix
            if len(good) == len(batch.matrix)
            else batch.matrix[[place for place in result.places if place is not None]]
        )
        _predict(result, served, matrix, good)
    return result


def _label(result: Result, batch: FeatureBatch, jobs: Sequence[Job], max_staleness: int) -> None:
    """Say what each row's features are worth."""
    first = jobs[0].at
    if batch.state == "default":
        result.states = "default"
    elif batch.stale or any(job.at != first for job in jobs):
        moments = [job.at for job in jobs for _ in job.ids]
        places = {row: place for place, row in enumerate(i for i, f in enumerate(result.fields) if f is not None)}
        result.states = [
            batch.state_of(places.get(row, -1), at, max_staleness=max_staleness) for row, at in enumerate(moments)
        ]
    else:
        result.states = batch.state_of(-1, first, max_staleness=max_staleness)


def _predict(result: Result, served: Served, matrix: Matrix, rows: list[int]) -> None:
    """Answer rows from the cache or the model; `matrix` holds a line for each of `rows`."""
    runtime, cache = served.loaded.runtime, served.cache
    assert runtime is not None
    if cache is None or not cache.awake(len(rows)):
        _ask_model(result, served, runtime, matrix, rows)
        return
    lines = np.ascontiguousarray(matrix)
    looked = Looked(cache, lambda: [digest_of(memoryview(line).cast("B")) for line in lines])
    result.count(looked)
    for line, found in looked.hits.items():
        result.answers[rows[line]], result.rungs[rows[line]] = found, "cache"
    if looked.asked:
        began = time.perf_counter()
        part = matrix if len(looked.asked) == len(rows) else matrix[looked.asked]
        _ask_model(result, served, runtime, part, [rows[line] for line in looked.asked])
        served.timed(time.perf_counter() - began, len(looked.asked))
    for line in looked.asked:
        answer = result.answers[rows[line]]
        if answer is not None:
            looked.keep(line, answer)
    for line, leader in looked.followers.items():
        row, answer = rows[line], result.answers[rows[leader]]
        if answer is None:
            result.errors[row] = result.errors[rows[leader]]
        else:
            result.answers[row], result.rungs[row] = answer, "coalesced"
    looked.judge(served.model_seconds)


def _ask_model(result: Result, served: Served, runtime: Runtime, matrix: Matrix, rows: Sequence[int]) -> None:
    scores, failed = score_rows(runtime.predict, matrix)
    for line, error in failed.items():
        result.errors[rows[line]] = error
    if scores is not None:
        for line, answer in enumerate(answers(served.manifest.task, scores)):
            if line not in failed:
                result.answers[rows[line]] = answer


def _tensor_rows(jobs: Sequence[Job], served: Served) -> Result:
    """Rows of fields for a model of tensors: a field a tensor."""
    result = Result([], [])
    specs = served.signature.inputs
    good: list[int] = []
    for given in (given for job in jobs for given in job.given):
        try:
            check_object(given)
            result.fields.append(own_fields(specs, given))
            good.append(len(result.fields) - 1)
        except InvalidError as error:
            result.errors[len(result.fields)] = error
            result.fields.append(None)
    result.answers = [None] * len(result.fields)
    runtime = served.loaded.runtime
    if good and runtime is not None:
        answered, failed = infer_rows(runtime, specs, [result.fields[i] or {} for i in good])
        for line, answer in answered.items():
            result.answers[good[line]] = answer
        result.errors |= {good[line]: error for line, error in failed.items()}
    return result


def _tensors(jobs: Sequence[Job], served: Served) -> Result:
    """Requests with the model's own tensors, together where their shapes allow it."""
    n = len(jobs)
    result = Result([None] * n, [None] * n, outputs=[None] * n)
    runtime, cache = served.loaded.runtime, served.cache
    looked: Looked | None = None
    asked = list(range(n))
    if cache is not None and cache.awake(n):
        looked = Looked(cache, lambda: [tensor_key(job.tensors or {}) for job in jobs])
        asked = looked.asked
        result.count(looked)
        for i, outputs in looked.hits.items():
            result.outputs[i], result.rungs[i] = outputs, "cache"
    if asked and runtime is not None:
        began = time.perf_counter()
        requests = [jobs[i].tensors or {} for i in asked]
        found = infer_together(runtime, requests, batchable=served.tensor_check.batchable)
        served.timed(time.perf_counter() - began, len(asked))
        if isinstance(found, Joined):
            if looked is None:
                result.joined, result.answers = found, [_ANSWERED] * n
                return result
            found = [found.outputs_of(place) for place in range(len(asked))]
        for i, outputs in zip(asked, found, strict=True):
            if isinstance(outputs, FlyballError):
                result.errors[i] = outputs
                continue
            result.outputs[i] = outputs
            if looked is not None:
                looked.keep(i, outputs)
    if looked is not None:
        for i, leader in looked.followers.items():
            if leader in result.errors:
                result.errors[i] = result.errors[leader]
            else:
                result.outputs[i], result.rungs[i] = result.outputs[leader], "coalesced"
        looked.judge(served.model_seconds)
    for i, done in enumerate(result.outputs):
        if done is not None:
            result.answers[i] = _ANSWERED
    return result


_ANSWERED: Reply = {}  # of a request with tensors: its outputs are the answer


def tensor_key(tensors: Tensors) -> bytes:
    """The digest of named tensors: names, types, shapes and values."""
    parts: list[bytes | memoryview] = []
    for name in sorted(tensors):
        array = tensors[name]
        parts.append(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode("utf-8", "surrogatepass"))
        if array.dtype == object:
            texts = [str(value).encode("utf-8", "surrogatepass") for value in array.ravel().tolist()]
            parts.append(b"".join(len(text).to_bytes(8, "little") + text for text in texts))
        else:
            parts.append(np.ascontiguousarray(array).tobytes())
    return digest_of(*parts)
