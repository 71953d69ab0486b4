"""Versions that no run made: a pretrained ONNX file, and a model that only computes features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flyball.define.spec import ModelSpec, ProjectSpec
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import digest, short
from flyball.registry import graphs, manifest, versions
from flyball.registry.versions import Version


def pretrained(model: ModelSpec, project: ProjectSpec, data: bytes, folder: Path) -> Version:
    """Write a version of a pretrained file as `folder`. No time is in it: the same file gives the same version.

    With features, the file takes one matrix of them; without, a request brings its tensors.
    Raises `bad_onnx`, `bad_signature`, `bad_model` for a file in another format, `artifact_corrupt` for other bytes.
    """
    if model.pretrained_digest and digest(data) != model.pretrained_digest:
        raise InvalidError(
            f"{model.pretrained} has the digest {short(digest(data))}; {short(model.pretrained_digest)} was declared",
            code="artifact_corrupt",
            hint="flyball apply uploads the file again",
        )
    if not model.pretrained.endswith(".onnx"):
        raise InvalidError(
            f"the pretrained model {model.pretrained!r} is no .onnx file",
            code="bad_model",
            hint="export it to ONNX; other formats come from a training function",
        )
    found = graphs.signature(data)
    if model.features:
        _check_matrix(found, model)
    runtime = {
        "kind": "onnx",
        "format": "onnx",
        "file": graphs.FILE,
        "input": "matrix" if model.features else "tensors",
        "tensors": found.to_data(),
    }
    body = _body(model, project) | {"runtime": runtime, "signature": found.to_data()}
    body["environment"] = manifest.environment(())
    return versions.write(body, {graphs.FILE: data}, folder)


def features_only(model: ModelSpec, project: ProjectSpec, folder: Path) -> Version:
    """Write a version without a model as `folder`: a service with it answers with its features."""
    body = _body(model, project) | {
        "runtime": {"kind": ""},
        "signature": {"inputs": [], "outputs": []},
        "environment": manifest.environment(()),
    }
    return versions.write(body, {}, folder)


def _body(model: ModelSpec, project: ProjectSpec) -> dict[str, Any]:
    return {
        "model": model.name,
        "task": None if model.task is None else model.task.to_data(),
        "rows": model.rows,
        "features": [feature.to_data() for feature in model.features],
        "views": [view.to_data() for view in manifest.views_of(model, project)],
        "sources": [source.to_data() for source in manifest.sources_of(model, project)],
        "inputs": [column.to_data() for column in manifest.request_columns(model, project)],
        "profile": {},
        "metrics": {},
        "evaluation": {},
        "run": {},
        "snapshot": {},
        "bundle": project.bundle,
        "created": 0,
        "extra": {},
    }


def _check_matrix(found: graphs.Signature, model: ModelSpec) -> None:
    wanted = len(model.features)
    fits = len(found.inputs) == 1 and len(found.inputs[0].shape) == 2 and found.inputs[0].shape[1] in (-1, wanted)
    if not fits:
        shown = ", ".join(f"{t.name}{list(t.shape)}" for t in found.inputs)
        raise InvalidError(
            f"{model.pretrained} takes {shown}; the model's features are one matrix of {wanted} columns",
            code="bad_signature",
            hint="declare the features that the file was trained on, in their order",
        )
