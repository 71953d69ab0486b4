"""One run, from its spec to `result.json`: what it is composed of, what it leaves, and what it cleans up first.

Here the rooms meet that a run needs: training sets, the user's code, the registry, the reference profile. The trainer
wires them and owns the process.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from flyball.define.spec import ModelSpec, ProjectSpec, TaskSpec
from flyball.kernel.files import write_document
from flyball.registry import versions
from flyball.registry.manifest import finite
from flyball.registry.ports import TreeVerifier
from flyball.training.bundle import importable, load_function, unpack
from flyball.training.capture import LogFile, capture_descriptors, capture_streams
from flyball.training.dataset import Dataset
from flyball.training.ports import RESULT_FORMAT, SPOOL, Matrix, RunSpec, Score, TrainingRows
from flyball.training.progress import Progress
from flyball.training.run import Package, Run
from flyball.training.secrecy import Mask

TrainFunction = Callable[[Dataset, Run], Package]


class Scorer(Protocol):
    def predict(self, matrix: Matrix) -> Score: ...


@dataclass(frozen=True, kw_only=True)
class BatchRows:
    """Rows to score: `X` is `(n, features)`; `frame` says, in their order, which they are in the source: `_key`
    (Binary), `_event_time` and `_lsn` (Int64)."""

    X: Matrix
    frame: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """What a run is composed of; `rooms` wires the real ones, tests hand in their own.

    Args:
        training_rows: the point-in-time training set of a model.
        batch_rows: the rows of the spec's batch with an LSN above its `after`, as they are now where they were
            corrected and without those that were deleted, and their features at their own times.
        metrics: all metrics of a task.
        scorer: a verified version directory of this digest, opened; closed when the block ends.
        trees, onnx: the tree kernel, and a run of a serialized ONNX model.
        artifact: the bytes of a digest.
        append: adds a frame to a table of the lake, once for each (application, version).
    """

    training_rows: Callable[[RunSpec, ModelSpec, ProjectSpec], TrainingRows]
    batch_rows: Callable[[RunSpec, ModelSpec, ProjectSpec], BatchRows]
    metrics: Callable[[TaskSpec, Any, Any], dict[str, float | None]]
    scorer: Callable[[Path, str], contextlib.AbstractContextManager[Scorer]]
    artifact: Callable[[str], bytes]
    append: Callable[[str, pl.DataFrame, str, int], Any]
    trees: TreeVerifier | None = None
    onnx: Callable[[bytes, Matrix], Score] | None = None


@dataclass(frozen=True, kw_only=True)
class Context:
    """A run under way. The state directory is two above its run directory (`STATE/runs/RUN`)."""

    spec: RunSpec
    run_dir: Path
    rooms: Rooms
    progress: Progress
    mask: Mask

    @property
    def versions(self) -> Path:
        return self.run_dir.parent.parent / self.spec.artifacts / "versions"


def execute(
    spec: RunSpec, run_dir: Path, using: Rooms, mask: Mask, *, foreground: bool, function: TrainFunction | None = None
) -> dict[str, Any]:
    """Execute a run in this process and return what `result.json` then says; what fails is raised.

    `foreground` shows the user's output besides logging it. `function` stands in for the bundle's.
    """
    from flyball.loop import scoring, training  # they need what stands above

    _clear(run_dir)
    progress = Progress(run_dir / "progress.json", mask)
    context = Context(spec=spec, run_dir=run_dir, rooms=using, progress=progress, mask=mask)
    log = LogFile(run_dir / "log.jsonl", mask)
    try:
        with capture_streams(log) if foreground else capture_descriptors(log):
            if spec.kind == "batch":
                result = scoring.score(context)
            else:
                with _training_function(context, function) as train:
                    result = training.train(context, train)
    finally:
        log.close()
        shutil.rmtree(run_dir / SPOOL, ignore_errors=True)
    result |= {"run": spec.run, "kind": spec.kind, "stages": progress.finish()}
    write_document(run_dir / "result.json", RESULT_FORMAT, finite(result))
    return result


def _clear(run_dir: Path) -> None:
    """Take away what an earlier attempt left; its log stays, and this attempt's lines follow."""
    for name in ("code", "version", "artifacts", SPOOL):
        shutil.rmtree(run_dir / name, ignore_errors=True)
    for name in ("metrics.jsonl", "progress.json", "error.json", "result.json"):
        (run_dir / name).unlink(missing_ok=True)
    versions.sweep(run_dir)


@contextlib.contextmanager
def _training_function(context: Context, function: TrainFunction | None) -> Iterator[TrainFunction]:
    spec = context.spec
    if function is not None:
        yield function
    elif spec.bundle:
        code = context.run_dir / "code"
        unpack(context.rooms.artifact(spec.bundle), spec.bundle, code)
        with importable(code):
            yield load_function(code, spec.model.module, spec.model.function)
    else:
        module = importlib.import_module(spec.model.module)
        yield getattr(module, spec.model.function)
