"""scikit-learn: an ensemble of trees becomes arrays for the tree kernel; another estimator or a pipeline becomes a
skops file, made canonical, which is served by a process of its own."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from flyball.kernel.errors import InvalidError, UnavailableError
from flyball.kernel.ids import canonical
from flyball.registry import forests
from flyball.registry.package import Inputs, Packed, check_classes, check_features
from flyball.registry.ports import Matrix, Score

FILE = "model.skops"
TRUSTED = ("sklearn.", "numpy.", "scipy.", "lightgbm.", "collections.")  # code that is installed, not sent along


def pack(model: Any, inputs: Inputs) -> Packed | None:
    """None where the model is no estimator of scikit-learn's."""
    if not any(cls.__module__ == "sklearn.base" and cls.__name__ == "BaseEstimator" for cls in type(model).__mro__):
        return None
    method = _method(model, inputs)
    runtime: dict[str, Any] = {"kind": "process", "format": "skops", "file": FILE, "method": method}
    runtime |= _input(model, inputs)
    columns = runtime.get("columns")

    def given(matrix: Matrix) -> Any:
        return matrix if columns is None else inputs.to_frame(matrix)[columns]

    def score(matrix: Matrix) -> Score:
        result = getattr(model, method)(given(matrix))
        return result[:, 1] if method == "predict_proba" and not inputs.classes else result  # type: ignore[no-any-return]

    def in_process() -> Packed:
        data, trusted = _dump(model)
        own = [name for name in ("lightgbm", "xgboost") if any(t.startswith(f"{name}.") for t in trusted)]
        return Packed(
            runtime=runtime | {"trusted": trusted},
            files={FILE: data},
            libraries=("scikit-learn", "skops", *own),
            inputs=inputs,
            score=score,
        )

    if inputs.trees is None or not forests.is_forest(model):
        return in_process()
    try:
        forest = forests.convert(model, inputs)
    except forests.Unfit as error:
        packed = in_process()
        return replace(packed, runtime=packed.runtime | {"reason": f"the tree kernel does not run this model: {error}"})
    apply = forests.leaves(model, forest)
    return Packed(
        runtime={"kind": "trees", "format": forests.FORMAT, "file": forests.FILE, "input": "matrix"},
        files={forests.FILE: forest.to_bytes(inputs.features)},
        libraries=("scikit-learn",),
        inputs=inputs,
        score=score,
        leaves=None if apply is None else lambda matrix: apply(given(matrix)),
        fallback=in_process,
    )


def _method(model: Any, inputs: Inputs) -> str:
    if inputs.task.kind == "regression":
        return "predict"
    if not hasattr(model, "predict_proba"):
        raise InvalidError(
            f"{type(model).__name__} gives no probabilities, which a {inputs.task.kind} task needs",
            code="bad_model",
            hint="wrap it in sklearn.calibration.CalibratedClassifierCV, and fit it before run.package",
        )
    if not hasattr(model, "classes_"):
        raise InvalidError(
            f"{type(model).__name__} is not fitted", code="bad_model", hint="call fit before run.package"
        )
    check_classes(model.classes_, inputs)
    return "predict_proba"


def _input(model: Any, inputs: Inputs) -> dict[str, Any]:
    """How rows are handed over: a matrix, or a frame of the columns that the estimator was fitted on."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        if hasattr(model, "n_features_in_"):
            check_features(int(model.n_features_in_), None, inputs)
        return {"input": "matrix"}
    columns = [str(name) for name in names]
    unknown = [name for name in columns if name not in inputs.features]
    if unknown:
        raise InvalidError(
            f"the estimator was fitted on the columns {', '.join(unknown)}, which are no features of the model",
            code="bad_signature",
            hint=f"the features are {', '.join(inputs.features)}",
        )
    return {"input": "frame", "columns": columns}


def _dump(model: Any) -> tuple[bytes, list[str]]:
    try:
        import skops.io as skops
    except ImportError:
        raise UnavailableError(
            "skops is not installed; it writes scikit-learn models in a form that executes nothing",
            code="missing_library",
            hint="pip install 'flyball[sklearn]'",
        ) from None
    try:
        data = canonical_skops(skops.dumps(model))
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise InvalidError(f"skops cannot write this {type(model).__name__}: {error}", code="bad_model") from None
    names: list[str] = sorted(skops.get_untrusted_types(data=data))
    own = [name for name in names if not name.startswith(TRUSTED)]
    if own:
        raise InvalidError(
            f"the estimator holds code that a package cannot carry: {', '.join(own)}",
            code="bad_model",
            hint="use what scikit-learn and NumPy bring, or declare the computation as a feature (fb.transform)",
        )
    return data, names


def canonical_skops(data: bytes) -> bytes:
    """The same model in the one spelling: skops names things by their address in memory, and stamps the time.

    Things of JSON are immutable, so they get a number each, shared or not; others keep who shares what.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
        files = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
    renamed: dict[str, str] = {}
    _renumber(schema, {}, renamed, itertools.count(1))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for old, new in sorted(renamed.items(), key=lambda pair: pair[1]):
            archive.writestr(zipfile.ZipInfo(new), files[old], zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("schema.json"), canonical(schema), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _renumber(node: Any, ids: dict[int, int], files: dict[str, str], numbers: itertools.count[int]) -> None:
    if isinstance(node, list):
        for item in node:
            _renumber(item, ids, files, numbers)
    if not isinstance(node, dict):
        return
    if "__id__" in node:
        fresh = next(numbers)
        node["__id__"] = fresh if node.get("is_json") else ids.setdefault(node["__id__"], fresh)
    if isinstance(node.get("file"), str):
        name = node["file"]
        node["file"] = files.setdefault(name, f"{len(files):06}{PurePosixPath(name).suffix}")
    for value in node.values():
        _renumber(value, ids, files, numbers)
