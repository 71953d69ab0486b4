"""The manifest of a version: what it is, what it needs, and where it came from; as plain data, hashed as a whole.

Nothing in it depends on when or where it was made beyond what is written into it: equal runs give equal manifests, and
so one digest. Hence `run` is the recipe (seed, parameters, digest of the spec), not the run's id, which the ledger of
versions keeps; and `created` is the domain time of the run.
"""

from __future__ import annotations

import importlib.metadata
import io
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flyball.define.derive import inputs_of
from flyball.define.expression import columns_of, leaves
from flyball.define.spec import ColumnSpec, ModelSpec, ProjectSpec, SourceSpec, ViewSpec
from flyball.registry.package import Inputs, Packed
from flyball.registry.ports import Matrix, Score

SAMPLES = "samples.npz"
MAX_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a version came from; all of it is plain data. `bundle` is the digest of the training code."""

    run: dict[str, Any]
    snapshot: dict[str, Any]
    bundle: str
    created: int
    metrics: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Checked inputs and what the model gives for them: loading a version computes them again."""

    inputs: Matrix
    outputs: Score

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, inputs=self.inputs, outputs=self.outputs)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Samples:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(inputs=arrays["inputs"], outputs=arrays["outputs"])


def choose_samples(matrix: Matrix, model: ModelSpec, project: ProjectSpec, *, limit: int = MAX_SAMPLES) -> Matrix:
    """At most `limit` rows, evenly spaced, and a row with nulls wherever a feature has one.

    A number that is computed from a pii column is replaced by its mean: a package holds no value of a person.
    """
    spaced = np.linspace(0, len(matrix) - 1, min(len(matrix), limit)).astype(np.int64)
    with_null = [int(np.argmax(column)) for column in np.isnan(matrix).T if column.any()]
    chosen = list(dict.fromkeys([*with_null, *spaced.tolist()]))[:limit]
    samples = matrix[sorted(chosen)].copy()
    for position in pii_numbers(model, project):
        known = matrix[~np.isnan(matrix[:, position]), position]
        mean = known.mean() if known.size else np.nan
        samples[:, position] = np.where(np.isnan(samples[:, position]), np.nan, mean)
    return samples


def pii_numbers(model: ModelSpec, project: ProjectSpec) -> list[int]:
    """Positions of the features without declared categories that read a pii column of the row itself."""
    pii = {(s.name, c.name) for s in project.sources for c in s.columns if c.pii}
    pii |= {(model.rows, c.name) for c in model.request if c.pii}
    return [
        position
        for position, feature in enumerate(model.features)
        if not feature.categories and any(x[0] == "col" and (x[1], x[2]) in pii for x in leaves(feature.expr))
    ]


def build(model: ModelSpec, project: ProjectSpec, packed: Packed, origin: Provenance) -> dict[str, Any]:
    """The body of a manifest but for `files`, which `versions.write` adds."""
    features = [feature for feature in model.features if feature.name in packed.inputs.features]
    views = views_of(model, project)
    return {
        "model": model.name,
        "task": None if model.task is None else model.task.to_data(),
        "rows": model.rows,
        "features": [feature.to_data() for feature in features],
        "views": [view.to_data() for view in views],
        "sources": [source.to_data() for source in sources_of(model, project)],
        "inputs": [column.to_data() for column in request_columns(model, project)],
        "runtime": packed.runtime,
        "signature": matrix_signature(packed.inputs),
        "profile": finite(origin.profile),
        "metrics": finite(origin.metrics),
        "evaluation": finite(origin.evaluation),
        "environment": environment(packed.libraries),
        "run": finite(origin.run),
        "snapshot": origin.snapshot,
        "bundle": origin.bundle,
        "created": origin.created,
        "extra": origin.extra,
    }


def views_of(model: ModelSpec, project: ProjectSpec) -> list[ViewSpec]:
    """The views that the features look up, in the project's order."""
    used = {leaf[1] for feature in model.features for leaf in leaves(feature.expr) if leaf[0] == "view"}
    return [view for view in project.views if view.name in used]


def sources_of(model: ModelSpec, project: ProjectSpec) -> list[SourceSpec]:
    """The source of the rows, those of the views, and what they are derived from, in the project's order."""
    used = {model.rows, *(view.source for view in views_of(model, project))}
    while more := {name for s in project.sources if s.name in used for name in inputs_of(s)} - used:
        used |= more
    return [source for source in project.sources if source.name in used]


def request_columns(model: ModelSpec, project: ProjectSpec) -> list[ColumnSpec]:
    """The columns of the rows that a request must bring: read by features, or keys under which views are looked up."""
    source = next((s for s in project.sources if s.name == model.rows), None)
    declared = (*(source.columns if source is not None else ()), *model.request)
    used: set[str] = set()
    for feature in model.features:
        used |= columns_of(feature.expr, model.rows)
        used |= {name for leaf in leaves(feature.expr) if leaf[0] == "view" for name in leaf[3]}
    return [column for column in declared if column.name in used]


def matrix_signature(inputs: Inputs) -> dict[str, Any]:
    """One matrix in, one score out; names, types and shapes as the Open Inference Protocol spells them."""
    columns = [{"name": name, "categories": list(inputs.categories.get(name, ()))} for name in inputs.features]
    shape = [-1, inputs.classes] if inputs.classes else [-1]
    return {
        "inputs": [{"name": "X", "datatype": "FP64", "shape": [-1, len(inputs.features)], "columns": columns}],
        "outputs": [{"name": "score", "datatype": "FP64", "shape": shape, "classes": list(inputs.task.classes)}],
    }


def environment(libraries: Sequence[str]) -> dict[str, Any]:
    """What made the version: Python, platform, and the versions of what its model depends on."""
    versions = {}
    for name in ("flyball", "numpy", *libraries):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system().lower()}-{platform.machine()}",
        "packages": versions,
    }


def finite(data: Any) -> Any:
    """Plain data in which a number that is not finite is null, and NumPy's numbers are Python's."""
    if isinstance(data, Mapping):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    if isinstance(data, np.generic):
        data = data.item()
    return None if isinstance(data, float) and not math.isfinite(data) else data
