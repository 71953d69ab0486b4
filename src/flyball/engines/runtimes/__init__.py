"""Model runtimes: each in a module of its own that is imported only where a version needs it."""

from __future__ import annotations

from pathlib import Path

from flyball.kernel.errors import InvalidError, did_you_mean
from flyball.serving.manifest import Manifest
from flyball.serving.ports import Runtime

KINDS = ("trees", "onnx", "process")


def open_runtime(kind: str, folder: Path, manifest: Manifest) -> Runtime:
    """Open the runtime of a version whose files lie in `folder`; raises `unknown_runtime`, or what loading raises."""
    if kind == "trees":
        from flyball.engines.runtimes.trees import TreeRuntime

        data = (folder / str(manifest.runtime["file"])).read_bytes()
        return TreeRuntime(data, str(manifest.runtime.get("format") or "lightgbm"))
    if kind == "onnx":
        from flyball.engines.runtimes.onnx import OnnxRuntime

        return OnnxRuntime((folder / str(manifest.runtime["file"])).read_bytes(), manifest.task)
    if kind == "process":
        from flyball.engines.runtimes.process import ProcessRuntime

        return ProcessRuntime(folder, manifest)
    raise InvalidError(f"there is no runtime {kind!r}: {did_you_mean(kind, KINDS)}", code="unknown_runtime")
