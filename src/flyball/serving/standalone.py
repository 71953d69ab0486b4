"""One model file served by itself: a version directory, a plan and a token, with no project and no control plane."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyball.kernel.errors import InvalidError
from flyball.kernel.files import read_document, write_atomic, write_document
from flyball.kernel.ids import digest as digest_of
from flyball.kernel.layout import Layout
from flyball.serving.manifest import MANIFEST, MANIFEST_FORMAT
from flyball.serving.plan import PLAN_FORMAT, TOTAL_WEIGHT, plan_digest, publish

PERMISSIONS = ("predict", "read")


@dataclass(frozen=True, kw_only=True, slots=True)
class Standalone:
    """What a standalone model is served as. `example` is a request that the model understands, for a curl line."""

    service: str
    token: str
    plan: dict[str, Any]
    example: dict[str, Any]


def prepare(
    path: Path, data: bytes, signature: Mapping[str, Any], state: Path, *, kind: str = "onnx", format: str = "onnx"
) -> Standalone:
    """Make `state` serve a model under its file's name. Idempotent: the same file gives the same version.

    Args:
        data: the file's bytes.
        signature: its inputs and outputs: `{"inputs": [{name, datatype, shape}], "outputs": […]}`.
        kind, format: the runtime that serves it, and what the file is.
    """
    layout = Layout(state)
    layout.create()
    service = re.sub(r"[^A-Za-z0-9_]+", "_", path.stem).strip("_") or "model"
    token = _token(layout)
    file = f"model{path.suffix.lower()}"
    runtime = {"kind": kind, "format": format, "file": file, "input": "tensors", "tensors": dict(signature)}
    version = _version(layout, service, data, runtime)
    hashed = hashlib.sha256(token.encode()).hexdigest()
    contents: dict[str, Any] = {
        "services": {
            service: {
                "routes": [{"version": f"{service}/1", "digest": version, "weight": TOTAL_WEIGHT, "arm": "stable"}],
                "salt": service,
            }
        },
        "versions": {f"{service}/1": {"digest": version, "path": str(_folder(layout, version).resolve())}},
        "tokens": {hashed: list(PERMISSIONS)},
    }
    epoch = _epoch(layout, plan_digest(contents))
    plan = publish(layout, {"epoch": epoch, **contents})
    return Standalone(service=service, token=token, plan=plan, example=_example(signature))


def _version(layout: Layout, name: str, data: bytes, runtime: dict[str, Any]) -> str:
    body: dict[str, Any] = {
        "model": name,
        "task": None,
        "rows": "",
        "features": [],
        "views": [],
        "sources": [],
        "inputs": [],
        "runtime": runtime,
        "signature": runtime["tensors"],
        "files": {runtime["file"]: hashlib.sha256(data).hexdigest()},
        "profile": {},
        "metrics": {},
        "evaluation": {},
        "environment": {},
        "run": {},
        "snapshot": {},
        "bundle": "",
        "created": 0,
    }
    version = digest_of(body)
    folder = _folder(layout, version)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / runtime["file"], data)
    write_document(folder / MANIFEST, MANIFEST_FORMAT, body)
    return version


def _folder(layout: Layout, version: str) -> Path:
    return layout.artifacts / "versions" / version


def _token(layout: Layout) -> str:
    """The state directory's token, made at first start and readable by its owner alone."""
    try:
        return layout.token.read_text().strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        write_atomic(layout.token, token.encode(), mode=0o600)
        return token


def _epoch(layout: Layout, contents: str) -> int:
    """The next epoch, or that of the plan that is there if it says the same. A platform's own plan is not replaced."""
    if os.path.exists(layout.metadata):
        raise InvalidError(
            f"{layout.root} is the state directory of a platform; a model file cannot take its place",
            code="state_in_use",
            hint="give the model a state directory of its own with --state DIR",
        )
    try:
        before = read_document(layout.serving_plan, PLAN_FORMAT)
    except FileNotFoundError:
        return 1
    return int(before["epoch"]) + int(before["digest"] != contents)


def _example(signature: Mapping[str, Any]) -> dict[str, Any]:
    """A request of zeros in the model's own shapes; sizes that may be any are one."""
    inputs = []
    for tensor in signature["inputs"]:
        shape = [size if size > 0 else 1 for size in tensor["shape"]]
        count = 1
        for size in shape:
            count *= size
        zero: Any = {"BYTES": "", "BOOL": False}.get(tensor["datatype"], 0)
        inputs.append({"name": tensor["name"], "datatype": tensor["datatype"], "shape": shape, "data": [zero] * count})
    return {"inputs": inputs}
