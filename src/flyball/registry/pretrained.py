"""Versions that no run made: a pretrained file (ONNX, LightGBM text, skops), and a model that only computes features.

Files are described without running anything of theirs: the process that registers them imports none of their libraries.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flyball.define.spec import ModelSpec, ProjectSpec
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import digest, short
from flyball.registry import boosters, estimators, graphs, manifest, versions
from flyball.registry.ports import TreeVerifier
from flyball.registry.versions import Version


def pretrained(
    model: ModelSpec, project: ProjectSpec, data: bytes, folder: Path, *, trees: TreeVerifier | None = None
) -> Version:
    """Write a version of a pretrained file as `folder`. No time is in it: the same file gives the same version.

    With features, the file takes one matrix of them; without, a request brings its tensors. `trees` tells whether the
    tree kernel runs a LightGBM model; without it, LightGBM does, in a process of its own.
    Raises `bad_onnx`, `bad_signature`, `bad_model` for a file in another format, `artifact_corrupt` for other bytes.
    """
    if model.pretrained_digest and digest(data) != model.pretrained_digest:
        raise InvalidError(
            f"{model.pretrained} has the digest {short(digest(data))}; {short(model.pretrained_digest)} was declared",
            code="artifact_corrupt",
            hint="flyball apply uploads the file again",
        )
    describe = {".onnx": _onnx, ".txt": _lightgbm, ".skops": _skops}.get(Path(model.pretrained).suffix)
    if describe is None:
        raise InvalidError(
            f"the pretrained model {model.pretrained!r} is no .onnx, LightGBM .txt or .skops file",
            code="bad_model",
            hint="export it to ONNX; pickle is refused, because loading it executes code",
        )
    runtime, signature = describe(model, data, trees)
    body = _body(model, project) | {"runtime": runtime, "signature": signature}
    body["environment"] = manifest.environment(())
    return versions.write(body, {runtime["file"]: data}, folder)


Described = tuple[dict[str, Any], dict[str, Any]]  # the manifest's runtime and signature


def _onnx(model: ModelSpec, data: bytes, _trees: TreeVerifier | None) -> Described:
    found = graphs.signature(data)
    if model.features:
        _check_matrix(found, model)
    given = "matrix" if model.features else "tensors"
    tensors = found.to_data()
    return {"kind": "onnx", "format": "onnx", "file": graphs.FILE, "input": given, "tensors": tensors}, tensors


def _lightgbm(model: ModelSpec, data: bytes, trees: TreeVerifier | None) -> Described:
    text = data.decode(errors="replace")
    header = dict(line.split("=", 1) for line in text.partition("\nTree=")[0].splitlines() if "=" in line)
    if not text.startswith("tree\n") or not header.get("max_feature_idx", "").isdigit():
        raise InvalidError(
            f"{model.pretrained} is no LightGBM model", code="bad_model", hint="write it with Booster.save_model"
        )
    columns, classes = int(header["max_feature_idx"]) + 1, int(header.get("num_class", "1"))
    _check_columns(columns, model)
    runtime = {"kind": "process", "format": "lightgbm", "file": boosters.FILE, "input": "matrix"}
    if trees is not None:
        try:
            trees("lightgbm", data)
            runtime["kind"] = "trees"
        except InvalidError as error:
            runtime["reason"] = error.message
    return runtime, _matrix(columns, classes)


def _skops(model: ModelSpec, data: bytes, _trees: TreeVerifier | None) -> Described:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            text = archive.read("schema.json").decode()
        types = sorted(set(_types(json.loads(text))))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InvalidError(
            f"{model.pretrained} is no skops file: {error}", code="bad_model", hint="write it with skops.io.dump"
        ) from None
    if not model.features or model.task is None:
        raise InvalidError(
            f"{model.pretrained} is a scikit-learn model, which needs its task and its features declared",
            code="bad_signature",
            hint="say task=… and features=[…] in fb.Pretrained",
        )
    # Which of these are code is told by the process that loads them: it makes only what stands here.
    trusted = [name for name in types if name.startswith(estimators.TRUSTED)]
    named = {"input": "frame", "columns": [f.name for f in model.features]} if '"feature_names_in_"' in text else {}
    method = "predict" if model.task.kind == "regression" else "predict_proba"
    runtime = {"kind": "process", "format": "skops", "file": estimators.FILE, "method": method, "trusted": trusted}
    return runtime | ({"input": "matrix"} | named), _matrix(len(model.features), len(model.task.classes) or 1)


def _types(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "__class__" in node and "__module__" in node:
            yield f"{node['__module__']}.{node['__class__']}"
        for value in node.values():
            yield from _types(value)
    elif isinstance(node, list):
        for value in node:
            yield from _types(value)


def _matrix(columns: int, classes: int) -> dict[str, Any]:
    return {
        "inputs": [{"name": "X", "datatype": "FP64", "shape": [-1, columns]}],
        "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1, classes] if classes > 1 else [-1]}],
    }


def _check_columns(columns: int, model: ModelSpec) -> None:
    if model.features and columns != len(model.features):
        raise InvalidError(
            f"{model.pretrained} takes {columns} columns; the model's features are {len(model.features)}",
            code="bad_signature",
            hint="declare the features that the file was trained on, in their order",
        )


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
