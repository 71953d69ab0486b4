"""Loading a version: every byte checked against its digest, and the model against its own samples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.kernel.errors import ConflictError, FlyballError, NotFoundError
from flyball.kernel.files import read_document
from flyball.kernel.ids import digest as digest_of
from flyball.kernel.ids import short
from flyball.serving.manifest import MANIFEST, MANIFEST_FORMAT, Manifest, manifest_from_data
from flyball.serving.ports import Matrix, OpenRuntime, Runtime

SAMPLES = "samples.npz"
KEPT_ROWS = 64
TOLERANCE = 1e-5  # relative and absolute: libraries vectorise float32 differently on another processor


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedVersion:
    """A version that was checked and is ready. `runtime` is None for features without a model; `sample` are rows that
    it was packed with."""

    digest: str
    manifest: Manifest
    runtime: Runtime | None
    sample: Matrix | None = None


def load_version(folder: Path, digest: str, open_runtime: OpenRuntime) -> LoadedVersion:
    """Load the version directory `folder`, whose manifest must have `digest`.

    Raises:
        NotFoundError: `version_missing`.
        ConflictError: `version_corrupt`, where a file, the manifest or the model's answers are not what was packed.
    """
    data = read_manifest(folder, digest)
    manifest = manifest_from_data(data)
    for name, expected in manifest.files.items():
        _check_file(folder, name, expected)
    if not manifest.kind:
        return LoadedVersion(digest=digest, manifest=manifest, runtime=None)
    runtime = open_runtime(manifest.kind, folder, manifest)
    sample = None
    try:
        if SAMPLES in manifest.files:
            sample = check_samples(folder / SAMPLES, manifest, runtime)
    except BaseException:
        runtime.close()
        raise
    return LoadedVersion(digest=digest, manifest=manifest, runtime=runtime, sample=sample)


def read_manifest(folder: Path, digest: str) -> dict[str, Any]:
    """The manifest as data, once it has the digest that the plan names."""
    try:
        data = read_document(folder / MANIFEST, MANIFEST_FORMAT)
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no version {short(digest)} at {folder}",
            code="version_missing",
            hint="restore the state directory's artifacts, or release another version",
        ) from None
    if digest_of(data) != digest:
        raise _corrupt(f"the manifest of version {short(digest)} has another digest")
    return data


def check_samples(path: Path, manifest: Manifest, runtime: Runtime) -> Matrix | None:
    """Ask the runtime what it was asked when the version was packed, and compare the answers; gives some of the rows.

    The file holds `inputs` (a matrix) and `outputs`, or `input:NAME` and `output:NAME` for a model of tensors.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    try:
        if manifest.takes_tensors and any(name.startswith("input:") for name in arrays):
            given = runtime.infer(_prefixed(arrays, "input:"))
            pairs = [(given.get(name), expected) for name, expected in _prefixed(arrays, "output:").items()]
        else:
            pairs = [(runtime.predict(arrays["inputs"]), arrays["outputs"])]
    except FlyballError:
        raise
    except Exception as error:
        raise _corrupt(f"the model does not answer its own samples: {type(error).__name__}: {error}") from error
    tolerance = max(TOLERANCE, float(manifest.runtime.get("tolerance") or 0.0))
    for answer, expected in pairs:
        if answer is None or not _close(np.asarray(answer), expected, tolerance):
            raise _corrupt("the model does not answer its samples as it did when it was packed")
    rows = arrays.get("inputs")
    return None if rows is None or rows.ndim != 2 else np.array(rows[:KEPT_ROWS], dtype=np.float64)


def _prefixed(arrays: dict[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _close(answer: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: float) -> bool:
    if answer.shape != expected.shape:
        return False
    if answer.dtype.kind in "fc":
        return bool(np.allclose(answer, expected, rtol=tolerance, atol=tolerance, equal_nan=True))
    return bool((answer == expected).all())


def _check_file(folder: Path, name: str, expected: str) -> None:
    parts = PurePosixPath(name).parts
    if PurePosixPath(name).is_absolute() or ".." in parts:
        raise _corrupt(f"the manifest names a file outside of its directory: {name!r}")
    try:
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise _corrupt(f"the file {name!r} of the version is missing") from None
    if found != expected:
        raise _corrupt(f"the file {name!r} of the version has the digest {short(found)}, not {short(expected)}")


def _corrupt(message: str) -> ConflictError:
    return ConflictError(
        message,
        code="version_corrupt",
        hint="restore the version's directory from a backup, or train the model again",
    )
