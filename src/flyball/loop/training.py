"""Training a version: the user's function on a training set, evaluated on what was held out, packed and checked."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from flyball.define.spec import FeatureSpec, ModelSpec, ProjectSpec, SourceSpec, TaskSpec, ViewSpec
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import canonical
from flyball.loop.execution import Context, Scorer, TrainFunction
from flyball.monitoring.profile import profile
from flyball.registry import manifest as manifests
from flyball.registry import package, versions
from flyball.registry.manifest import Provenance, Samples
from flyball.registry.package import Inputs, Packed
from flyball.training.dataset import Dataset, Part, dataset, matrix_to_pandas, without_windows
from flyball.training.ports import RunSpec, Score
from flyball.training.run import Package, Run


def train(context: Context, function: TrainFunction) -> dict[str, Any]:
    """Leave a version in `RUN/version`; returns its digest, metrics and evaluation."""
    spec, model, progress = context.spec, context.spec.model, context.progress
    progress.stage("data")
    data = dataset(context.rooms.training_rows(spec, model, spec.project), model, spec.project)
    rows = len(data.train) + len(data.test)
    progress.count(rows=rows, train=len(data.train), test=len(data.test), left_out=data.left_out)
    progress.stage("training", rows=len(data.train), features=len(data.features))
    packed, extra = _call(context, function, data)
    progress.stage("evaluation", rows=len(data.test))
    metrics = _metrics(context, data.test, packed)
    evaluation: dict[str, Any] = {
        "rows": {"train": len(data.train), "test": len(data.test)},
        "test_from": int(data.test.t[0]),
    }
    if spec.champion:
        evaluation["champion"] = _evaluate_champion(context, data)
    if spec.params.get("baseline") == "without_windows":
        evaluation["baseline"] = _evaluate_baseline(context, function, data)
    progress.stage("packaging")
    version = _package(context, data, packed, metrics, evaluation, extra)
    return {
        "digest": version.digest,
        "model": model.name,
        "metrics": metrics,
        "evaluation": evaluation,
        "rows": rows,
        "runtime": version.manifest["runtime"]["kind"],
        "snapshot": data.digest,
    }


def _plain(views: Sequence[ViewSpec]) -> Any:
    """As they stand in a manifest: lists, not tuples."""
    return json.loads(canonical([view.to_data() for view in views]))


def _task(model: ModelSpec) -> TaskSpec:
    if model.task is None:
        raise InvalidError(f"the model {model.name!r} has no task, so nothing can be trained", code="no_task")
    return model.task


def _call(
    context: Context, function: TrainFunction, data: Dataset, *, prefix: str = ""
) -> tuple[Packed, dict[str, Any]]:
    """Call the user's function; a run with equal seed and data gives an equal model, as far as its library does."""
    spec = context.spec
    inputs = Inputs(
        task=_task(spec.model),
        features=data.features,
        categories=data.categories,
        to_frame=lambda matrix: matrix_to_pandas(matrix, data.features, data.categories),
        trees=context.rooms.trees,
        onnx=context.rooms.onnx,
    )
    run = Run(
        folder=context.run_dir,
        params=spec.params,
        seed=spec.seed,
        pack=lambda model: package.pack(model, inputs),
        progress=context.progress,
        prefix=prefix,
    )
    random.seed(spec.seed)
    np.random.seed(spec.seed % 2**32)
    returned: Any = function(data, run)
    if not isinstance(returned, Package) or not isinstance(returned.model, Packed):
        raise InvalidError(
            f"the training function {spec.model.function or spec.model.name!r} returned {type(returned).__name__}",
            code="bad_package",
            hint="end it with: return run.package(model)",
        )
    return returned.model, returned.extra


def _metrics(context: Context, part: Part, scorer: Scorer) -> dict[str, float | None]:
    return context.rooms.metrics(_task(context.spec.model), part.y, scorer.predict(part.X))


def _evaluate_champion(context: Context, data: Dataset) -> dict[str, Any]:
    """The champion on the same held-out rows, with its own features; why not, where that cannot be done.

    A champion that cannot be evaluated must not block a new version, so its error is recorded, not raised.
    """
    spec = context.spec
    folder = context.versions / spec.champion
    try:
        found = versions.read(folder, expected=spec.champion).manifest
        model, project = as_trained(found, spec)
        same = model == spec.model and found["views"] == _plain(manifests.views_of(spec.model, spec.project))
        test = data.test if same else _champion_rows(context, model, project, data)
        with context.rooms.scorer(folder, spec.champion) as scorer:
            metrics = _metrics(context, test, scorer)
    except Exception as error:
        return {"digest": spec.champion, "error": context.mask(f"{type(error).__name__}: {error}")}
    return {"digest": spec.champion, "metrics": metrics}


def as_trained(found: Mapping[str, Any], spec: RunSpec) -> tuple[ModelSpec, ProjectSpec]:
    """The model and project with the features, views and sources of a version, which may have been declared anew."""
    model = msgspec.structs.replace(spec.model, features=msgspec.convert(found["features"], tuple[FeatureSpec, ...]))
    views = msgspec.convert(found["views"], tuple[ViewSpec, ...])
    sources = msgspec.convert(found["sources"], tuple[SourceSpec, ...])
    own = {source.name for source in sources}
    others = tuple(source for source in spec.project.sources if source.name not in own)  # the label may need them
    return model, msgspec.structs.replace(spec.project, views=views, sources=(*sources, *others))


def _champion_rows(context: Context, model: ModelSpec, project: ProjectSpec, data: Dataset) -> Part:
    """The same rows with the features that another version was trained on."""
    rows = dataset(context.rooms.training_rows(context.spec, model, project), model, project)
    if not np.array_equal(rows.test.t, data.test.t) or not np.array_equal(rows.test.y, data.test.y):
        raise InvalidError("the champion's features give other held-out rows", code="other_rows")
    return rows.test


def _evaluate_baseline(context: Context, function: TrainFunction, data: Dataset) -> dict[str, Any]:
    """The same function on what the rows themselves bring: what the views are worth."""
    names = without_windows(context.spec.model)
    if not names or len(names) == len(data.features):
        return {"kind": "without_windows", "features": len(names), "metrics": None}
    context.progress.stage("baseline", features=len(names))
    smaller = data.select(names)
    packed, _ = _call(context, function, smaller, prefix="baseline/")
    return {"kind": "without_windows", "features": len(names), "metrics": _metrics(context, smaller.test, packed)}


def _package(
    context: Context,
    data: Dataset,
    packed: Packed,
    metrics: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> versions.Version:
    spec, model = context.spec, context.spec.model
    samples = manifests.choose_samples(data.test.X, model, spec.project)
    packed = packed.verified(samples)
    origin = Provenance(
        run={
            "seed": spec.seed,
            "params": spec.params,
            "at": spec.at,
            "spec": msgspec.structs.replace(spec, run="", lake="", artifacts="").hash,
        },
        snapshot={
            "digest": data.digest,
            "rows": len(data.train) + len(data.test),
            "inexact": data.inexact,
            "left_out": data.left_out,
            "pins": data.pins,
            "horizon": {name: horizon.to_data() for name, horizon in spec.horizon.items()},
        },
        bundle=spec.bundle,
        created=spec.at,
        metrics=dict(metrics),
        evaluation=dict(evaluation),
        profile=profile(
            data.train.X, data.features, tuple(data.categories), data.categories, packed.predict(data.train.X)
        ),
        extra=dict(extra),
    )
    checked = Samples(inputs=samples, outputs=packed.predict(samples))
    body = manifests.build(model, spec.project, packed, origin)
    files = packed.files | {manifests.SAMPLES: checked.to_bytes()}
    version = versions.write(body, files, context.run_dir / "version")
    with context.rooms.scorer(version.path, version.digest) as scorer:  # what cannot be served is no version
        _agree(scorer.predict(samples), checked.outputs)
    context.progress.count(digest=version.digest, runtime=packed.kind)
    return version


def _agree(served: Score, expected: Score) -> None:
    if not np.allclose(served, expected, rtol=1e-5, atol=1e-5):
        difference = float(np.max(np.abs(served - expected)))
        raise InvalidError(
            f"the packaged model differs from the trained one by {difference:.3g} on its samples",
            code="package_differs",
            hint="look for state outside of the model, or for random numbers in its predictions",
        )
