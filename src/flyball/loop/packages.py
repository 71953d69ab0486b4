"""Version directories below the artifacts: adopted from runs, made of pretrained files, judged by the gate."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from flyball.define.spec import ModelSpec, ProjectSpec
from flyball.loop.ports import NewVersion
from flyball.registry import versions
from flyball.registry.ports import ArtifactStore


class VersionPackages:
    """`loop.ports.Packages` in `root`, the layout's `artifacts/versions`."""

    def __init__(self, root: Path, artifacts: ArtifactStore) -> None:
        self._root = root
        self._artifacts = artifacts
        self._manifests: dict[str, dict[str, Any]] = {}

    def manifest(self, digest: str) -> dict[str, Any]:
        if digest not in self._manifests:
            self._manifests[digest] = versions.read(self._root / digest).manifest
        return self._manifests[digest]

    def path(self, digest: str) -> Path:
        return self._root / digest

    def adopt(self, folder: Path) -> NewVersion:
        return self._new(versions.install(folder, self._root))

    def pretrained(self, model: ModelSpec, project: ProjectSpec) -> NewVersion:
        # Only applying such a model needs the ONNX library.
        from flyball.registry import pretrained

        self._root.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".pretrained.", dir=self._root))
        try:
            if model.pretrained:
                data = self._artifacts.get(model.pretrained_digest)
                pretrained.pretrained(model, project, data, place / "version")
            else:
                pretrained.features_only(model, project, place / "version")
            return self.adopt(place / "version")
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _new(self, version: versions.Version) -> NewVersion:
        self._manifests[version.digest] = version.manifest
        return NewVersion(
            digest=version.digest,
            metrics=version.manifest.get("metrics") or {},
            evaluation=version.manifest.get("evaluation") or {},
        )
