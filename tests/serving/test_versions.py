"""A version directory is loaded only as it was packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyball.engines.runtimes import open_runtime
from flyball.kernel.errors import ConflictError, FlyballError, NotFoundError
from flyball.serving.versions import load_version
from tests.serving.onnx_models import affine
from tests.serving.support import booster_text, fraud_manifest, samples, tree_version, write_version


def refused(folder: Path, digest: str) -> FlyballError:
    with pytest.raises(FlyballError) as caught:
        load_version(folder, digest, open_runtime)
    return caught.value


def test_a_sound_version_is_loaded_and_answers(tmp_path: Path) -> None:
    digest, folder = tree_version(tmp_path)
    loaded = load_version(folder, digest, open_runtime)
    assert loaded.manifest.model == "fraud"
    assert loaded.runtime is not None
    assert loaded.runtime.predict(np.zeros((2, 2))).shape == (2,)


def test_a_changed_byte_a_missing_file_and_another_manifest_are_refused(tmp_path: Path) -> None:
    digest, folder = tree_version(tmp_path)
    assert refused(tmp_path / "nowhere", digest).code == "version_missing"
    assert refused(folder, "0" * 64).code == "version_corrupt"
    data = bytearray((folder / "model.txt").read_bytes())
    data[100] ^= 1
    (folder / "model.txt").write_bytes(bytes(data))
    assert "model.txt" in refused(folder, digest).message
    (folder / "model.txt").unlink()
    assert "missing" in refused(folder, digest).message


def test_a_model_that_does_not_answer_its_samples_is_refused(tmp_path: Path) -> None:
    probe = np.array([[10.0, 0.0]])
    files = {"model.txt": booster_text().encode(), "samples.npz": samples(inputs=probe, outputs=np.array([0.987]))}
    digest, folder = write_version(tmp_path, files, **fraud_manifest())
    assert "samples" in refused(folder, digest).message
    wrong = {**files, "samples.npz": samples(inputs=np.zeros((1, 3)), outputs=np.array([0.5]))}
    digest, folder = write_version(tmp_path, wrong, **fraud_manifest())
    assert isinstance(refused(folder, digest), FlyballError)


@pytest.mark.parametrize(("y", "sound"), [([[3.0, 5.0]], True), ([[3.0, 5.1]], False), ([[3.0]], False)])
def test_samples_of_tensors_are_checked_by_name(tmp_path: Path, y: Any, sound: bool) -> None:
    tensors = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": []}
    given = {"input:x": np.array([[1, 2]], np.float32), "output:y": np.array(y, np.float32)}
    runtime = {"kind": "onnx", "file": "m.onnx", "tensors": tensors}
    files = {"m.onnx": affine(), "samples.npz": samples(**given)}
    digest, folder = write_version(tmp_path, files, model="m", task=None, runtime=runtime)
    if sound:
        assert load_version(folder, digest, open_runtime).manifest.takes_tensors
    else:
        with pytest.raises(ConflictError):
            load_version(folder, digest, open_runtime)


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    digest, folder = write_version(tmp_path / "v", {"../secret": b"x"}, **fraud_manifest())
    assert "outside" in refused(folder, digest).message


def test_a_version_of_features_alone_has_no_runtime(tmp_path: Path) -> None:
    digest, folder = write_version(tmp_path, {}, **fraud_manifest(runtime={"kind": "none"}))
    assert load_version(folder, digest, open_runtime).runtime is None
    assert isinstance(refused(tmp_path / "x", digest), NotFoundError)
