"""The process in which a model runs that needs its own library. Started by `process.py`: matrices in, scores out.

Nothing of a file is executed before its types were checked: a skops file names the classes that it holds, and only
those that the manifest lists, from installed libraries, are made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from flyball.engines.runtimes.process import FAILED, OK, REPLY, REQUEST
from flyball.kernel.errors import FlyballError, InternalError, InvalidError, UnavailableError
from flyball.kernel.files import read_document
from flyball.serving.manifest import MANIFEST, MANIFEST_FORMAT, Manifest, manifest_from_data
from flyball.serving.ports import Matrix, Score

TRUSTED = ("sklearn.", "numpy.", "scipy.", "lightgbm.", "collections.")

Predict = Callable[[Matrix], Any]


def load(folder: Path, manifest: Manifest) -> Predict:
    """The model's function from a matrix to scores; raises `untrusted_types` before anything of the file runs."""
    path = folder / str(manifest.runtime["file"])
    kind = manifest.runtime.get("format")
    try:
        if kind == "skops":
            return _skops(path.read_bytes(), manifest)
        if kind == "lightgbm":
            return _lightgbm(path.read_text())
        if kind == "xgboost":
            return _xgboost(path.read_bytes())
    except ImportError as error:
        raise UnavailableError(
            f"the model needs {error.name}, which is not installed",
            code="missing_library",
            hint="pip install 'flyball[sklearn,lightgbm,xgboost]'",
        ) from None
    raise InvalidError(f"there is no loader for models in the format {kind!r}", code="unknown_runtime")


def _skops(data: bytes, manifest: Manifest) -> Predict:
    import skops.io

    trusted = [str(name) for name in manifest.runtime.get("trusted") or []]
    found = skops.io.get_untrusted_types(data=data)
    bad = sorted(name for name in found if name not in trusted or not name.startswith(TRUSTED))
    if bad:
        raise InvalidError(
            f"the model's file holds types that are not trusted: {', '.join(bad)}", code="untrusted_types"
        )
    model = skops.io.loads(data, trusted=found)
    method = str(manifest.runtime.get("method") or "predict")
    if method not in ("predict", "predict_proba"):
        raise InvalidError(f"the method {method!r} is not one that scores", code="bad_manifest")
    columns = manifest.runtime.get("columns")

    def predict(matrix: Matrix) -> Any:
        return getattr(model, method)(matrix if columns is None else _frame(matrix, manifest)[columns])

    return predict


def _lightgbm(text: str) -> Predict:
    import lightgbm

    booster = lightgbm.Booster(model_str=text)
    return lambda matrix: booster.predict(matrix, num_threads=1)


def _xgboost(data: bytes) -> Predict:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(data))

    def predict(matrix: Matrix) -> Any:
        types = booster.feature_types
        rows = xgboost.DMatrix(
            matrix, feature_names=booster.feature_names, feature_types=types, enable_categorical=True, nthread=1
        )
        return booster.predict(rows)

    return predict


def _frame(matrix: Matrix, manifest: Manifest) -> Any:
    """A pandas frame as the estimator was fitted on: features by name, codes as categories."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for position, spec in enumerate(manifest.features):
        values = matrix[:, position]
        if spec.categories:
            codes = np.where(np.isnan(values), -1, values).astype(np.int64)
            columns[spec.name] = pd.Categorical.from_codes(codes, categories=pd.Index(list(spec.categories)))
        else:
            columns[spec.name] = values
    return pd.DataFrame(columns)


def scores(result: Any, manifest: Manifest) -> Score:
    """A library's answer as the score of the task: the probability of true alone for binary."""
    array = np.asarray(result, dtype=np.float64)
    if array.ndim == 2 and (manifest.task is None or manifest.task.kind != "multiclass"):
        array = array[:, -1]
    return np.ascontiguousarray(array)


def serve(predict: Predict, manifest: Manifest, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer until the other end closes."""
    while header := _exactly(requests, REQUEST.size):
        rows, columns = REQUEST.unpack(header)
        matrix = np.frombuffer(_exactly(requests, 8 * rows * columns), dtype="<f8").reshape(rows, columns)
        try:
            score = scores(predict(matrix.astype(np.float64)), manifest)
        except Exception as error:
            _fail(replies, InternalError(f"the model failed with {type(error).__name__}", code="model_failed"))
            continue
        shape = score.shape if score.ndim == 2 else (len(score), 0)
        replies.write(REPLY.pack(OK, *shape) + score.astype("<f8").tobytes())
        replies.flush()


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    return data if len(data) == size else b""


def _fail(replies: IO[bytes], error: FlyballError) -> None:
    data = msgspec.json.encode(error.to_data())
    replies.write(REPLY.pack(FAILED, 0, len(data)) + data)
    replies.flush()


def main() -> None:
    folder = Path(sys.argv[1])
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the replies
    try:
        manifest = manifest_from_data(read_document(folder / MANIFEST, MANIFEST_FORMAT))
        predict = load(folder, manifest)
    except FlyballError as error:
        _fail(replies, error)
        return
    replies.write(REPLY.pack(OK, 0, 0))
    replies.flush()
    serve(predict, manifest, sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
