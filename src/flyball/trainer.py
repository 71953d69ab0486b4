"""Composition root of one run: a run directory in, `result.json` or `error.json` out.

`python -m flyball.trainer RUN_DIR` executes `spec.json` of the directory in this process; `run_inline` does the same in
the foreground. A run that was killed leaves nothing that counts: executing its directory again does it all once more,
and executing a finished one does nothing. No database is used; what is read is the lake as far as the spec's horizon.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from flyball.define.spec import ModelSpec, ProjectSpec, SourceSpec
from flyball.engines.local import record_identity
from flyball.kernel.errors import ConflictError, InvalidError
from flyball.kernel.files import FileLock, read_document, write_document
from flyball.loop.execution import BatchRows, Rooms, Scorer, TrainFunction, execute
from flyball.storage.artifacts import LocalArtifacts
from flyball.storage.events import LakeEvents
from flyball.training.failure import failure
from flyball.training.ports import ERROR_FORMAT, SPEC_FORMAT, SPOOL, RunSpec, TrainingRows, run_spec_from_data
from flyball.training.secrecy import Mask

ASOF = ("known", "event", "served")


def main(arguments: list[str]) -> int:
    """Execute one run directory; the exit status is 0 where `result.json` was written, now or before."""
    run_dir = Path(arguments[0]).absolute()
    try:
        lock = FileLock(run_dir / "run.lock", "the run")
    except ConflictError as error:  # another process executes it: what it leaves behind is its own
        sys.stderr.write(f"{error}\n")
        return 4
    try:
        record_identity(run_dir)
        if (run_dir / "result.json").exists():
            return 0
        spec = run_spec_from_data(read_document(run_dir / "spec.json", SPEC_FORMAT))
        mask = Mask.of(spec.project.secrets, os.environ)
        try:
            execute(spec, run_dir, rooms(spec, run_dir), mask, foreground=False)
        except BaseException as error:
            write_document(run_dir / "error.json", ERROR_FORMAT, failure(error, run_dir / "code", mask))
            sys.stderr.write(mask("".join(traceback.format_exception(error))))
            return 1
        return 0
    finally:
        lock.release()


def run_inline(
    spec: RunSpec,
    run_dir: Path,
    *,
    function: TrainFunction | None = None,
    using: Rooms | None = None,
) -> dict[str, Any]:
    """Execute a run in the foreground and return its result; what the user's code raises passes through.

    `function` is called where it is given, so that breakpoints in the user's own file hold; else that of the bundle;
    without a bundle, the one that `spec.model.module` imports.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    write_document(run_dir / "spec.json", SPEC_FORMAT, spec.to_data())
    mask = Mask.of(spec.project.secrets, os.environ)
    lock = FileLock(run_dir / "run.lock", "the run")
    try:
        record_identity(run_dir)
        return execute(spec, run_dir, using or rooms(spec, run_dir), mask, foreground=True, function=function)
    except BaseException as error:
        code = run_dir / "code" if function is None and spec.bundle else _home(function, spec)
        write_document(run_dir / "error.json", ERROR_FORMAT, failure(error, code, mask))
        raise
    finally:
        lock.release()


def _home(function: TrainFunction | None, spec: RunSpec) -> Path:
    """The folder of a function that no bundle holds."""
    plain = getattr(function, "function", function)
    file = getattr(getattr(plain, "__code__", None), "co_filename", "")
    module = sys.modules.get(spec.model.module)
    return Path(file or getattr(module, "__file__", None) or ".").parent


def rooms(spec: RunSpec, run_dir: Path) -> Rooms:
    """The real rooms, on the lake of the state directory two above the run's. What is heavy is imported here, late."""
    from flyball.define.metrics import metrics_of
    from flyball.engines.runtimes.onnx import score_matrix
    from flyball.features import training_set
    from flyball.serving.trees import open_model
    from flyball.storage.lake import DeltaLake
    from flyball.storage.predictions import LakeServed

    asof = _asof(spec)
    state = run_dir.parent.parent
    lake = DeltaLake(state / spec.lake)
    horizon = {source: reached.lsn for source, reached in spec.horizon.items()}
    reader = LakeEvents(lake, spec.project, horizon)

    def training_rows(spec: RunSpec, model: ModelSpec, project: ProjectSpec) -> TrainingRows:
        served = None
        if asof == "served":
            served = LakeServed(lake, state / spec.artifacts / "versions", spec.versions)
        return training_set.build(
            model, project, reader, horizon=horizon, at=spec.at, asof=asof, served=served, folder=run_dir / SPOOL
        )

    return Rooms(
        training_rows=training_rows,
        batch_rows=lambda spec, model, project: _batch_rows(spec, model, project, reader, horizon, run_dir / SPOOL),
        metrics=metrics_of,
        scorer=_open_version,
        trees=open_model,
        onnx=lambda data, matrix: score_matrix(data, matrix, spec.model.task),
        artifact=LocalArtifacts(state / spec.artifacts).get,
        append=lambda table, frame, app_id, version: lake.append(table, frame, app_id=app_id, version=version),
    )


def _asof(spec: RunSpec) -> Any:
    asof = spec.params.get("asof", "known")
    if asof not in ASOF:
        raise InvalidError(
            f"a training set is as of {asof!r}; it is one of {', '.join(ASOF)}",
            code="bad_asof",
            hint=f"flyball train {spec.model.name} --asof known",
        )
    return asof


def _batch_rows(
    spec: RunSpec,
    model: ModelSpec,
    project: ProjectSpec,
    reader: LakeEvents,
    horizon: Mapping[str, int],
    folder: Path,
) -> BatchRows:
    from flyball.features.assemble import stack
    from flyball.features.training_set import features_of, row_columns

    assert spec.batch is not None  # the caller checked it
    declared = spec.project.source(spec.batch.rows)
    read = row_columns(model.features)
    rows = _rows_to_score(reader, declared, [c.name for c in declared.columns if c.name in read], spec.after)
    # Its rows bring the columns that the model's rows declare; the features' expressions know these by that name.
    source = msgspec.structs.replace(project.source(spec.batch.rows), name=model.rows)
    computed = features_of(model.features, project, source, rows, reader, horizon=horizon, at=spec.at, folder=folder)
    matrix = stack(model.features, computed.vectors, len(rows))
    return BatchRows(X=matrix, frame=rows.select("_key", "_event_time", "_lsn"))


def _rows_to_score(reader: LakeEvents, source: SourceSpec, columns: Sequence[str], after: int) -> pl.DataFrame:
    """The rows that came behind the LSN `after` and count, in LSN order, with these columns.

    Of a row that was corrected that is its newest version, also where an earlier one was scored; of a deleted one none.
    Of what lies at or below `after` the keys alone are read, and only those are held that came again.
    """
    from flyball.features.frames import CURRENT, history

    fresh = pl.concat(reader.batches(source.name, columns, through_lsn=None, after_lsn=after))
    keys = fresh.select("_key")
    events = pl.concat(
        batch.join(keys, on="_key", how="semi") for batch in reader.batches(source.name, [], through_lsn=after)
    )
    events = pl.concat([events, fresh.select(events.columns)])
    counting = history(events, source).filter(pl.col("_until") == CURRENT).select("_lsn")
    return fresh.join(counting, on="_lsn", how="semi").sort("_lsn")


@contextlib.contextmanager
def _open_version(folder: Path, digest: str) -> Iterator[Scorer]:
    """The runtime of a version, opened as a worker opens it: every file and the samples checked."""
    from flyball.engines.runtimes import open_runtime
    from flyball.serving.versions import load_version

    loaded = load_version(folder, digest, open_runtime)
    if loaded.runtime is None:
        raise InvalidError(f"the version {digest[:12]} has no model", code="no_model")
    try:
        yield loaded.runtime
    finally:
        loaded.runtime.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
