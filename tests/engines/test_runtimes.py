"""Model runtimes: what they score, and how they fail."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyball.define.spec import FeatureSpec, TaskSpec
from flyball.engines.runtimes import open_runtime
from flyball.engines.runtimes.onnx import OnnxRuntime, score_matrix
from flyball.engines.runtimes.process import ProcessRuntime
from flyball.engines.runtimes.trees import TreeRuntime
from flyball.kernel.errors import FlyballError, InternalError, InvalidError, LateError, UnavailableError
from flyball.kernel.files import read_document
from flyball.serving import trees
from flyball.serving.batcher import score_rows
from flyball.serving.manifest import Manifest, manifest_from_data
from flyball.serving.versions import load_version
from tests.serving.onnx_models import affine, classifier
from tests.serving.support import booster_text, fraud_manifest, samples, tree_version, write_version

BINARY, THREE, REGRESSION = (
    TaskSpec(kind="binary"),
    TaskSpec(kind="multiclass", classes=("a", "b", "c")),
    TaskSpec(kind="regression"),
)


def matrix(rows: int = 5, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(size=(rows, 2))


def manifest_of(folder: Path) -> Manifest:
    return manifest_from_data(read_document(folder / "manifest.json", "flyball.version"))


def test_trees_are_scored_by_the_kernel(tmp_path: Path) -> None:
    digest, folder = tree_version(tmp_path)
    loaded = load_version(folder, digest, open_runtime)
    assert loaded.runtime is not None
    np.testing.assert_array_equal(loaded.runtime.predict(matrix()), trees.parse(booster_text()).predict(matrix()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tree_model_takes_its_matrix_as_a_tensor(dtype: Any) -> None:
    runtime = TreeRuntime(booster_text().encode(), "lightgbm")
    assert runtime.signature() == {
        "inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}],
        "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}],
    }
    given = matrix().astype(dtype)
    np.testing.assert_array_equal(runtime.infer({"input": given})["score"], runtime.predict(given.astype(np.float64)))
    for tensors in ({}, {"x": given}, {"input": given.astype(np.int64)}, {"input": given[:, :1]}):
        with pytest.raises(InvalidError):
            runtime.infer(tensors)


@pytest.mark.parametrize("zipmap", [True, False])
def test_an_onnx_classifiers_probabilities_are_the_score(zipmap: bool) -> None:
    binary = score_matrix(classifier(zipmap=zipmap), matrix(), BINARY)
    three = score_matrix(classifier(zipmap=zipmap, classes=3), matrix(), THREE)
    assert binary.shape == (5,)
    assert three.shape == (5, 3)
    np.testing.assert_allclose(three.sum(axis=1), 1.0, rtol=1e-6)
    both = OnnxRuntime(classifier(zipmap=zipmap)).infer({"x": matrix().astype(np.float32)})
    probabilities = both["probabilities" if zipmap else "raw"]
    np.testing.assert_allclose(probabilities[:, 1], binary, rtol=1e-6)
    np.testing.assert_array_equal(both["label"], (binary > 0.5).astype(int))


def test_an_onnx_signature_is_the_protocols() -> None:
    assert OnnxRuntime(affine()).signature() == {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }


def test_what_is_no_onnx_model_or_does_not_fit_it_is_refused() -> None:
    with pytest.raises(InvalidError) as caught:
        OnnxRuntime(b"not a model")
    assert caught.value.code == "bad_onnx"
    with pytest.raises(InvalidError):
        OnnxRuntime(affine()).infer({"x": np.zeros((1, 3), np.float32)})


def test_a_runtime_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"'tree'.*did you mean 'trees'"):
        open_runtime("tree", tmp_path, Manifest(model="m"))


def skops_version(
    root: Path, model: Any, *, method: str, task: TaskSpec, features: Any = None, **runtime: Any
) -> tuple[str, Path]:
    import skops.io

    data = skops.io.dumps(model)
    trusted = skops.io.get_untrusted_types(data=data)
    body = {"kind": "process", "format": "skops", "file": "model.skops", "method": method, "input": "matrix"}
    specs = features or [{"name": "a", "expr": ["lit", 0]}, {"name": "b", "expr": ["lit", 0]}]
    runtime = {"trusted": trusted, **runtime}
    return write_version(
        root,
        {"model.skops": data},
        **fraud_manifest(task=task.to_data(), features=specs, runtime=body | runtime),
    )


@pytest.fixture(scope="module")
def logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    x = matrix(200)
    return LogisticRegression().fit(x, (x[:, 0] + x[:, 1] > 0).astype(float))


@pytest.mark.slow
def test_a_scikit_learn_model_runs_in_a_process_of_its_own(
    tmp_path: Path, logistic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, folder = skops_version(tmp_path, logistic, method="predict_proba", task=BINARY)
    loaded = load_version(folder, digest, open_runtime)
    runtime = loaded.runtime
    assert isinstance(runtime, ProcessRuntime)
    assert runtime.pid != os.getpid()
    np.testing.assert_array_equal(runtime.predict(matrix()), logistic.predict_proba(matrix())[:, 1])
    pid = runtime.pid
    exchange = runtime._exchange

    def dying(data: bytes) -> Any:
        os.kill(pid, signal.SIGKILL)
        return exchange(data)

    monkeypatch.setattr(runtime, "_exchange", dying)
    with pytest.raises(UnavailableError) as caught:
        runtime.predict(matrix())
    monkeypatch.undo()
    assert caught.value.code == "model_process_died"
    assert runtime.pid != pid
    np.testing.assert_array_equal(runtime.predict(matrix(1)), logistic.predict_proba(matrix(1))[:, 1])
    with pytest.raises(InternalError) as failed:
        runtime.predict(np.full((1, 2), np.nan))
    assert failed.value.code == "model_failed"
    scores, errors = score_rows(runtime.predict, np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 1.0]]))
    assert list(errors) == [1]
    assert scores is not None
    np.testing.assert_array_equal(scores[[0, 2]], logistic.predict_proba([[0.0, 1.0], [1.0, 1.0]])[:, 1])
    runtime.close()
    with pytest.raises(UnavailableError, match="no longer"):
        runtime.predict(matrix())


@pytest.mark.slow
def test_a_version_that_is_dropped_ends_its_process(tmp_path: Path, logistic: Any) -> None:
    _, folder = skops_version(tmp_path, logistic, method="predict_proba", task=BINARY)
    runtime = ProcessRuntime(folder, manifest_of(folder))
    pid = runtime.pid
    del runtime
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_a_frame_of_names_and_categories_is_rebuilt_for_the_estimator(tmp_path: Path) -> None:
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = pd.DataFrame(
        {"kind": pd.Categorical(["web", "shop"] * 20, categories=["web", "shop"]), "amount": np.arange(40.0)}
    )
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["kind"]), remainder="passthrough")
    model = make_pipeline(encoder, LinearRegression()).fit(frame, frame["amount"] + 5.0 * (frame["kind"] == "web"))
    features = [
        FeatureSpec(name="kind", expr=["lit", 0], type="category", categories=("web", "shop")).to_data(),
        FeatureSpec(name="amount", expr=["lit", 0]).to_data(),
    ]
    _, folder = skops_version(
        tmp_path, model, method="predict", task=REGRESSION, features=features, input="frame", columns=["kind", "amount"]
    )
    runtime = ProcessRuntime(folder, manifest_of(folder))
    np.testing.assert_allclose(runtime.predict(np.array([[0.0, 10.0], [1.0, 10.0]])), [15.0, 10.0])
    runtime.close()


@pytest.mark.slow
def test_lightgbm_itself_can_be_the_process(tmp_path: Path) -> None:
    runtime = {"kind": "process", "format": "lightgbm", "file": "model.txt"}
    text = booster_text()
    probe = np.array([[10.0, 0.0], [90.0, 1.0]])
    expected = trees.parse(text).predict(probe)
    files = {"model.txt": text.encode(), "samples.npz": samples(inputs=probe, outputs=expected)}
    digest, folder = write_version(tmp_path, files, **fraud_manifest(runtime=runtime))
    loaded = load_version(folder, digest, open_runtime)
    assert loaded.runtime is not None
    np.testing.assert_allclose(loaded.runtime.predict(probe), expected, rtol=1e-12)
    loaded.runtime.close()


@pytest.mark.slow
def test_xgboost_itself_can_be_the_process(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    x = matrix(100)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(x, x[:, 0] > 0), 3)
    runtime = {"kind": "process", "format": "xgboost", "file": "model.json"}
    data = bytes(booster.save_raw("json"))
    expected = trees.open_model("xgboost", data).predict(x)
    files = {"model.json": data, "samples.npz": samples(inputs=x, outputs=expected)}
    digest, folder = write_version(tmp_path, files, **fraud_manifest(runtime=runtime))
    loaded = load_version(folder, digest, open_runtime)
    assert loaded.runtime is not None
    np.testing.assert_allclose(loaded.runtime.predict(x), booster.predict(xgboost.DMatrix(x)), rtol=1e-6)
    loaded.runtime.close()


@pytest.mark.slow
def test_types_that_the_manifest_does_not_list_are_never_loaded(tmp_path: Path) -> None:
    from sklearn.preprocessing import FunctionTransformer

    model = FunctionTransformer(func=os.path.join)
    _, folder = skops_version(tmp_path, model, method="predict", task=REGRESSION, trusted=[])
    with pytest.raises(InvalidError) as caught:
        ProcessRuntime(folder, manifest_of(folder))
    assert caught.value.code == "untrusted_types"
    _, listed = skops_version(tmp_path, model, method="predict", task=REGRESSION)
    with pytest.raises(InvalidError, match="posixpath"):
        ProcessRuntime(listed, manifest_of(listed))


@pytest.mark.slow
def test_a_child_that_hangs_is_stopped_and_replaced(tmp_path: Path, logistic: Any) -> None:
    _, folder = skops_version(tmp_path, logistic, method="predict_proba", task=BINARY)
    runtime = ProcessRuntime(folder, manifest_of(folder), answer_seconds=0.2)
    pid = runtime.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(LateError) as caught:
        runtime.predict(matrix())
    assert caught.value.code == "model_too_slow"
    assert runtime.pid != pid
    runtime.close()


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    _, folder = write_version(
        tmp_path, {"m": b"x"}, **fraud_manifest(runtime={"kind": "process", "format": "pickle", "file": "m"})
    )
    with pytest.raises(FlyballError, match="'pickle'"):
        ProcessRuntime(folder, manifest_of(folder))
