"""Version directories: one digest for one content, and no byte can change unseen."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flyball.define.spec import ColumnSpec, FeatureSpec
from flyball.kernel.errors import FlyballError, InternalError, InvalidError, NotFoundError
from flyball.kernel.ids import digest
from flyball.registry import manifest, versions
from flyball.registry.manifest import Provenance, Samples, choose_samples
from flyball.registry.package import pack
from flyball.registry.pretrained import features_only, pretrained
from flyball.registry.versions import Version
from tests.registry.models import ROWS, LightgbmKernel, booster, inputs, lightgbm_text, pipeline
from tests.registry.test_graphs import linear
from tests.training.conftest import MODEL, PROJECT, TRIPS

ORIGIN = Provenance(
    run={"seed": 0}, snapshot={"digest": "d"}, bundle="b" * 64, created=5, metrics={"auc": float("nan")}
)


def write(folder: Path) -> Version:
    matrix = choose_samples(ROWS.X, MODEL, PROJECT)
    packed = pack(booster(), inputs(trees=LightgbmKernel)).verified(matrix)
    samples = Samples(inputs=matrix, outputs=packed.predict(matrix))
    body = manifest.build(MODEL, PROJECT, packed, ORIGIN)
    return versions.write(body, packed.files | {manifest.SAMPLES: samples.to_bytes()}, folder)


def test_the_same_content_gives_the_same_digest(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first.digest == second.digest
    assert versions.read(tmp_path / "a", expected=first.digest).manifest == first.manifest


def test_a_manifest_says_what_a_request_must_bring_and_what_is_returned(tmp_path: Path) -> None:
    found = write(tmp_path / "v").manifest
    assert [column["name"] for column in found["inputs"]] == ["driver", "fare", "payment"]
    assert [source["name"] for source in found["sources"]] == ["Trips"]
    assert found["signature"]["inputs"][0]["shape"] == [-1, 3]
    assert found["signature"]["outputs"][0]["shape"] == [-1]
    assert found["metrics"] == {"auc": None}
    assert set(found["environment"]["packages"]) >= {"lightgbm", "numpy"}
    assert set(found["files"]) == {"model.txt", "samples.npz"}


def test_samples_survive_and_hold_rows_with_nulls(tmp_path: Path) -> None:
    version = write(tmp_path / "v")
    samples = Samples.from_bytes(version.file(manifest.SAMPLES))
    assert len(samples.inputs) == manifest.MAX_SAMPLES
    assert np.isnan(samples.inputs).any()
    np.testing.assert_allclose(lightgbm_text(version.file("model.txt").decode(), samples.inputs), samples.outputs)


def test_a_number_from_a_pii_column_is_not_in_the_samples() -> None:
    age = ColumnSpec(name="age", type="float", pii=True)
    trips = msgspec.structs.replace(TRIPS, columns=(*TRIPS.columns, age))
    project = msgspec.structs.replace(PROJECT, sources=(trips,))
    read_age = FeatureSpec(name="usual", expr=["neg", ["col", "Trips", "age"]])
    model = msgspec.structs.replace(MODEL, features=(*MODEL.features[:2], read_age))
    column = choose_samples(ROWS.X, model, project)[:, 2]
    assert len(np.unique(column[~np.isnan(column)])) == 1


def test_a_version_is_installed_once_and_verified(tmp_path: Path) -> None:
    version = write(tmp_path / "run" / "version")
    root = tmp_path / "versions"
    installed = versions.install(version.path, root)
    assert installed.path == root / version.digest
    assert versions.install(version.path, root) == installed
    assert version.path.exists()
    (root / ".left.new").mkdir()
    assert versions.sweep(root) == 1
    assert versions.read(installed.path) == installed


@pytest.mark.parametrize("name", ["model.txt", "samples.npz"])
def test_a_version_with_a_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    version = write(tmp_path / "v")
    path = version.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    with pytest.raises(InternalError, match=name) as caught:
        versions.read(version.path)
    assert caught.value.code == "version_corrupt"
    with pytest.raises(InternalError):
        versions.install(version.path, tmp_path / "versions")


def test_a_changed_manifest_and_files_that_it_does_not_name_are_refused(tmp_path: Path) -> None:
    version = write(tmp_path / "v")
    (version.path / "more.txt").write_text("x")
    with pytest.raises(InternalError, match=r"more\.txt"):
        versions.read(version.path)
    (version.path / "more.txt").unlink()
    path = version.path / "manifest.json"
    document = json.loads(path.read_text())
    document["body"]["metrics"] = {"auc": 1.0}
    path.chmod(0o644)
    path.write_text(json.dumps(document))
    with pytest.raises(InternalError, match="manifest"):
        versions.read(version.path, expected=version.digest)
    with pytest.raises(NotFoundError):
        versions.read(tmp_path / ("0" * 64))


def test_a_pretrained_file_becomes_a_version_without_a_run(tmp_path: Path) -> None:
    data = linear(4).SerializeToString()
    model = msgspec.structs.replace(
        MODEL,
        features=(),
        rows="",
        module="",
        function="",
        pretrained="score.onnx",
        pretrained_digest=digest(data),
        task=None,
    )
    version = pretrained(model, PROJECT, data, tmp_path / "v")
    assert version.manifest["runtime"]["input"] == "tensors"
    assert version.manifest["signature"]["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
    assert versions.read(version.path).digest == pretrained(model, PROJECT, data, tmp_path / "w").digest
    with pytest.raises(FlyballError, match="declared"):
        pretrained(model, PROJECT, data + b"x", tmp_path / "x")
    with pytest.raises(FlyballError, match=r"no \.onnx"):
        pretrained(msgspec.structs.replace(model, pretrained="m.pkl"), PROJECT, data, tmp_path / "x")
    with pytest.raises(FlyballError, match="3 columns"):
        pretrained(msgspec.structs.replace(model, features=MODEL.features), PROJECT, data, tmp_path / "x")


def test_a_service_with_features_and_no_model_has_a_version(tmp_path: Path) -> None:
    version = features_only(MODEL, PROJECT, tmp_path / "v")
    assert version.manifest["runtime"] == {"kind": ""}
    assert versions.read(version.path) == version


def test_a_full_disk_leaves_no_half_written_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(versions, "write_document", full)
    with pytest.raises(FlyballError) as caught:
        write(tmp_path / "runs" / "v")
    assert caught.value.code == "disk_full"
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_pretrained_lightgbm_text_is_served_by_the_kernel_where_it_can(tmp_path: Path) -> None:
    data = booster().model_to_string().encode()
    model = msgspec.structs.replace(MODEL, pretrained="score.txt")

    def refuses(format: str, data: bytes) -> LightgbmKernel:
        raise InvalidError("linear leaves")

    kinds = []
    for number, trees in enumerate((LightgbmKernel, refuses, None)):
        version = pretrained(model, PROJECT, data, tmp_path / str(number), trees=trees)
        kinds.append(version.manifest["runtime"]["kind"])
    assert kinds == ["trees", "process", "process"]
    with pytest.raises(FlyballError, match="takes 3 columns"):
        pretrained(msgspec.structs.replace(model, features=MODEL.features[:1]), PROJECT, data, tmp_path / "x")
    with pytest.raises(FlyballError, match="no LightGBM"):
        pretrained(model, PROJECT, b"text", tmp_path / "x")


def test_a_pretrained_skops_file_names_the_types_that_it_may_hold(tmp_path: Path) -> None:
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = msgspec.structs.replace(MODEL, pretrained="score.skops")
    data = skops.io.dumps(HistGradientBoostingClassifier(max_iter=2).fit(ROWS.X, ROWS.y))
    found = pretrained(model, PROJECT, data, tmp_path / "v").manifest["runtime"]
    assert (found["kind"], found["method"], found["input"]) == ("process", "predict_proba", "matrix")
    assert set(skops.io.get_untrusted_types(data=data)) <= set(found["trusted"])
    named = skops.io.dumps(pipeline(HistGradientBoostingClassifier(max_iter=2)))
    assert pretrained(model, PROJECT, named, tmp_path / "w").manifest["runtime"]["columns"] == [
        "fare",
        "payment",
        "usual",
    ]
    for bad in (b"text", data[:100]):
        with pytest.raises(FlyballError, match="no skops file"):
            pretrained(model, PROJECT, bad, tmp_path / "x")
